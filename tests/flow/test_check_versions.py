"""What a server makes of versions of checks that are promoted, rolled back or tried as it runs.

Engines are stood in for; the registry, safety.toml and the audit trail are real.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from calotype.core import limits
from calotype.core.messages import CheckSettled, Message, UseChecks
from calotype.core.picture_checks import HEAD_FILE, INDEX_FILE, CheckUse
from calotype.core.states import EngineState
from calotype.flow.check_versions import SUBJECT, CheckVersions
from calotype.flow.safeguards import Safeguards
from calotype.jobs.store import JobStore
from calotype.pool import intake
from calotype.pool.aliases import changing
from calotype.pool.catalogue import Catalogue
from calotype.pool.kinds import ModelKind
from calotype.pool.reports import EngineDown, EngineHealth
from calotype.safety.builds import KnownBuilds
from calotype.settings import Settings
from tests.flow.command_line import here
from tests.flow.dispatch_bench import MODEL, StubPool
from tests.laid import opened_in

KIND = ModelKind.CLASSIFIER
TOML = """
[checks.own]
kind = "classifier"
model = "own"
[checks.own.categories]
fine = "harmless"
bad = "sexual"
"""


def folder_of(place: Path, seed: int, labels: tuple[str, ...] = ("fine", "bad")) -> Path:
    """Files as a classifier's; no network is loaded of them."""
    place.mkdir(parents=True)
    save_file({"head": np.full((len(labels), 3), seed, np.float32)}, place / "model.safetensors")
    said = {"architectures": ["ViTForImageClassification"], "id2label": dict(enumerate(labels))}
    (place / "config.json").write_text(json.dumps(said))
    return place


def added(home: Path, folder: Path) -> str:
    catalogue = Catalogue(home / "models", home, is_quick=True)
    catalogue.scan()
    wish = intake.Wish(name="own", kind=KIND)
    return intake.take_in(catalogue.versions, folder, wish, taken={}).record.version


class Engines(StubPool):
    """Engines that say only what a test has them say."""

    def __init__(self, count: int = 2) -> None:
        super().__init__(count)
        self.asked: list[tuple[str, UseChecks]] = []

    async def send(self, engine: str, message: Message, blob: bytes = b"") -> None:
        assert isinstance(message, UseChecks)
        if engine in self.down:
            raise EngineDown(f"{engine} is down")
        self.asked.append((engine, message))

    def health(self) -> list[EngineHealth]:
        return [
            replace(one, state=EngineState.DEAD if one.name in self.down else EngineState.READY)
            for one in super().health()
        ]

    def take(self) -> list[tuple[str, str]]:
        """Who was asked for which version, since the last time."""
        asked, self.asked[:] = [*self.asked], []
        return [(engine, message.checks[0].build) for engine, message in asked]


class Bench:
    """A server's versions of one check, of which two are registered, the first in force."""

    def __init__(self, home: Path, store: JobStore) -> None:
        self.home, self.store, self.pool = home, store, Engines()
        self.first = added(home, folder_of(home / "made" / "1", 1))
        self.second = added(home, folder_of(home / "made" / "2", 2))
        self.settings = Settings(home=home)
        self.guards = Safeguards(self.settings)
        note = store.people.audit.note
        self.versions = CheckVersions(self.settings, self.guards, self.pool, note)

    @property
    def in_force(self) -> list[str]:
        return [use.build for use in self.guards.setup.uses("")]

    def point(self, version: str) -> None:
        with changing(self.home / "models" / ".registry") as state:
            state.point(KIND, "own", "stable", version, "promoted")

    async def promote(self, version: str) -> list[tuple[str, str]]:
        self.point(version)
        await self.versions.look()
        return self.pool.take()

    async def written(self) -> None:
        """What safety.toml says has stayed as it is for a while."""
        for _ in range(2):
            await self.versions.look()

    def say(self, engine: str, wanted: str, build: str, why_not: str = "", **more: Any) -> None:
        self.versions.heard(engine, CheckSettled("own", wanted, build, why_not, **more))

    async def notes(self) -> list[str]:
        await self.versions.look()  # which writes them down
        return [entry.kind for entry in await self.store.people.audit.of(SUBJECT)]

    def said(self) -> dict[str, Any]:
        found: dict[str, Any] = self.versions.told()["versions"]["own"]
        return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "safety.toml").write_text(TOML)
    store = await opened_in(tmp_path)
    yield Bench(home, store)
    await store.close()


