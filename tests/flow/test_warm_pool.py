"""The warm pool end to end: three models under a budget that holds two, real traffic, real HTTP.

The engine's tensors are counted every 50 ms in its own process (``meter``), beside its own ledger.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from calotype.core.messages import LoadModel, Message, ModelLoaded
from calotype.engine.loop import Engine
from calotype.pool.loading import RESERVES
from tests.rooms.engine_bench import threads
from tests.rooms.engine_models import CPU, make_model
from tests.serving import Server, engine_pid, engine_pids, running_server

METER = Path(__file__).parent / "meter"
POLICY = """
default = "anything"
[policies.anything]
title = "Anything"
version = 1
extends = "pg13"
[policies.anything.pictures]
outside = 1.0
"""
MODELS = ("sd15", "sdxl", "sd3-no-t5")
pytestmark = pytest.mark.timeout(600)  # a start of a server and an engine, on a busy machine


@dataclass
class Place:
    """A running server, and what was seen of its engine."""

    server: Server
    budget: int
    meter: Path
    record: Path
    logs: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, headers=self.server.headers, timeout=60)

    def where(self) -> dict[str, Any]:
        with self.client() as client:
            return dict(client.get("/v1/models/where").raise_for_status().json())

    def post(self, model: str, **more: Any) -> httpx.Response:
        body = {"prompt": "a red house", "model": model, "steps": 4, "width": 64, "height": 64}
        with self.client() as client:
            return client.post("/v1/jobs", json=body | more)

    def draw(self, model: str, **more: Any) -> list[str]:
        """Ask for a picture and follow it to its end; the kinds of its events."""
        answer = self.post(model, **more)
        assert answer.status_code == 202, answer.text
        job, heard = answer.json(), list[tuple[str, dict[str, Any]]]()
        with (
            self.client() as client,
            connect_sse(client, "GET", job["urls"]["events"]) as source,
        ):
            told = (event for event in source.iter_sse() if event.data and event.event != "eta")
            heard.extend((event.event, event.json()) for event in told)
        self.logs[job["id"]] = heard
        return [kind for kind, _ in heard]

    def decided(self, kind: str) -> list[dict[str, Any]]:
        """What the line decided so far, of a kind."""
        lines = self.record.read_text().splitlines()
        told = [json.loads(line) for line in lines if line.startswith('{"line": "told"')]
        return [it for one in told for it in one["decided"] if it["type"] == kind]


def budget_for_two(folders: list[Path]) -> int:
    """Bytes that hold any two of the models, a pass of either and the reserves, and not three."""
    loaded: list[Message] = []
    with threads(1):  # the last one's passes need most
        Engine(lambda said, blob=b"": loaded.append(said), CPU).load(
            LoadModel("m", str(folders[-1]), "build")
        )
    (room,) = [said.room_bytes for said in loaded if isinstance(said, ModelLoaded)]
    weights = sorted(
        sum(file.stat().st_size for file in folder.rglob("*.safetensors")) for folder in folders
    )
    free = int(1.02 * (weights[1] + weights[2] + room))
    assert sum(weights) + room > free, "three would fit"
    return int(free / (1 - sum(RESERVES.values())))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("home")
    folders = [make_model(name, home / "models" / name) for name in MODELS]
    for folder in folders:  # a domain whose check looks at pictures; here it may find anything
        (folder / "calotype.json").write_text(json.dumps({"domain": "vignette-domain"}))
    (home / "safety.toml").write_text(POLICY)
    budget, meter, record = budget_for_two(folders), home / "meter", home / "line.jsonl"
    settings = {
        "CALOTYPE_ENGINE_MEMORY_BYTES": str(budget),
        "CALOTYPE_ENGINE_THREADS": "1",
        "CALOTYPE_HEARTBEAT_S": "1",
        "CALOTYPE_RECORD": str(record),
        "PYTHONPATH": str(METER),
        "METER_FILE": str(meter),
    }
    with running_server(home, settings) as server:
        yield Place(server, budget, meter, record)


def warm(told: dict[str, Any]) -> set[str]:
    return {name for name, it in told["models"].items() if it["engines"].get("engine-0") == "warm"}


def settled(place: Place) -> dict[str, Any]:
    """What is where once no load is on its way: foresight may have begun one."""
    deadline = time.monotonic() + 120
    while True:
        told = place.where()
        counts, decided = told["counts"], len(place.decided("LoadModel"))
        if decided == counts["loads"] + counts["loads_failed"]:
            return told
        assert time.monotonic() < deadline, told
        time.sleep(0.2)


def test_models_come_and_go_with_the_traffic_within_the_budget(
    place: Place, record_property: Any
) -> None:
    begun = place.where()
    assert len(warm(begun)) == 2
    assert begun["engines"][0]["budget_bytes"] == place.budget
    (cold,) = set(MODELS) - warm(begun)
    assert {"loading", "started", "image_finished"} <= set(place.draw(cold))
    mix = [*MODELS, MODELS[0], MODELS[0], cold, *MODELS[::-1]] * 2
    with ThreadPoolExecutor(4) as pool:
        for kinds in pool.map(place.draw, mix):
            assert "image_finished" in kinds, kinds
            assert "attempt_failed" not in kinds, kinds
    told = settled(place)
    counts = told["counts"]
    assert counts["warm_hits"] + counts["warm_misses"] == len(mix) + 1
    assert counts["warm_misses"] >= 1
    assert counts["loads"] >= 1
    # The two it began with aren't among the loads. Not "==": a copy may stay on its way out.
    assert 1 <= counts["evictions"] <= 2 + counts["loads"] - len(warm(told))
    assert counts["loads_failed"] == 0
    assert counts["bytes_loaded"] > 0
    assert len(place.decided("LoadModel")) == counts["loads"]
    record_property("warm_hit_rate", counts["warm_hit_rate"])
    for heard in place.logs.values():
        for kind, data in heard:
            if kind == "loading":
                assert data["engine"] == "engine-0"
                assert data["left_s"] > 0
    assert_within_the_budget(place, told)


def assert_within_the_budget(place: Place, told: dict[str, Any]) -> None:
    lines = [line.split() for line in place.meter.read_text().splitlines()[:-1]]
    at, alive = [float(one) for one, _ in lines], [int(one) for _, one in lines]
    assert len(alive) > 50
    assert min(after - before for before, after in pairwise(at)) > 0
    assert sorted(after - before for before, after in pairwise(at))[len(at) // 2] < 0.15
    assert 0 < max(alive) <= place.budget
    ledger = told["engines"][0]["bytes"]
    assert ledger["weights"] > 0
    assert sum(ledger.values()) <= place.budget


def test_what_is_wanted_most_is_loaded_before_it_is_asked_for(place: Place) -> None:
    """An engine that is begun anew has what comes first by name, and not what people want."""
    for _ in range(4):
        assert "image_finished" in place.draw(MODELS[1])
    killed, decided = engine_pid(place.server), len(place.decided("LoadModel"))
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 240
    while not {*engine_pids(place.server)} - {killed} or MODELS[1] not in warm(place.where()):
        assert time.monotonic() < deadline, place.where()
        time.sleep(0.2)
    assert any(load["why"] == "predicted" for load in place.decided("LoadModel")[decided:])
    before = place.where()["counts"]["warm_hits"]
    assert "loading" not in place.draw(MODELS[1])
    told = place.where()
    assert told["counts"]["warm_hits"] == before + 1
    assert_within_the_budget(place, told)


def test_a_model_that_fits_nowhere_is_refused_with_the_arithmetic(place: Place) -> None:
    answer = place.post("vignette")
    assert answer.status_code == 503
    body = answer.json()
    assert body["type"].endswith(":no-room")
    assert body["field"] == "model"
    assert body["limit"]["max_bytes"] == place.budget
    assert sum(body["limit"]["bytes"].values()) > place.budget
    for line in ("base", "encoders", "vae", "loras", "controls"):
        assert line in body["detail"]
    assert f"{place.budget:,}" in body["detail"]


def test_what_is_where_can_be_asked_on_the_command_line(place: Place) -> None:
    command = [sys.executable, "-m", "calotype.cli", "models", "where"]
    home = ["--home", str(place.server.home)]
    done = subprocess.run([*command, *home], capture_output=True, text=True, check=True)
    for word in (*MODELS, "engine-0", "warm", "on disk", "weights"):
        assert word in done.stdout
    assert "came warm" in done.stdout + done.stderr
    done = subprocess.run([*command, *home, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["engines"][0]["budget_bytes"] == place.budget
