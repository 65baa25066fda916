"""Models come and go while an engine works, within its budget: nothing is lost, nothing is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calotype.core.messages import (
    CancelRow,
    LoadModel,
    MemoryShort,
    Message,
    ModelFailed,
    ModelLoaded,
    ModelUnloaded,
    RowDone,
    RowFailed,
    RowStarted,
    RunRow,
    StepDone,
    UnloadModel,
)
from calotype.core.nouns import Component
from calotype.engine.families.base import Model
from calotype.engine.loop import Engine
from calotype.engine.resident import Models
from calotype.engine.room import Room
from tests.rooms.engine_bench import SIZE, run_row, run_to_end
from tests.rooms.engine_models import CPU, make_model

pytestmark = pytest.mark.usefixtures("one_thread")

WAIT_S = 60.0


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("sd15", tmp_path_factory.mktemp("models") / "other")


class Bench:
    """An engine with a budget, and all it says. ``tiny`` and ``other`` are its models' names."""

    def __init__(self, tiny: Path, other: Path) -> None:
        self.heard: list[Message] = []
        self.blobs: dict[str, bytes] = {}
        self.woken = threading.Event()
        self.room = Room()
        self.engine = Engine(self._hear, CPU, wake=self.woken.set, room=self.room)
        self.folders = {"tiny": tiny, "other": other}

    def command(self, name: str) -> LoadModel:
        files = self.folders[name].rglob("*.safetensors")
        size = sum(file.stat().st_size for file in files)
        parts = (Component(name, "model", size),)
        return LoadModel(name, str(self.folders[name]), "build", components=parts)

    def load(self, *names: str) -> Bench:
        for name in names:
            self.engine.load(self.command(name))
        return self

    def finish(self, *rows: RunRow) -> None:
        for row in rows:
            self.engine.handle(row)
        run_to_end(self.engine)

    def said(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.heard if isinstance(message, kind)]

    @property
    def models(self) -> list[str]:
        return [model.name for model in self.engine._models]

    def _hear(self, message: Message, blob: bytes = b"") -> None:
        self.heard.append(message)
        if isinstance(message, RowDone):
            self.blobs[message.row] = blob


@pytest.fixture
def bench(tiny: Path, other: Path) -> Bench:
    return Bench(tiny, other)


