"""Rows whose LoRAs are being read: others step meanwhile, and how many may wait is bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from calotype.core import limits
from calotype.core.messages import (
    CancelRow,
    LoadModel,
    ModelLoaded,
    RowDone,
    RowFailed,
    RowLora,
    RowStarted,
)
from calotype.engine.inbox import Inbox
from calotype.engine.lora.reading import Lora
from tests.rooms import engine_loras as made
from tests.rooms.engine_bench import Bench, run_row, run_to_end
from tests.rooms.test_engine_process import Server

pytestmark = pytest.mark.usefixtures("one_thread")


class Gate:
    """Holds back a bank's reading until it is opened."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.open, self.reads = threading.Event(), threading.Event(), 0
        read = bench.model.loras.read

        def gated(lora: RowLora) -> Lora:
            self.reads += 1
            self.begun.set()
            assert self.open.wait(60)
            return read(lora)

        monkeypatch.setattr(bench.model.loras, "read", gated)


@pytest.fixture
def gate(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(bench, monkeypatch)
    yield gate
    gate.open.set()


def test_others_step_on_while_a_file_is_read(
    bench: Bench, lora_files: list[Path], gate: Gate
) -> None:
    bench.start(run_row("others", steps=3), run_row("waits", loras=(made.lora(lora_files[0]),)))
    assert gate.begun.wait(60)
    while bench.engine.tick():
        pass
    bench.engine.settle()
    assert bench.pixels("others")
    assert "waits" not in {m.row for m in bench.said(RowStarted)}
    assert bench.engine.rows_held == 1
    gate.open.set()
    run_to_end(bench.engine)
    assert bench.pixels("waits")
    assert [m.row for m in bench.said(RowStarted)] == ["others", "waits"]


def test_a_file_is_read_once_for_all_that_want_it(
    bench: Bench, lora_files: list[Path], gate: Gate
) -> None:
    rows = [run_row(f"r{i}", loras=(made.lora(lora_files[0]),), seed=i) for i in range(3)]
    bench.start(*rows)
    gate.open.set()
    run_to_end(bench.engine)
    assert gate.reads == 1
    assert len(bench.said(RowDone)) == 3


def test_a_waiting_row_can_be_cancelled(bench: Bench, lora_files: list[Path], gate: Gate) -> None:
    first, second = (made.lora(path) for path in lora_files[:2])
    bench.start(run_row("gone", loras=(first,)), run_row("queued", loras=(second,)))
    assert gate.begun.wait(60)
    for row in ("gone", "queued"):
        bench.engine.handle(CancelRow(row))
    assert bench.engine.rows_held == 0
    gate.open.set()
    bench.finish(run_row("next", loras=(made.lora(lora_files[2]),)))
    assert [m.row for m in bench.said(RowStarted)] == ["next"]
    assert gate.reads == 2, "what nobody wanted any more wasn't begun"
    assert len(bench.model.loras) == 1
    assert not bench.said(RowFailed)


def test_waiting_rows_are_bounded(
    bench: Bench, lora_files: list[Path], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ADAPTERS_READ_MAX", 2)
    bench.start(*(run_row(f"r{i}", loras=(made.lora(lora_files[i]),)) for i in range(3)))
    assert bench.failure("r2").retryable
    bench.start(
        *(
            run_row(f"s{i}", loras=(made.lora(lora_files[0]),))
            for i in range(limits.ENGINE_ROWS_MAX - 1)
        )
    )
    assert bench.engine.rows_held == limits.ENGINE_ROWS_MAX
    assert bench.failure(f"s{limits.ENGINE_ROWS_MAX - 2}").retryable
    for i in range(limits.ENGINE_ROWS_MAX):
        bench.engine.handle(CancelRow(f"s{i}"))


def test_an_inbox_that_waits_can_be_woken() -> None:
    inbox = Inbox(4)
    inbox.wake()
    assert inbox.take(wait=False) is None
    assert inbox.take(wait=True) is None, "a wake isn't lost"
    inbox.put(CancelRow("r"))
    assert inbox.take(wait=True) == (CancelRow("r"), b"")
    thread = threading.Timer(0.01, inbox.wake)
    thread.start()
    assert inbox.take(wait=True) is None
    thread.join()


def test_an_engine_that_sleeps_is_woken_when_a_file_has_been_read(
    tiny: Path, lora_files: list[Path]
) -> None:
    server = Server()
    try:
        server.say(LoadModel("tiny", str(tiny), "b"))
        server.hear_until(ModelLoaded)
        for number in range(2):  # nothing else steps, and no other command comes
            server.say(run_row(f"r{number}", loras=(made.lora(lora_files[number]),)))
            told = {type(message) for message, _ in server.hear_until(RowDone)}
            assert RowStarted in told
    finally:
        server.close()
