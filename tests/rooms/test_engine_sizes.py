"""A size that nobody asked for yet: its costs are found out while other rows step."""

from __future__ import annotations

from pathlib import Path

import pytest

from calotype.core.messages import CancelRow, RowDone, RowFailed, RowStarted, StepDone
from calotype.core.nouns import TIER_WEIGHTS, Tier
from tests.rooms.engine_bench import SIZE, Bench, run_row

pytestmark = pytest.mark.usefixtures("one_thread")

NEW = SIZE + 16


@pytest.fixture
def bench(tiny: Path) -> Bench:
    return Bench(tiny)


def steps_until(bench: Bench, row: str) -> int:
    """Ticks until the row makes its first step."""
    ticks = 0
    while not bench.steps(row):
        assert bench.engine.tick()
        ticks += 1
    return ticks


def test_rows_of_known_sizes_step_while_a_new_one_is_proven(bench: Bench) -> None:
    bench.start(run_row("old", steps=100), run_row("new", width=NEW, steps=2))
    assert [m.row for m in bench.said(RowStarted)] == ["old"]
    ticks = steps_until(bench, "new")
    assert ticks > 10, "there was something to prove"
    assert len(bench.steps("old")) >= ticks // 3
    order = [m.row for m in bench.said(StepDone)]
    assert order.index("new") > 3, "the other didn't wait for it"


def test_a_turbo_row_gives_a_proof_for_relax_its_tiers_share_and_no_more(bench: Bench) -> None:
    bench.start(run_row("urgent", steps=100, tier="turbo"))
    bench.start(run_row("new", width=NEW, steps=2, tier="relax"))
    proof_s = bench.engine._sizes.turn(bench.model, NEW, SIZE).pass_s[0]
    step_s = bench.engine._sizes.find(bench.model, SIZE, SIZE).curve.seconds(2)
    ticks = 60
    for _ in range(ticks):
        bench.engine.tick()
    proofs = ticks - len(bench.steps("urgent"))
    share = TIER_WEIGHTS[Tier.RELAX] / TIER_WEIGHTS[Tier.TURBO]
    assert proofs >= 1
    assert (proofs - 1) * proof_s <= share * (ticks - proofs) * step_s


def test_a_heavier_row_that_waits_for_the_same_proof_hastens_it(bench: Bench) -> None:
    bench.start(run_row("urgent", steps=100, tier="turbo"))
    bench.start(run_row("new", width=NEW, steps=2, tier="relax"))
    (proof,) = bench.engine._admission._proofs
    assert bench.engine._policy._turns[proof].added.weight == TIER_WEIGHTS[Tier.RELAX]
    bench.start(run_row("too", width=NEW, steps=2, tier="turbo"))
    assert bench.engine._policy._turns[proof].added.weight == TIER_WEIGHTS[Tier.TURBO]
    assert [*bench.engine._admission._proofs] == [proof]
    bench.finish()
    assert {m.row for m in bench.said(RowDone)} == {"urgent", "new", "too"}


def test_a_picture_of_a_new_size_is_the_same_alone_and_in_company(bench: Bench) -> None:
    bench.finish(run_row("alone", width=NEW))
    crowded = Bench(Path(bench.folder))
    crowded.start(run_row("old", steps=30))
    crowded.finish(run_row("same", width=NEW))
    assert crowded.pixels("same") == bench.pixels("alone")


def test_a_row_cancelled_while_its_size_is_proven_leaves_nothing(bench: Bench) -> None:
    bench.start(run_row("new", width=NEW))
    for _ in range(3):
        bench.engine.tick()
    bench.engine.handle(CancelRow("new"))
    assert bench.engine.rows_held == 0
    assert not bench.engine.tick()
    bench.finish(run_row("again", width=NEW))
    assert [m.row for m in bench.said(RowDone)] == ["again"]


def test_a_proof_that_fails_is_told_to_all_that_wait_and_to_nobody_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.start(run_row("old", steps=8))
    bench.start(run_row("a", width=NEW), run_row("b", width=NEW))
    denoise = bench.model.denoise

    def fails(forwards: object) -> object:
        if forwards.latents.shape[-1] == NEW // 8:  # type: ignore[attr-defined]
            raise MemoryError("too large")
        return denoise(forwards)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.model, "denoise", fails)
    bench.finish()
    assert {m.row: m.retryable for m in bench.said(RowFailed)} == {"a": True, "b": True}
    assert [m.row for m in bench.said(RowDone)] == ["old"]


def test_a_size_that_cannot_be_is_refused_before_anything_is_proven(bench: Bench) -> None:
    passes = bench.engine.passes
    bench.start(run_row("odd", width=SIZE + 4))
    assert not bench.failure("odd").retryable
    assert bench.engine.passes == passes