class Gate:
    """Holds back the reading of models until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.open, read = threading.Event(), threading.Event(), Models.read

        def gated(models: Models, command: LoadModel, progress: Any) -> Model:
            self.begun.set()
            assert self.open.wait(WAIT_S)
            return read(models, command, progress)

        monkeypatch.setattr(Models, "read", gated)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def test_rows_go_on_while_a_model_is_read_and_while_its_sizes_are_proven(
    bench: Bench, gate: Gate
) -> None:
    gate.open.set()
    bench.load("tiny")
    gate.open.clear()
    bench.engine.handle(run_row("long", steps=60))
    bench.engine.handle(bench.command("other"))
    assert gate.begun.wait(WAIT_S)
    for _ in range(5):
        assert bench.engine.tick(), "it waits for the files"
    bench.engine.handle(run_row("came meanwhile", seed=2))
    gate.open.set()
    bench.engine._warming.wait()
    while not any(isinstance(it, ModelLoaded) and it.name == "other" for it in bench.heard):
        assert bench.engine.tick()
    loaded = bench.said(ModelLoaded)[-1]
    at = bench.heard.index(loaded)
    steps = [it for it in bench.heard[:at] if isinstance(it, StepDone)]
    assert len(steps) > 10, "its proof has turns, and no more"
    assert loaded.seconds > 0.0
    run_to_end(bench.engine)
    alone = Bench(*bench.folders.values()).load("tiny")
    alone.finish(run_row("long", steps=60))
    assert bench.blobs["long"] == alone.blobs["long"]


def test_a_row_waits_for_its_model_and_not_for_one_that_fails(bench: Bench, gate: Gate) -> None:
    bench.engine.handle(bench.command("tiny"))
    bench.engine.handle(LoadModel("broken", "/nowhere", "build"))
    for name in ("tiny", "broken"):
        bench.engine.handle(run_row(name, model=name))
    assert bench.engine.rows_held == 2
    assert not bench.said(RowStarted) + bench.said(RowFailed)
    gate.open.set()
    bench.load()
    while not bench.engine._warming.is_over:
        if not bench.engine.tick():
            bench.engine._warming.wait()
    run_to_end(bench.engine)
    assert "tiny" in bench.blobs
    (failed,) = bench.said(RowFailed)
    assert (failed.row, failed.retryable) == ("broken", True)
    assert "not loaded" in failed.reason


def test_a_row_that_waits_for_its_model_can_be_cancelled(bench: Bench, gate: Gate) -> None:
    bench.engine.handle(bench.command("tiny"))
    bench.engine.handle(run_row("gone"))
    bench.engine.handle(CancelRow("gone"))
    assert bench.engine.rows_held == 0
    gate.open.set()
    bench.engine._warming.wait()
    run_to_end(bench.engine)
    assert bench.models == ["tiny"]
    assert not bench.said(RowStarted)


def test_a_model_leaves_once_its_rows_are_done_and_nothing_of_it_is_left(bench: Bench) -> None:
    bench.load("tiny", "other")
    before = bench.engine.accounts.held()
    bench.engine.handle(run_row("runs", steps=3))
    bench.engine.handle(UnloadModel("tiny"))
    bench.engine.handle(run_row("late"))
    (refused,) = bench.said(RowFailed)
    assert (refused.row, refused.retryable) == ("late", True)
    assert "leaving" in refused.reason
    assert not bench.said(ModelUnloaded)
    run_to_end(bench.engine)
    bench.engine.tick()
    assert bench.said(ModelUnloaded) == [ModelUnloaded("tiny")]
    assert bench.blobs["runs"]
    assert bench.models == ["other"]
    after = bench.engine.accounts.held()
    alone = Bench(*bench.folders.values()).load("other").engine.accounts.held()
    assert after["weights"] == alone["weights"] < before["weights"]
    assert (after["rows"], after["loras"], after["controls"]) == (0, 0, 0)
    assert after["texts"] == alone["texts"]


def test_an_idle_engine_is_woken_when_the_last_decode_lets_a_model_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.load("tiny")
    model, begun, go_on = bench.engine._models.get("tiny"), threading.Event(), threading.Event()
    decode = model.decode

    def slow(latents: torch.Tensor) -> torch.Tensor:
        begun.set()
        assert go_on.wait(WAIT_S)
        return decode(latents)

    monkeypatch.setattr(model, "decode", slow)
    bench.engine.handle(run_row("a", steps=1))
    bench.engine.tick()
    assert begun.wait(WAIT_S)
    bench.engine.handle(UnloadModel("tiny"))
    assert not bench.engine.tick()
    assert bench.models == ["tiny"], "it is being decoded with"
    bench.woken.clear()
    go_on.set()
    while bench.models:  # woken when it is decoded, and again when it has been looked at
        assert bench.woken.wait(WAIT_S)
        bench.woken.clear()
        bench.engine.tick()


def test_what_has_no_room_is_refused_with_the_arithmetic_and_leaves_nothing(bench: Bench) -> None:
    bench.load("tiny")
    ledger = bench.engine.accounts.ledger()
    size = bench.command("other").components[0].bytes
    bench.room.budget = ledger.total - ledger.texts + size - 1  # texts make room
    bench.load("other")
    failed = bench.said(ModelFailed)[-1]
    assert (failed.name, failed.is_full) == ("other", True)
    for number in (size, bench.room.budget, ledger.weights):
        assert f"{number:,}" in failed.reason
    assert bench.models == ["tiny"]
    assert bench.engine.accounts.ledger().kept <= ledger.kept
    bench.engine.handle(UnloadModel("tiny"))
    bench.load("other")
    assert bench.models == ["other"]


def test_a_pass_that_has_no_room_is_made_smaller_and_the_pictures_are_the_same(
    bench: Bench,
) -> None:
    rows = [run_row(f"r{at}", seed=at) for at in range(6)]
    bench.load("tiny").finish(*rows)
    expected = dict(bench.blobs)
    bench.blobs.clear()
    measured = bench.engine._sizes.find(bench.engine._models.get("tiny"), SIZE, SIZE)
    assert measured.buckets == (2, 4, 8)
    # A pass of 8 pays, and finds no room whether rows are decoded meanwhile or not.
    large = bench.engine.accounts.ledger().decode + 2 * measured.bytes_of(8)
    sizes = (*measured.pass_bytes[:-1], large)
    pays = replace(measured, pass_s=(1.0, 1.0, 1.0), pass_bytes=sizes)
    bench.engine._sizes._known.put(f"tiny@build:{SIZE}x{SIZE}", pays)
    for row in rows:
        bench.engine.handle(row)
    ledger = bench.engine.accounts.ledger()
    bench.room.budget = ledger.kept + ledger.decode + measured.bytes_of(4)
    run_to_end(bench.engine)
    assert bench.blobs == expected
    short = bench.said(MemoryShort)
    assert [it.forwards for it in short] == [8]
    assert short[0].buckets == (2, 4)
    assert f"{large:,}" in short[0].reason
    assert bench.engine.accounts.ledger().largest_pass == measured.bytes_of(4)
    bench.room.budget *= 10
    bench.load("other")
    bench.engine.handle(UnloadModel("other"))
    bench.finish()
    again = bench.engine._sizes.find(bench.engine._models.get("tiny"), SIZE, SIZE)
    assert again.buckets == measured.buckets, "there may be room again"


def test_what_a_real_shortage_shows_the_ledger_learns(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.load("tiny")
    bench.room.budget = 2 * bench.engine.accounts.ledger().total
    model = bench.engine._models.get("tiny")
    denoise, sizes = model.denoise, list[int]()

    def falls_short(forwards: Any) -> torch.Tensor:
        sizes.append(len(forwards))
        if len(forwards) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return denoise(forwards)

    for at in range(4):
        bench.engine.handle(run_row(f"r{at}", seed=at, steps=2))
    monkeypatch.setattr(model, "denoise", falls_short)
    free = bench.room.for_a_pass()
    run_to_end(bench.engine)
    assert len(bench.said(RowDone)) == 4
    assert not bench.said(RowFailed)
    short = bench.said(MemoryShort)
    assert [it.forwards for it in short] == sorted((n for n in set(sizes) if n > 2), reverse=True)
    whole = bench.engine._sizes._known.find(f"tiny@build:{SIZE}x{SIZE}")
    assert whole is not None
    assert whole.bytes_of(short[0].forwards) > free, "it is known to need more than that"


def test_memory_that_runs_out_in_a_proof_is_no_fault_of_the_model(bench: Bench) -> None:
    def falls_short(model: Model, forwards: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    denoise = bench.engine._sizes._denoise
    bench.engine._sizes._denoise = falls_short
    bench.load("tiny")
    (failed,) = bench.said(ModelFailed)
    assert failed.is_full
    assert "out of memory" in failed.reason
    bench.engine._sizes._denoise = denoise
    bench.load("tiny")
    assert bench.models == ["tiny"]


def test_where_no_pass_has_room_the_rows_may_be_tried_elsewhere(bench: Bench) -> None:
    bench.load("tiny").finish(run_row("before"))
    bench.engine.handle(run_row("a", steps=2))
    bench.room.budget = bench.engine.accounts.ledger().kept
    run_to_end(bench.engine)
    (failed,) = bench.said(RowFailed)
    assert failed.retryable
    assert "OutOfMemory" in failed.reason
    assert bench.engine.accounts.held()["texts"] == 0, "what could go went first"


def test_a_decode_that_finds_no_memory_is_done_again_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.load("tiny").finish(run_row("same"))
    model = bench.engine._models.get("tiny")
    decode, left = model.decode, [1]

    def once_short(latents: torch.Tensor) -> torch.Tensor:
        if left:
            left.pop()
            raise MemoryError
        return decode(latents)

    monkeypatch.setattr(model, "decode", once_short)
    bench.finish(run_row("again"))
    assert bench.blobs["again"] == bench.blobs["same"]


def test_texts_and_adapters_that_no_row_needs_make_room_for_a_model(
    bench: Bench, lora_files: list[Path]
) -> None:
    from tests.rooms import engine_loras as made

    bench.load("tiny").finish(run_row("a", loras=(made.lora(lora_files[4]),)))
    ledger = bench.engine.accounts.ledger()
    assert ledger.loras > 0
    bench.room.budget = (
        ledger.total - ledger.loras // 2 + bench.command("other").components[0].bytes
    )
    bench.load("other")
    assert bench.models == ["tiny", "other"]
    assert bench.engine.accounts.held()["loras"] == 0
    bench.room.budget *= 2
    bench.finish(run_row("b", loras=(made.lora(lora_files[4]),)))
    assert bench.blobs["b"] == bench.blobs["a"]
