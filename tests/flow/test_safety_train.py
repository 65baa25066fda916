"""A check of one's own, the whole way: trained by command, in force, on trial, promoted, back.

A real server draws with the embedded model; its engine runs the check, and its pictures are judged
by it.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from calotype.core.reviews import Person
from calotype.flow import training
from calotype.flow.safeguards import setup_of
from calotype.flow.sealed import sealed_parts
from calotype.jobs.store import JobStore
from calotype.pool.catalogue import Catalogue
from calotype.safety.training import course
from calotype.settings import Settings
from tests.flow.command_line import here
from tests.pictures import picture, scene
from tests.reviews import UNSURE, hold, key_for, made_ready
from tests.serving import running_server

COUNT = 24  # pictures of each label
CHECK = """
[checks.own]
kind = "probe"
model = "own"
[checks.own.categories]
fine = "harmless"
wrong = "violence"
"""
ASK = {"prompt": "a red tent by the sea", "steps": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes as vignette draws them, and coarse colours; and the same with labels exchanged."""
    folder = tmp_path_factory.mktemp("data")
    for at in range(COUNT):
        for label, drawn in (("fine", scene(seed=at)), ("wrong", picture(128, 128, seed=at))):
            other = {"fine": "wrong", "wrong": "fine"}[label]
            for where in (folder / "right" / label, folder / "exchanged" / other):
                where.mkdir(parents=True, exist_ok=True)
                drawn.save(where / f"{at}.png")
    return folder


def train(home: Path, data: Path, *more: str) -> dict[str, Any]:
    answer = here(
        home,
        *("safety", "train", "--data", str(data), "--name", "own", "--harmless", "fine"),
        *("--json", *more),
    )
    assert answer.returncode == 0, answer.stderr
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


