"""A check is promoted and rolled back on a running server: real HTTP, a real engine, real networks.

Whatever becomes of the new version, each picture was judged by one that is in force, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse
from safetensors.torch import load_file, save_file

from calotype.pool import intake
from calotype.pool.catalogue import Catalogue
from calotype.pool.kinds import ModelKind
from calotype.safety.pictures import BUILD_CHARS
from tests.faked import a_source
from tests.flow.command_line import here
from tests.rooms.tiny_checks import classifier
from tests.serving import Server, running_server

TOML = """
[checks.own]
kind = "classifier"
{place}
[checks.own.categories]
normal = "harmless"
nsfw = "sexual"
"""
DEADLINE_S = 120.0


def weights(folder: Path, nsfw: float) -> Path:
    """A tiny ViT that says the same of every picture: how much more "nsfw" than "normal"."""
    folder.mkdir(parents=True)
    classifier(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["classifier.weight"].zero_()
    tensors["classifier.bias"][:] = tensors["classifier.bias"].new_tensor([0.0, nsfw])
    save_file(tensors, file, {"format": "pt"})
    return folder


@dataclass
class Home:
    """An installation with a check in the registry."""

    server: Server
    client: httpx.Client
    versions: dict[str, str]  # by what they say

    def point(self, said: str) -> None:
        told = here(self.server.home, "models", "promote", "classifier/own", self.versions[said])
        assert told.returncode == 0, told.stderr

    def checks(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/readyz").json()["checks"]
        return found

    def own(self) -> dict[str, Any]:
        found: dict[str, Any] = self.checks()["versions"]["own"]
        return found

    def until(self, look: Any) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while not (found := look()):
            assert time.monotonic() < deadline, self.checks()
            time.sleep(0.1)
        return found

    def in_force(self, said: str) -> bool:
        return bool(self.own()["in_force"] == self.versions[said])

    def has(self, said: str) -> bool:
        """Whether the engine has this one in force, and is asked for no other."""
        own, version = self.own(), self.versions[said]
        engine = own["engines"].get("engine-0", {"in_force": ""})
        return bool(own["wanted"] == version == engine["in_force"])

    def why_not(self) -> str:
        """Why the engine hasn't got what is wanted."""
        return str(self.own()["engines"].get("engine-0", {}).get("why_not", ""))

    def judged(self, **ask: Any) -> dict[str, Any]:
        """What the log says of a job's one picture."""
        ask = {"prompt": "a blue castle on a hill at sunset", "steps": 8, "seed": 7, **ask}
        job = self.client.post("/v1/jobs", json=ask).raise_for_status().json()
        with connect_sse(self.client, "GET", f"/v1/jobs/{job['id']}/events") as source:
            every = [(each.event, each.json()) for each in source.iter_sse() if each.data]
        assert "pending_safety" not in [kind for kind, _ in every], every
        [found] = [said for kind, said in every if kind == "image_finished"]
        return dict(found)


def add(home: Path, folder: Path) -> str:
    catalogue = Catalogue(home / "models", home, is_quick=True)
    catalogue.scan()
    wish = intake.Wish(name="own", kind=ModelKind.CLASSIFIER)
    return intake.take_in(catalogue.versions, folder, wish, taken={}).record.version


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    made = tmp_path_factory.mktemp("made")
    biases = {"passes": -20.0, "refuses": 20.0, "NaN": float("nan")}
    versions = {
        said: add(folder, weights(made / str(at), bias))
        for at, (said, bias) in enumerate(biases.items())
    }
    (folder / "safety.toml").write_text(TOML.format(place='model = "own"'))
    environment = {"CALOTYPE_ENGINE_THREADS": "1"}
    with (
        running_server(folder, environment) as server,
        httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client,
    ):
        yield Home(server, client, versions)


def test_a_version_that_is_promoted_judges_and_one_that_is_rolled_back_no_more(home: Home) -> None:
    first = home.judged()
    assert (first["verdict"], home.in_force("passes")) == ("allow", True)
    home.point("refuses")
    home.until(lambda: home.in_force("refuses"))
    refused = home.judged()
    assert (refused["verdict"], refused["category"], refused["check"]) == (
        "block", "sexual", "own",
    )  # fmt: skip
    assert refused["version"].endswith(home.versions["refuses"][:BUILD_CHARS])
    told = here(home.server.home, "safety", "checks")
    assert home.versions["refuses"] in told.stdout
    assert "engine-0" in told.stdout
    assert here(home.server.home, "models", "rollback", "classifier/own").returncode == 0
    home.until(lambda: home.has("passes"))
    again = home.judged()
    assert again["verdict"] == "allow"
    assert again["version"] == first["version"]


def test_a_version_that_fails_its_proof_is_not_taken_and_the_old_one_judges(home: Home) -> None:
    home.point("NaN")
    said = home.until(lambda: "nan" in (why := home.why_not()) and why)
    assert home.own()["in_force"] == home.versions["passes"]
    assert home.judged()["verdict"] == "allow"
    told = here(home.server.home, "safety", "checks")
    assert said[:20] in " ".join(told.stdout.split())
    home.point("passes")
    home.until(lambda: home.has("passes"))


# Faults that no real network has at will; their engines are the fake one.


FAULTS = {
    "broken": "is broken",
    "full": "no room",
    "hang": "hasn't answered",
    "crash": "ended while they proved it",
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_whatever_becomes_of_the_new_version_the_old_one_judges(faked: Home, fault: str) -> None:
    folder = weights(faked.server.home / "checks" / fault, float([*FAULTS].index(fault)))
    (folder / fault).touch()
    safety = faked.server.home / "safety.toml"
    before = faked.own()
    safety.write_text(TOML.format(place=f'path = "checks/{fault}"'))
    wanted = faked.until(lambda: (it := faked.own()["wanted"]) != before["wanted"] and it)
    if fault == "crash":  # each engine that begins is asked again, but not for ever
        faked.until(lambda: FAULTS[fault] in faked.own()["why_not"])
    else:
        faked.until(lambda: FAULTS[fault] in faked.why_not())
    faked.until(lambda: faked.client.get("/readyz").is_success)
    said = faked.judged(**a_source(faked.client))
    assert said["verdict"] == "allow"
    assert not said["version"].endswith(wanted[:BUILD_CHARS])
    assert faked.own()["in_force"] == before["in_force"]


def test_an_answer_of_a_version_that_nobody_knows_holds_the_job(faked: Home) -> None:
    job = faked.client.post("/v1/jobs", json={"prompt": "unproven", "steps": 1}).json()
    path = f"/v1/jobs/{job['id']}"
    held = faked.until(
        lambda: (it := faked.client.get(path).json())["status"] == "pending_safety" and it
    )
    assert held["images"] == []
    faked.client.delete(path).raise_for_status()


@pytest.fixture(scope="module")
def faked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("faked")
    weights(folder / "checks" / "old", -1.0)
    (folder / "safety.toml").write_text(TOML.format(place='path = "checks/old"'))
    with (
        running_server(folder, is_drawn=False) as server,
        httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client,
    ):
        yield Home(server, client, {})
