"""Device memory is what the ledger says, and doesn't grow with the pictures made."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calotype.core.messages import RowDone
from calotype.engine.memory import LiveBytes, bytes_of
from calotype.engine.rows import row_key
from tests.rooms.engine_bench import EMBEDDED, SIZE, Bench, run_row

pytestmark = pytest.mark.usefixtures("one_thread")

PICTURES = 100  # 1,000 by hand, which is the promise


def test_live_bytes_are_those_of_new_storages_while_they_live() -> None:
    there = torch.zeros(1_000)
    with LiveBytes() as live:
        made = there + 1
        view = made[:10]
        there[:5].add_(1)
        assert (live.now, live.peak) == (4_000, 4_000)
        del made
        assert live.now == 4_000, "the view keeps it"
        del view
        assert live.now == 0
        _ = torch.ones(500, dtype=torch.float64)
    assert live.peak == 4_000
    assert bytes_of([there, there[:10], torch.zeros(2)]) == 4_008


@pytest.mark.parametrize(
    ("name", "width"), [("tiny", SIZE), ("tiny", SIZE + 64), ("vignette", 128)]
)
def test_the_peak_is_within_a_tenth_of_the_ledger(tiny: Path, name: str, width: int) -> None:
    """Rows and passes in the loop's thread, decodes in theirs: each against its posts."""
    bench = Bench(tiny if name == "tiny" else EMBEDDED, name)
    passes, decodes, decode = LiveBytes(), LiveBytes(), bench.model.decode

    def metered(latents: torch.Tensor) -> torch.Tensor:
        with decodes:
            return decode(latents)

    with torch.inference_mode():
        measured = bench.engine._sizes.find(bench.model, width, width)
    # Whether the largest pass pays depends on the machine; here it does, so that it is taken.
    pays = replace(measured, pass_s=(1.0,) * len(measured.pass_s))
    bench.engine._sizes._known.put(row_key(bench.model, width, width), pays)
    bench.model.decode = metered  # type: ignore[method-assign]
    changes = {"model": name, "width": width, "height": width}
    samplers = ("euler", "dpmpp_2m", "ddim", "unipc")
    with passes:
        bench.start(
            *(
                run_row(f"r{at}", prompt=f"house {at}", sampler=samplers[at % 4], **changes)
                for at in range(8)
            )
        )
        ledger = bench.engine.ledger()
        bench.finish()
    assert len(bench.said(RowDone)) == 8
    expected = ledger.weights + ledger.rows + ledger.largest_pass
    assert ledger.weights + passes.peak == pytest.approx(expected, rel=0.1)
    assert passes.peak == pytest.approx(ledger.rows + ledger.largest_pass, rel=0.2)  # weights aside
    assert decodes.peak == pytest.approx(ledger.decode, rel=0.1)
    assert ledger.total == expected + ledger.decode


def test_nothing_grows_with_the_pictures_made(tiny: Path) -> None:
    bench, alive = Bench(tiny), []
    with LiveBytes() as live:
        for at in range(PICTURES):
            bench.finish(run_row(f"r{at}", steps=1, seed=at))
            bench.latents.clear()
            if at % (PICTURES // 4) == PICTURES // 4 - 1:
                gc.collect()
                alive.append(live.now)
    assert len(bench.said(RowDone)) == PICTURES
    assert alive[-1] == alive[0]