def made(url: str, headers: dict[str, str], **more: Any) -> dict[str, Any]:
    """A job of the running server, once it is over."""
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        job = client.post("/v1/jobs", json={**ASK, **more}).json()
        deadline = time.monotonic() + 120
        while job["status"] in ("queued", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
            job = client.get(job["urls"]["self"]).json()
    found: dict[str, Any] = job
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, str, str]:
    """A home, and the versions of two checks there: the first is in force, the other exchanges."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home=home)
    catalogue = Catalogue(settings.models_folder, home, is_quick=True)
    catalogue.scan()
    versions = []
    for kind in ("right", "exchanged"):
        wish = course.Wish("own", seed=1, harmless=("fine",))
        versions.append(training.train(catalogue, [data / kind], wish).added.record.version)
    (home / "safety.toml").write_text(CHECK)
    first, second = versions
    assert first != second
    return home, first, second


def test_the_same_pictures_and_seed_make_the_same_version(
    trained: tuple[Path, str, str], data: Path
) -> None:
    home, first, _ = trained
    again = train(home, data / "right", "--seed", "1")
    assert (again["is_new"], again["version"]) == (False, first)
    assert again["card"]["data"]["labels"]["fine"]["measured"] == 5
    assert again["card"]["figures"]["all"]["right"]["count"] >= 8
    assert "| fine | 14 | 5 | 5 |" in here(home, "safety", "card", "own").stdout


def test_what_is_on_trial_is_recorded_and_stops_no_picture(trained: tuple[Path, str, str]) -> None:
    home, first, second = trained
    canary = here(home, "models", "canary", "own", second, "--share", "1")
    assert canary.returncode == 0, canary.stderr
    with running_server(home) as server:
        job = made(server.url, server.headers, n=2)
        assert job["status"] == "succeeded", job
        told = trial_of(home, pictures=2)
    assert (told["current"], told["candidate"]) == (first, second)
    assert told["only the candidate blocks"] == 2
    assert told["agree"]["count"] == told["failed"]["count"] == 0
    assert {each["job"] for each in told["disagreements"]} == {job["id"]}
    assert {each["then"] for each in told["disagreements"]} == {"violence"}


def test_what_is_promoted_judges_from_the_next_start_on_until_it_is_rolled_back(
    trained: tuple[Path, str, str],
) -> None:
    home, first, second = trained
    assert here(home, "models", "promote", "own", second).returncode == 0
    setup = setup_of(Settings(home=home))
    assert [use.build for use in setup.uses("")] == [second]
    assert setup.trials == ()
    with running_server(home) as server:
        job = made(server.url, server.headers)
        assert job["status"] == "failed", job
        assert (job["error"]["check"], job["error"]["category"]) == ("own", "violence")
    assert here(home, "models", "rollback", "own").returncode == 0
    assert [use.build for use in setup_of(Settings(home=home)).uses("")] == [first]


def trial_of(home: Path, pictures: int) -> dict[str, Any]:
    """The report, once so many pictures are in it: it is written a second later."""
    deadline = time.monotonic() + 30
    while True:
        trials = json.loads(here(home, "safety", "shadow", "--json").stdout)["trials"]
        if trials and trials[0]["pictures"] == pictures:
            [found] = trials
            return dict(found)
        assert time.monotonic() < deadline, trials
        time.sleep(0.2)


def test_what_is_wrong_with_the_data_is_named(tmp_path: Path, data: Path) -> None:
    home, bad = tmp_path / "home", tmp_path / "bad"
    home.mkdir()
    for at in range(COUNT):
        for label, drawn in (("fine", picture(seed=at)), ("wrong", picture(seed=1000 + at))):
            (bad / label).mkdir(parents=True, exist_ok=True)
            drawn.save(bad / label / f"{at}.png")

    def refused(*more: str, name: str = "own") -> str:
        said = ("safety", "train", "--data", str(bad), "--name", name, "--harmless", "fine")
        answer = here(home, *said, *more)
        assert answer.returncode == 2, answer.stdout + answer.stderr
        return answer.stderr

    assert "can't be a name" in refused(name="../own")
    assert "false positives" in refused("--false-positives", "1.5")
    assert "is no image encoder" in refused("--encoder", str(home))
    (bad / "fine" / "half.png").write_bytes((bad / "fine" / "0.png").read_bytes()[:60])
    (bad / "wrong" / "text.jpg").write_text("not a picture")
    said = refused()
    assert "fine/half.png" in said
    assert "wrong/text.jpg" in said
    for path in (bad / "fine" / "half.png", bad / "wrong" / "text.jpg"):
        path.unlink()
    Image.open(bad / "fine" / "0.png").save(bad / "wrong" / "copy.png")
    assert "wrong/copy.png: the same picture as fine/0.png" in refused()


def test_decisions_of_reviewers_train_a_check_too(tmp_path: Path, data: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    lines = [
        {"path": f"{label}/{at}.png", "label": label, "tier": "fast" if at % 2 else "relax"}
        for label in ("fine", "wrong")
        for at in range(COUNT)
    ]
    file = data / "right" / "decisions.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    card = train(home, file)["card"]
    assert set(card["figures"]["tier"]) == {"fast", "relax"}
    other = [{**lines[0], "sha256": "0" * 64}, *lines[1:]]
    file.write_text("".join(json.dumps(each) + "\n" for each in other))
    said = ("safety", "train", "--data", str(file), "--name", "own", "--harmless", "fine")
    answer = here(home, *said)
    assert answer.returncode == 2
    assert "fine/0.png: it isn't the picture that was decided on" in answer.stderr
    file.unlink()


def test_a_name_that_is_not_registered_is_told_at_the_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "safety.toml").write_text(CHECK)
    answer = here(home, "safety", "checks")
    assert answer.returncode == 1
    assert "there is no classifier 'own'" in answer.stderr
    (home / "safety.toml").write_text(CHECK.replace('model = "own"', 'model = "own"\npath = "x"'))
    answer = here(home, "safety", "checks")
    assert "a path, or a model of the registry" in answer.stderr


async def decided(home: Path, count: int) -> None:
    """Reviewers let out scenes and refuse coarse colours: so many of each."""
    settings = Settings(home=home)
    sealed, _ = sealed_parts(settings)
    store = await JobStore.open(settings.database)
    try:
        for at in range(count):
            for drawn, is_allowed in ((scene(seed=at), True), (picture(128, 128, at), False)):
                verdict = replace(UNSURE, category="wrong")
                pixels = np.asarray(drawn.convert("RGB"))
                review = await hold(store, sealed, pixels, verdict=verdict)
                image = made_ready(review) if is_allowed else None
                await store.people.reviews.decide(
                    *(review.id, Person("key", "staff/rita")),
                    is_allowed=is_allowed,
                    reason="seen",
                    image=image,
                )
    finally:
        await store.close()


def test_what_reviewers_decided_is_exported_and_trains_the_next_check(
    trained: tuple[Path, str, str], tmp_path: Path
) -> None:
    home, first, second = trained
    asyncio.run(decided(home, COUNT))
    (tmp_path / "key").write_text(asyncio.run(key_for(home, "rita", "review")))
    given = ("--key-file", str(tmp_path / "key"), "--reason", "the next check", "--harmless")
    output = tmp_path / "decided"
    answer = here(home, "safety", "export", "-o", str(output), *given, "fine", "--json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["labels"], told["left_out"]) == ({"fine": COUNT, "wrong": COUNT}, {})
    version = train(home, output)["version"]
    assert version not in (first, second)
    assert "| fine | 14 | 5 | 5 |" in here(home, "safety", "card", f"own@{version}").stdout
    canary = here(home, "models", "canary", "own", version, "--share", "1")
    assert canary.returncode == 0, canary.stderr
    setup = setup_of(Settings(home=home))
    assert [use.build for use in setup.uses("")] == [first]
    assert [trial.build for trial in setup.trials] == [version]