async def test_a_version_is_in_force_once_every_engine_has_it_and_rolls_back_the_same_way(
    bench: Bench,
) -> None:
    first, second = bench.first, bench.second
    assert bench.in_force == [first]
    assert await bench.promote(second) == [("engine-0", second), ("engine-1", second)]
    bench.say("engine-0", second, second)
    assert bench.in_force == [first], "engine-1 hasn't it yet"
    assert bench.said()["wanted"] == second
    assert bench.said()["engines"]["engine-0"] == {"in_force": second, "why_not": ""}
    assert "hasn't answered yet" in bench.said()["engines"]["engine-1"]["why_not"]
    assert [use.build for use in bench.guards.equipped(MODEL).checks] == [first]
    bench.say("engine-1", second, second)
    assert bench.in_force == [second]
    assert [use.build for use in bench.guards.equipped(MODEL).checks] == [second]
    assert await bench.notes() == ["check_wanted", "check_in_force"]
    with changing(bench.home / "models" / ".registry") as state:
        state.roll_back(KIND, "own", "stable")
    await bench.versions.look()
    assert bench.pool.take() == [("engine-0", first), ("engine-1", first)]
    for engine in bench.pool.engines:
        bench.say(engine, first, first)
    assert bench.in_force == [first]
    assert await bench.store.people.audit.verify() > 0


async def test_where_an_engine_cannot_take_it_the_old_one_is_in_force_and_it_is_said(
    bench: Bench,
) -> None:
    await bench.promote(bench.second)
    bench.say("engine-0", bench.second, bench.second)
    bench.say("engine-1", bench.second, bench.first, "SafetensorError: it is cut off")
    assert bench.in_force == [bench.first]
    assert bench.said()["engines"]["engine-1"] == {
        "in_force": bench.first,
        "why_not": "SafetensorError: it is cut off",
    }
    assert await bench.notes() == ["check_wanted", "check_kept"]
    assert bench.pool.take() == [], "it isn't tried again by itself"
    uses = bench.guards.setup.uses("")
    for build in (bench.first, bench.second):  # each engine's answers are taken, and named
        [use], unchecked = bench.versions.builds.judged(uses, {"own": build}, {})
        assert (use.build, unchecked) == (build, {})
    _, unchecked = bench.versions.builds.judged(uses, {"own": "f" * 16}, {})
    assert "isn't in force" in unchecked["own"]
    bench.pool.down.add("engine-1")  # it ends, and the next one of its name loads what is in force
    bench.versions.gone("engine-1")
    assert bench.in_force == [bench.second]


async def test_what_an_engine_says_of_an_earlier_wish_counts_for_nothing(bench: Bench) -> None:
    await bench.promote(bench.second)
    await bench.promote(bench.first)
    for engine in bench.pool.engines:
        bench.say(engine, bench.second, bench.second)
    assert bench.in_force == [bench.first]
    assert bench.said()["wanted"] == bench.first


async def test_an_engine_that_begins_is_asked_and_one_that_is_not_up_is_not_waited_for(
    bench: Bench,
) -> None:
    bench.pool.down.add("engine-1")
    assert await bench.promote(bench.second) == [("engine-0", bench.second)]
    bench.say("engine-0", bench.second, bench.second)
    assert bench.in_force == [bench.second]
    bench.pool.down.clear()
    await bench.versions.warm("engine-1")
    assert bench.pool.take() == [("engine-1", bench.second)]


async def test_nobody_s_proof_is_no_proof(bench: Bench) -> None:
    """With no engine up, or none that needs the check, nothing comes in force."""
    bench.pool.down.update(bench.pool.engines)
    assert await bench.promote(bench.second) == []
    assert bench.in_force == [bench.first]
    bench.pool.down.clear()
    for engine in bench.pool.engines:
        bench.say(engine, bench.second, "")
    assert bench.in_force == [bench.first]


