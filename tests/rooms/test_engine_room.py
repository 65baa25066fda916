"""Room for adapters beside models: who waits for it, and what a refusal says."""

from __future__ import annotations

from pathlib import Path

import pytest

from calotype.core.messages import RowDone, RowFailed, UnloadModel
from calotype.engine.room import Full, Room
from calotype.engine.shelf import Shelf
from tests.rooms import engine_loras as made
from tests.rooms.engine_bench import Bench, run_row, run_to_end

pytestmark = pytest.mark.usefixtures("one_thread")


def bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch, spare: int) -> Room:
    """The engine's budget, as one that has so many bytes to spare."""
    room = bench.engine._room
    needed = sum(bench.engine.accounts.lines().values())
    monkeypatch.setattr(room, "budget", needed + spare)
    return room


def test_a_row_without_room_for_its_lora_is_told_how_much_it_lacks(
    bench: Bench, lora_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = made.lora(lora_files[0])
    bench.finish(run_row("first", loras=(lora,)))
    size = bench.model.loras.bytes
    bench.model.loras.evict(*bench.model.loras.shelf)
    room = bounded(bench, monkeypatch, 0)
    bench.finish(run_row("refused", loras=(lora,)))
    failed = bench.failure("refused")
    assert failed.retryable
    assert 0 < failed.short_bytes <= size
    room.budget += failed.short_bytes
    bench.finish(run_row("again", loras=(lora,)))
    assert len(bench.said(RowFailed)) == 1, "it was just enough"
    assert len(bench.said(RowDone)) == 2


def test_a_row_waits_for_the_room_of_a_model_that_is_about_to_leave(
    bench: Bench, lora_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while its copy is made, or its last rows are drawn."""
    bounded(bench, monkeypatch, 0)
    leaving = [UnloadModel("another", stage=True)]
    monkeypatch.setattr(bench.engine._warming, "_asked", leaving)
    monkeypatch.setattr(bench.engine._warming, "_must_wait", lambda command: True)
    bench.start(run_row("waits", loras=(made.lora(lora_files[1]),)))
    while not bench.engine._admission._loader._read():
        pass
    for _ in range(3):
        bench.engine.tick()
    assert bench.engine.rows_held == 1
    assert not bench.said(RowFailed)
    leaving.clear()
    bench.engine._room.budget *= 2
    run_to_end(bench.engine)
    assert len(bench.said(RowDone)) == 1


def test_only_want_of_room_is_told_as_such() -> None:
    room = Room(10)
    room.lines = lambda: {"weights": 8}
    shelf = Shelf("loras", 100, lambda key: None, room)
    with pytest.raises(Full) as refused:
        shelf.put("large", 5)
    assert refused.value.short == 3
    assert shelf.put("small", 2)
