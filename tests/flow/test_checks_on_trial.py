"""Checks that safety.toml names in the registry: which version is in force, which is on trial.

And what a server records of a trial. No network is loaded: versions are files, words are messages.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from calotype.core import limits
from calotype.core.errors import InvalidInput, ModelBroken, OperatorError
from calotype.core.messages import TrialSeen
from calotype.core.nouns import Tier
from calotype.core.picture_checks import ENCODER_FILE
from calotype.flow.safeguards import Safeguards
from calotype.flow.training import train
from calotype.flow.trials import TrialRecord, Trials
from calotype.jobs.store import JobStore
from calotype.pool import intake
from calotype.pool.aliases import changing
from calotype.pool.catalogue import Catalogue
from calotype.pool.embedder import Embedder
from calotype.pool.kinds import ModelKind
from calotype.pool.models import load_command
from calotype.safety.training import course
from calotype.settings import Settings
from tests.flow.dispatch_bench import MODEL, SPEC
from tests.laid import opened_in
from tests.rooms.test_safety_training import one

TOML = """
[checks.own]
kind = "probe"
model = "own"
[checks.own.categories]
harmless = "harmless"
bad = "sexual"
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checks of the same labels."""
    made = []
    examples = [one(label, seed) for label in ("bad", "harmless") for seed in range(40)]
    examples = [replace(each, pixels_sha256=each.of.name) for each in examples]
    apart = [replace(each, hashed=replace(each.hashed, quality=0)) for each in examples]
    for seed in range(2):
        folder = tmp_path_factory.mktemp("checks") / "own"
        folder.mkdir()
        save_file({"a": np.zeros(3, np.float32)}, folder / ENCODER_FILE)
        said = {"kind": "domain", "width": 6, "name": "tiny", "build": "0"}
        course.run(apart, course.Wish("own", seed=seed), course.Encoder(said, ("a",)), folder)
        made.append(folder)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "safety.toml").write_text(TOML)
    return folder


def added(home: Path, folder: Path) -> str:
    catalogue = Catalogue(home / "models", home, is_quick=True)
    catalogue.scan()
    wish = intake.Wish(kind=ModelKind.CLASSIFIER)
    return intake.take_in(catalogue.versions, folder, wish, taken={}).record.version


def guards(home: Path) -> Safeguards:
    return Safeguards(Settings(home=home))


def root(home: Path) -> Path:
    return home / "models" / ".registry"


def test_what_stable_stands_for_is_in_force_and_its_canary_on_trial(
    home: Path, folders: list[Path]
) -> None:
    first, second = (added(home, folder) for folder in folders)
    assert first != second
    [use] = guards(home).setup.uses("")
    assert (use.build, use.labels) == (first, ("harmless", "bad"))
    assert guards(home).setup.trials == ()
    with changing(root(home)) as state:
        state.try_out(ModelKind.CLASSIFIER, "own", "stable", second, 0.5)
    found = guards(home)
    [use], [trial] = found.setup.uses(""), found.setup.trials
    assert (use.build, trial.build, trial.share) == (first, second, 0.5)
    assert (trial.name, trial.labels, trial.kind) == (use.name, use.labels, use.kind)
    assert Path(trial.path).name == second
    model = found.equipped(replace(MODEL, domain="vignette-domain"))
    assert load_command(model).trials == (trial,)
    assert trial not in load_command(model).checks
    before = found.setup.version
    with changing(root(home)) as state:
        state.point(ModelKind.CLASSIFIER, "own", "stable", second, "promoted")
    after = guards(home).setup
    assert [each.build for each in after.uses("")] == [second]
    assert after.trials == ()
    assert after.version != before
    with changing(root(home)) as state:
        state.roll_back(ModelKind.CLASSIFIER, "own", "stable")
    assert guards(home).setup.version == before  # a trial is no part of what judges


def test_a_version_can_be_named_by_its_digits(home: Path, folders: list[Path]) -> None:
    _, second = (added(home, folder) for folder in folders)
    for text, build in ((f"own@{second[:8]}", second), (f"own@{second}", second)):
        (home / "safety.toml").write_text(TOML.replace('"own"', f'"{text}"'))
        assert [each.build for each in guards(home).setup.uses("")] == [build]
    for text in ("own@beta", "other", "own@000000"):
        (home / "safety.toml").write_text(TOML.replace('"own"', f'"{text}"'))
        with pytest.raises(OperatorError, match="no classifier") as told:
            guards(home)
        assert told.value.limit == ["own"]


def test_a_check_that_is_not_what_was_registered_stops_the_start(
    home: Path, folders: list[Path]
) -> None:
    first, second = (added(home, folder) for folder in folders)
    with changing(root(home)) as state:
        state.try_out(ModelKind.CLASSIFIER, "own", "stable", second, 1.0)
    for version in (second, first):
        head = root(home) / "classifier" / "own" / version / "head.safetensors"
        head.chmod(0o644)
        head.write_bytes(head.read_bytes()[:-1] + b"\x01")
        if version == second:  # on trial: it is only left out
            assert guards(home).setup.trials == ()
    with pytest.raises(ModelBroken, match="immutable"):
        guards(home)


def test_a_check_says_where_it_lies_in_one_way(home: Path) -> None:
    for text in (TOML.replace('model = "own"\n', ""), TOML.replace("kind", 'path = "x"\nkind')):
        (home / "safety.toml").write_text(text)
        with pytest.raises(OperatorError, match="a path, or a model of the registry") as told:
            guards(home)
        assert told.value.field == "checks.own.path"


# What is recorded.


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[JobStore]:
    opened = await opened_in(tmp_path)
    yield opened
    await opened.close()


async def test_what_both_said_is_recorded_by_the_policy_of_who_asked(
    home: Path, folders: list[Path], store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = added(home, folders[0])
    (home / "safety.toml").write_text(f'[tenants]\nacme = "enterprise"\n{TOML}')
    trials = Trials(home / "trials", store, guards(home))
    jobs = {tenant: await store.insert(tenant, Tier.FAST, SPEC) for tenant in ("acme", "other")}
    current, then = {"bad": 0.1, "harmless": 0.9}, {"bad": 0.2, "harmless": 0.8}
    for job in jobs.values():
        row = f"{job.id}/1/2"
        trials.hear(
            TrialSeen(row, "own", "b" * 16, current, then, took_s=0.01, current_build=version)
        )
    failed = TrialSeen(row, "own", "b" * 16, current, {}, failed="out of memory")
    trials.hear(replace(failed, current_build=version))
    await trials.record()
    found = list(TrialRecord(home / "trials").read("own"))
    assert [each.job for each in found[:2]] == [jobs["acme"].id, jobs["other"].id]
    assert {each.current for each in found} == {version}
    assert [each.policy.split("-")[0] for each in found] == ["enterprise", "pg13", "pg13"]
    assert [(each.now, each.then) for each in found] == [("", "sexual"), ("", ""), ("", None)]
    assert (found[0].image, found[2].failed) == (2, "out of memory")
    await trials.record()
    assert len(list(TrialRecord(home / "trials").read("own"))) == 3

    monkeypatch.setattr(limits, "TRIAL_VERDICTS_HELD_MAX", 2)
    for _ in range(5):
        trials.hear(TrialSeen(row, "own", "b" * 16, current, then))
    assert trials.dropped == 3
    await trials.record()
    assert len(list(TrialRecord(home / "trials").read("own"))) == 5
    assert trials.dropped == 0


async def test_a_job_that_is_not_there_costs_its_record_only(
    home: Path, folders: list[Path], store: JobStore
) -> None:
    added(home, folders[0])
    trials = Trials(home / "trials", store, guards(home))
    job = await store.insert("acme", Tier.FAST, SPEC)
    for row in ("job_gone/1/0", f"{job.id}/1/0"):
        trials.hear(TrialSeen(row, "own", "b" * 16, {}, {"bad": 0.1, "harmless": 0.9}))
    await trials.record()
    assert [each.job for each in TrialRecord(home / "trials").read()] == [job.id]
    (home / "trials" / "own.jsonl").unlink()
    (home / "trials" / "own.jsonl").mkdir()  # nothing can be written there
    trials.hear(TrialSeen(f"{job.id}/1/0", "own", "b" * 16, {}, {"bad": 0.1, "harmless": 0.9}))
    await trials.record()
    assert trials.dropped == 0  # counted in the log, and the server goes on


# The process of the encoder.


def test_an_encoder_s_process_that_ends_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(
        "calotype.pool.embedder.COMMAND", (sys.executable, "-c", "raise SystemExit('out of order')")
    )
    with pytest.raises(OperatorError, match="out of order"):
        Embedder(tmp_path, tmp_path)
    said = json.dumps({"width": 3})
    half = f"import sys; print({said!r}, flush=True); sys.stdin.buffer.read(8); sys.exit('died')"
    monkeypatch.setattr("calotype.pool.embedder.COMMAND", (sys.executable, "-c", half))
    with Embedder(tmp_path, tmp_path) as embedder, pytest.raises(OperatorError, match="died"):
        embedder.features(np.zeros((4, 4, 3), np.uint8))
    wrong = 'print(\'{"error": "no encoder here"}\')'
    monkeypatch.setattr("calotype.pool.embedder.COMMAND", (sys.executable, "-c", wrong))
    with pytest.raises(InvalidInput, match="no encoder here") as told:
        Embedder(tmp_path, tmp_path)
    assert told.value.field == "encoder"


def test_labels_that_teach_nothing_are_refused_before_a_picture_is_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.pool.embedder.COMMAND", ("no", "such", "program"))
    catalogue = Catalogue(home / "models", home, is_quick=True)
    catalogue.scan()
    for at in range(20):
        for label in ("fine", "wrong"):
            path = tmp_path / "data" / label / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no picture")
    with pytest.raises(InvalidInput, match="say which labels are harmless"):
        train(catalogue, [tmp_path / "data"], course.Wish("own"))
    wish = course.Wish("own", harmless=("fine",))
    path.unlink()
    with pytest.raises(InvalidInput, match="'wrong' has 19 pictures"):
        train(catalogue, [tmp_path / "data"], wish)
    for path in (tmp_path / "data" / "wrong").iterdir():
        path.unlink()
    (tmp_path / "data" / "wrong").rmdir()
    with pytest.raises(InvalidInput, match="pictures of 1 labels"):
        train(catalogue, [tmp_path / "data"], wish)