async def test_a_version_that_ends_engines_is_given_up(bench: Bench) -> None:
    bench.point(bench.second)
    await bench.versions.look()
    bench.say("engine-1", bench.second, bench.second)
    for _ in range(limits.CHECK_DEATHS_MAX):
        assert ("engine-0", bench.second) in bench.pool.take()
        bench.versions.gone("engine-0")
        await bench.versions.warm("engine-0")
    assert bench.pool.take()[-1] == ("engine-0", bench.first)
    bench.say("engine-0", bench.first, bench.first)
    assert bench.in_force == [bench.first]
    assert "ended while they proved it" in bench.said()["why_not"]
    assert await bench.notes() == ["check_wanted", "check_kept"]
    await bench.promote(bench.first)
    assert await bench.promote(bench.second) == [
        ("engine-0", bench.second),
        ("engine-1", bench.second),
    ]


async def test_a_version_without_room_is_asked_for_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.promote(bench.second)
    bench.say("engine-0", bench.second, bench.first, "there is no room", is_full=True)
    await bench.versions.look()
    assert bench.pool.take() == [], "not at once"
    monkeypatch.setattr(limits, "CHECK_AGAIN_S", 0.0)
    await bench.versions.look()
    assert bench.pool.take() == [("engine-0", bench.second)]


async def test_other_labels_are_refused_by_the_command_and_by_the_server(bench: Bench) -> None:
    other = added(bench.home, folder_of(bench.home / "made" / "3", 3, ("fine", "bad", "worse")))
    told = here(bench.home, "models", "promote", "classifier/own", other)
    assert told.returncode != 0
    assert "has the labels bad, fine, worse; bad, fine are mapped" in told.stderr
    assert await bench.promote(other) == [], "the state was written by hand"
    assert bench.in_force == [bench.first]
    assert "bad, fine are mapped" in bench.versions.told()["refused"]
    assert await bench.notes() == ["safety_refused"]
    assert here(bench.home, "models", "promote", "classifier/own", bench.second).returncode == 0
    await bench.versions.look()
    assert bench.pool.take() == [("engine-0", bench.second), ("engine-1", bench.second)]
    assert bench.versions.told()["refused"] == ""


async def test_files_that_are_not_what_was_registered_are_refused(bench: Bench) -> None:
    file = bench.home / "models/.registry/classifier/own" / bench.second / "model.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert await bench.promote(bench.second) == []
    assert bench.in_force == [bench.first]
    assert "immutable" in bench.versions.told()["refused"]


async def test_a_trial_begins_and_ends_without_a_restart(bench: Bench) -> None:
    for share, count in ((0.5, 1), (0.0, 0)):
        with changing(bench.home / "models" / ".registry") as state:
            state.try_out(KIND, "own", "stable", bench.second, share)
        await bench.versions.look()
        trials = [message.trials for _, message in bench.pool.asked]
        assert [len(each) for each in trials] == [count, count]
        assert len(bench.guards.setup.trials) == count
        bench.pool.take()
    assert bench.in_force == [bench.first]


def reader(place: Path, seed: int, encoder: str) -> Path:
    """Files as a recogniser's, of this text encoder."""
    place.mkdir(parents=True)
    head = {"head.weight": np.full((2, 4), seed, np.float32), "head.bias": np.zeros(2, np.float32)}
    save_file(head, place / HEAD_FILE)
    index = {"metadata": {}, "weight_map": dict.fromkeys(head, HEAD_FILE)}
    (place / INDEX_FILE).write_text(json.dumps(index))
    said = {
        "architectures": ["CalotypeRecogniserForSequenceClassification"],
        "id2label": {"0": "fine", "1": "bad"},
        "thresholds": {"fine": 0.5, "bad": 0.5},
        "text_encoders": [encoder],
    }
    (place / "config.json").write_text(json.dumps(said))
    return place


