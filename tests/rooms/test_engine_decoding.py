"""Finished rows are decoded beside the loop: bounded, each alone in its failure, the same bits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from calotype.core import limits
from calotype.core.messages import CancelRow, RowDone, RowFailed
from calotype.engine.checks.base import Picture
from calotype.engine.checks.running import Seen
from tests.rooms.engine_bench import Bench, run_row

pytestmark = pytest.mark.usefixtures("one_thread")

WAIT_S = 60.0  # for what takes milliseconds on an idle machine


class Gate:
    """A decoder that stops until it is told to go on."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.threads: list[tuple[str, int, bool]] = []
        decode = bench.model.decode

        def gated(latents: torch.Tensor) -> torch.Tensor:
            name = threading.current_thread().name
            self.threads.append((name, torch.get_num_threads(), torch.is_inference_mode_enabled()))
            self.began.release()
            assert self.go_on.acquire(timeout=WAIT_S)
            return decode(latents)

        monkeypatch.setattr(bench.model, "decode", gated)


@pytest.fixture
def gate(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(bench, monkeypatch)


def test_other_rows_step_while_one_is_decoded(bench: Bench, gate: Gate) -> None:
    bench.start(run_row("short", steps=1), run_row("long", steps=6))
    bench.engine.tick()
    assert gate.began.acquire(timeout=WAIT_S)
    for _ in range(3):
        bench.engine.tick()
    assert bench.steps("long") == [1, 2, 3, 4]
    assert not bench.said(RowDone)
    assert bench.engine.rows_held == 2, "held until it is answered"
    gate.go_on.release(2)
    bench.finish()
    assert [message.row for message in bench.said(RowDone)] == ["short", "long"]
    assert bench.engine.rows_held == 0


def test_the_decoder_has_the_loops_threads_and_no_gradients(bench: Bench, gate: Gate) -> None:
    gate.go_on.release()
    bench.finish(run_row("r", steps=1))
    assert gate.threads == [("decoding", torch.get_num_threads(), True)]


def test_a_row_cancelled_while_it_is_decoded_is_not_answered(bench: Bench, gate: Gate) -> None:
    bench.start(run_row("gone", steps=1), run_row("waits", steps=1), run_row("stays", steps=1))
    bench.engine.tick()
    assert gate.began.acquire(timeout=WAIT_S)
    bench.engine.handle(CancelRow("gone"))
    bench.engine.handle(CancelRow("waits"))
    gate.go_on.release(2)  # one of the three isn't decoded at all
    bench.finish()
    assert [message.row for message in bench.said(RowDone)] == ["stays"]
    assert len(gate.threads) == 2


def test_when_the_stage_is_full_the_loop_waits(bench: Bench, gate: Gate) -> None:
    waited_s = bench.engine._decoding.waited_s
    count = limits.DECODES_HELD_MAX + 2  # one is being decoded, and one is too many
    bench.start(*(run_row(f"r{at}", steps=1, guidance=1.0) for at in range(count)))
    ticking = threading.Thread(target=bench.finish)
    ticking.start()
    assert gate.began.acquire(timeout=WAIT_S)
    ticking.join(0.5)
    assert ticking.is_alive()
    assert len(bench.engine._decoding) <= limits.DECODES_HELD_MAX + 1
    gate.go_on.release(count)
    ticking.join(WAIT_S)
    assert len(bench.said(RowDone)) == count
    assert bench.engine._decoding.waited_s > waited_s


def test_pictures_that_wait_for_a_check_are_looked_at_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Semaphore(0), threading.Semaphore(0)
    looked: list[int] = []

    def seen(model: str, pictures: Sequence[Picture]) -> list[Seen]:
        looked.append(len(pictures))
        began.release()
        assert go_on.acquire(timeout=WAIT_S)
        return [Seen({"looks:a": at / 8}) for at in range(len(pictures))]

    monkeypatch.setattr(bench.engine._checks, "seen", seen)
    bench.start(run_row("first", steps=1))
    bench.engine.tick()
    assert began.acquire(timeout=WAIT_S)
    others = [f"r{at}" for at in range(3)]
    bench.start(*(run_row(name, steps=1) for name in others))
    while bench.engine.tick():
        pass
    decoding = bench.engine._decoding
    with decoding._changed:  # all are decoded while the first is looked at
        assert decoding._changed.wait_for(lambda: len(decoding._made) == 3, WAIT_S)
    assert len(bench.engine._all_rows()) == bench.engine.rows_held == 4, "held until answered"
    bench.engine.handle(CancelRow("r1"))
    go_on.release(2)
    bench.finish()
    assert looked == [1, 2]
    done = {message.row: message.scores["looks:a"] for message in bench.said(RowDone)}
    assert done == {"first": 0.0, "r0": 0.0, "r2": 1 / 8}
    assert bench.engine.rows_held == 0


def test_it_ends_with_what_is_looked_at(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tiny)
    began, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def seen(model: str, pictures: Sequence[Picture]) -> list[Seen]:
        began.release()
        assert go_on.acquire(timeout=WAIT_S)
        return [Seen() for _ in pictures]

    monkeypatch.setattr(bench.engine._checks, "seen", seen)
    bench.start(run_row("a", steps=1))
    bench.engine.tick()
    assert began.acquire(timeout=WAIT_S)
    closing = threading.Thread(target=bench.engine.close)
    closing.start()
    go_on.release()
    closing.join(WAIT_S)
    assert [message.row for message in bench.said(RowDone)] == ["a"]


def test_a_decode_that_fails_is_its_rows_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, seen = bench.model.decode, list[int]()

    def first_fails(latents: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        if len(seen) == 1:
            raise RuntimeError("no kernel for a picture")
        return decode(latents)

    monkeypatch.setattr(bench.model, "decode", first_fails)
    bench.finish(run_row("a", steps=1), run_row("b", steps=1, seed=2))
    (failed,) = bench.said(RowFailed)
    assert (failed.row, failed.retryable) == ("a", True)
    assert "no kernel for a picture" in failed.reason
    assert [message.row for message in bench.said(RowDone)] == ["b"]


def test_it_ends_with_what_it_decodes(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tiny)
    gate = Gate(bench, monkeypatch)
    bench.start(run_row("a", steps=1), run_row("b", steps=1))
    bench.engine.tick()
    assert gate.began.acquire(timeout=WAIT_S)
    gate.go_on.release()
    bench.engine.close()
    assert [message.row for message in bench.said(RowDone)] == ["a"]


def test_a_parked_row_goes_on_with_the_same_bits(bench: Bench, tiny: Path) -> None:
    bench.finish(run_row("alone", tier="relax", sampler="dpmpp_2m", steps=6))
    busy = Bench(tiny)
    busy.finish(run_row("proves the size", width=72, steps=1))
    busy.start(run_row("parked", tier="relax", sampler="dpmpp_2m", steps=6))
    busy.engine.tick()
    busy.engine.tick()
    before = busy.steps("parked")
    busy.start(run_row("turbo", tier="turbo", width=72, steps=5, seed=3))
    while len(busy.steps("turbo")) < 5:
        busy.engine.tick()
    assert busy.steps("parked") == before, "turbo took every step"
    busy.finish()
    assert busy.pixels("parked") == bench.pixels("alone")
