"""Device memory is what the ledger says, and doesn't grow with the pictures made."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calotype.core.messages import RowControl, RowDone, RunRow
from calotype.engine.memory import LiveBytes
from calotype.engine.rows import row_key
from calotype.engine.tensors import bytes_of
from tests.rooms import engine_loras as made
from tests.rooms.engine_bench import EMBEDDED, SIZE, Bench, run_row
from tests.rooms.engine_studio import frame, make_control, photo

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
        ledger = bench.engine.accounts.ledger()
        bench.finish()
    assert len(bench.said(RowDone)) == 8
    expected = ledger.weights + ledger.rows + ledger.largest_pass
    assert ledger.weights + passes.peak == pytest.approx(expected, rel=0.1)
    assert passes.peak == pytest.approx(ledger.rows + ledger.largest_pass, rel=0.2)  # weights aside
    assert decodes.peak == pytest.approx(ledger.decode, rel=0.1)
    assert ledger.total == expected + ledger.texts + ledger.decode


@pytest.mark.parametrize("name", ["tiny", "vignette"])
def test_the_peak_is_within_a_tenth_of_the_ledger_with_adapters_at_work(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    """All rows have two LoRAs of different ranks, and a ControlNet."""
    bench = Bench(tiny if name == "tiny" else EMBEDDED, name)
    size = bench.model.default_size
    loras = tuple(
        made.lora(
            made.save(
                made.random_tensors(bench.model.denoiser, made.peft_name(), rank=rank, seed=rank),
                tmp_path / f"{rank}.safetensors",
            ),
            0.5,
        )
        for rank in (16, 64)
    )
    control = make_control(bench, tmp_path / "control", 3)  # type: ignore[arg-type]
    pictures, blob = frame(photo(1, size, size))
    known = bench.engine._sizes.find(bench.model, size, size)
    pays = replace(known, pass_s=(1.0,) * len(known.pass_s))
    bench.engine._sizes._known.put(row_key(bench.model, size, size), pays)

    def row(number: int) -> RunRow:
        return run_row(
            f"r{number}",
            model=name,
            width=size,
            height=size,
            loras=loras,
            pictures=pictures,
            controls=(RowControl("control", str(control), "build", 0),),
        )

    bench.engine.handle(row(0), blob)
    bench.finish()  # what is read and proven isn't a pass's
    with LiveBytes() as passes:
        for number in range(1, 9):
            bench.engine.handle(row(number), blob)
        ledger = bench.engine.accounts.ledger()
        bench.finish()
    assert len(bench.said(RowDone)) == 9
    assert min(ledger.loras, ledger.controls, ledger.adapters) > 0
    kept = ledger.weights + ledger.loras + ledger.controls
    assert kept + passes.peak == pytest.approx(ledger.total - ledger.decode, rel=0.1)


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