async def test_a_recogniser_is_promoted_and_tried_like_any_check(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kind = 'kind = "recogniser"\nmodels = ["tiny"]'
    (home / "safety.toml").write_text(TOML.replace('kind = "classifier"', kind))
    versions = [
        added(home, reader(tmp_path / str(seed), seed, encoder))
        for seed, encoder in enumerate(("clip", "clip", "another"))
    ]
    with changing(home / "models" / ".registry") as state:
        state.try_out(KIND, "own", "stable", versions[1], 1.0)
    guards = Safeguards(Settings(home=home))
    [use], [trial] = guards.setup.uses("", "tiny"), guards.setup.trials
    assert (use.build, trial.build) == (versions[0], versions[1])
    assert use.reads
    assert trial.reads
    told = here(home, "models", "promote", "classifier/own", versions[2])
    assert told.returncode != 0
    assert "another text encoder" in told.stderr
    assert here(home, "models", "promote", "classifier/own").returncode == 0
    assert Safeguards(Settings(home=home)).setup.uses("", "tiny")[0].build == versions[1]
    assert here(home, "models", "rollback", "classifier/own").returncode == 0
    assert Safeguards(Settings(home=home)).setup.version == guards.setup.version


async def test_policies_are_gone_by_at_once_and_what_is_wired_waits(bench: Bench) -> None:
    file = bench.home / "safety.toml"
    before = bench.guards.policy("acme")
    strict = '[policies.strict]\nextends = "pg13"\n[policies.strict.pictures]\nsexual = 0.01\n'
    conduct = "[conduct.ordinary]\nstrikes = 3\n"
    file.write_text("")  # half of what is written just now
    await bench.versions.look()
    assert bench.guards.setup.checks
    file.write_text(f'[tenants]\nacme = "strict"\n{strict}{conduct}{TOML}')
    await bench.versions.look()
    assert bench.guards.policy("acme") == before
    await bench.versions.look()
    policy = bench.guards.policy("acme")
    assert (policy.name, policy.pictures["sexual"]) == ("strict", 0.01)
    assert bench.guards.prompts("acme").policy == policy.version
    assert bench.guards.policy("other") == before
    assert bench.versions.told()["at_next_start"] == ["conduct"]
    assert await bench.notes() == ["policies_changed"]
    file.write_text(f'{TOML}[checks.more]\nkind = "classifier"\nmodel = "own"\ncategories = {{}}\n')
    await bench.written()
    assert "checks.more" in bench.versions.told()["refused"], "it can't be read: all stays"
    assert bench.guards.policy("acme") == policy


async def test_a_file_that_is_gone_has_not_said_that_everything_is_allowed(bench: Bench) -> None:
    file, before = bench.home / "safety.toml", bench.guards.setup
    file.write_text("  \n")
    await bench.written()
    assert "gone or empty" in bench.versions.told()["refused"]
    file.unlink()
    await bench.written()
    assert "gone or empty" in bench.versions.told()["refused"]
    assert bench.guards.setup == before
    file.write_text(TOML)
    await bench.written()
    assert bench.versions.told()["refused"] == ""


async def test_a_policy_that_does_not_fit_the_checks_is_refused(bench: Bench) -> None:
    file, before = bench.home / "safety.toml", bench.guards.setup
    file.write_text(TOML.replace('bad = "sexual"', 'bad = "nobodys"'))
    await bench.written()
    assert "nobodys" in bench.versions.told()["refused"]
    assert bench.guards.setup == before
    file.write_text(TOML.replace('bad = "sexual"', 'bad = "violence"'))
    await bench.written()
    assert bench.versions.told()["at_next_start"] == ["checks.own"], "another meaning"
    assert bench.guards.setup.mapping() == before.mapping()


def test_of_a_check_s_versions_the_newest_are_known() -> None:
    builds, use = KnownBuilds(), CheckUse("own", "classifier", "/nowhere", "a" * 16, ("bad",))
    for at in range(limits.CHECK_BUILDS_MAX + 1):
        builds.know([replace(use, build=str(at))])
    for build, is_known in ((use.build, True), ("0", False), ("1", True)):
        [judged], unchecked = builds.judged([use], {use.name: build}, {})
        assert (not unchecked) == is_known
        assert judged.build == (build if is_known else use.build)
    _, unchecked = builds.judged([use], {}, {use.name: "it is away"})
    assert unchecked == {use.name: "it is away"}
