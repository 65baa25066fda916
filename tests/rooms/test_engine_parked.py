"""Rows that are handed back in mid-run and taken up again: the same bits as without that."""

from __future__ import annotations

import json
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from calotype.core import limits
from calotype.core.messages import (
    CancelRow,
    Message,
    ParkRow,
    RowDone,
    RowFailed,
    RowParked,
    RunRow,
    StepDone,
)
from calotype.engine.memory import row_tensors
from calotype.engine.parked import handed_back
from calotype.engine.samplers import RowSampler
from tests.rooms.engine_loras import lora, save_some
from tests.rooms.engine_models import Drawer, Picture
from tests.rooms.engine_studio import MASK, SOURCE, Studio, controls_of, frame

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 6
NOISY = ("ddim", "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_sde", "euler", "euler_a", "heun", "unipc")


def begun(drawer: Drawer, row: RunRow, blob: bytes, after: int) -> tuple[RowParked, bytes]:
    """Run a row for so many steps, and have it handed back."""
    engine, first = drawer.engine, replace(row, row="first")
    drawer.heard.clear()
    engine.handle(first, blob)
    while sum(isinstance(said, StepDone) for said, _ in drawer.heard) < after:
        if not engine.tick():
            wait([future for _, future in engine._admission._loader._loads.values()])
    engine.handle(ParkRow("first"))
    parked, raw = drawer.heard[-1]
    assert isinstance(parked, RowParked), parked
    assert engine.rows_held == 0
    return parked, raw


def in_two_parts(drawer: Drawer, row: RunRow, blob: bytes = b"", after: int = 3) -> Picture:
    """Draw a row with a hand-over in the middle."""
    parked, raw = begun(drawer, row, blob, after)
    assert (parked.step, parked.reason) == (after, "")
    assert 0 < len(raw) <= limits.PARKED_ROW_BYTES_MAX
    again = replace(row, row="second", parked_bytes=len(raw))
    drawer.heard.clear()
    picture = drawer.ours(again, blob + raw)
    steps = [said.step for said, _ in drawer.heard if isinstance(said, StepDone)]
    assert steps == list(range(after + 1, parked.steps + 1)), "it goes on where it was"
    return picture


def same(drawer: Drawer, row: RunRow, blob: bytes = b"", *after: int) -> bool:
    """Whether a hand-over after so many steps (3), or so many, leaves no trace in the picture."""
    whole = drawer.ours(replace(row, row="whole"), blob)
    parts = [in_two_parts(drawer, row, blob, each) for each in after or (3,)]
    return all(np.array_equal(part, whole) for part in parts)


@pytest.mark.parametrize("sampler", [*NOISY, "lcm", "tcd"])
def test_every_sampler_goes_on_bit_for_bit(studio: Studio, sampler: str) -> None:
    drawer = studio.drawer("sdxl")
    row = drawer.row(sampler=sampler, steps=STEPS)
    assert same(drawer, row, b"", 1, 2, STEPS - 1)


@pytest.mark.parametrize(("name", "count"), [("sd3", 4), ("flux", 2), ("sd15", 2)])
def test_other_families_do_too(studio: Studio, name: str, count: int) -> None:
    drawer = studio.drawer(name)
    for sampler in drawer.model.samplers[:count]:
        assert same(drawer, drawer.row(sampler=sampler, steps=STEPS)), sampler


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_a", "unipc"])
def test_the_embedded_model_does_from_a_picture_and_with_a_mask(
    studio: Studio, sampler: str
) -> None:
    drawer = studio.drawer("vignette")
    pictures, blob = frame(SOURCE, MASK)
    row = drawer.row(sampler=sampler, steps=6, pictures=pictures, source=0, strength=0.7)
    assert same(drawer, row, blob, 2)
    assert same(drawer, replace(row, mask=1), blob, 2)


def test_a_model_that_sees_the_mask_does(studio: Studio) -> None:
    drawer = studio.drawer("sd15-inpainting")
    pictures, blob = frame(SOURCE, MASK)
    assert same(drawer, drawer.row(pictures=pictures, source=0, mask=1, steps=STEPS), blob)


def test_rows_with_controls_and_loras_do(studio: Studio) -> None:
    drawer = studio.drawer("sdxl")
    pictures, blob = frame(SOURCE)
    controls = controls_of(studio, "sdxl", [(0.8, 0.0, 1.0), (0.5, 0.4, 0.9)])
    controls = tuple(replace(one, picture=0) for one in controls)
    loras = tuple(lora(path, 0.7) for path in save_some(studio.folder / "sdxl", studio.folder)[:2])
    row = drawer.row(pictures=pictures, controls=controls, loras=loras, steps=STEPS)
    assert same(drawer, replace(row, sampler="dpmpp_sde"), blob)


def test_a_row_may_be_handed_on_several_times(studio: Studio) -> None:
    drawer = studio.drawer("sdxl")
    row = drawer.row(sampler="dpmpp_2m", steps=STEPS)
    whole = drawer.ours(replace(row, row="whole"))
    _, raw = begun(drawer, row, b"", 2)
    parked, raw = begun(drawer, replace(row, parked_bytes=len(raw)), raw, 2)
    assert parked.step == 4
    assert np.array_equal(drawer.ours(replace(row, row="last", parked_bytes=len(raw)), raw), whole)


def test_each_row_in_a_crowd_is_handed_back_by_itself(studio: Studio) -> None:
    drawer = studio.drawer("sdxl")
    rows = [drawer.row(f"row {seed}", seed=seed, steps=STEPS) for seed in range(3)]
    whole = [drawer.ours(replace(row, row=f"whole {row.seed}")) for row in rows]
    drawer.heard.clear()
    for row in rows:
        drawer.engine.handle(row)
    for _ in range(3):
        drawer.engine.tick()
    drawer.engine.handle(ParkRow("row 1"))
    parked, raw = drawer.heard[-1]
    assert isinstance(parked, RowParked)
    again = replace(rows[1], row="again", parked_bytes=len(raw))
    drawer.engine.handle(again, raw)
    drawer.finish()
    drawn = [drawer.picture(row) for row in (rows[0], again, rows[2])]
    assert all(np.array_equal(one, other) for one, other in zip(drawn, whole, strict=True))


def test_what_has_not_begun_and_what_is_through_is_not_kept(studio: Studio) -> None:
    drawer = studio.drawer("sdxl")
    parked, raw = begun(drawer, drawer.row(), b"", 0)
    assert (parked.step, raw, parked.reason) == (0, b"", "")
    drawer.heard.clear()
    drawer.ours(drawer.row("through"))
    told = len(drawer.heard)
    for name in ("through", "never heard of"):
        drawer.engine.handle(ParkRow(name))
    assert len(drawer.heard) == told


def test_a_row_that_waits_for_its_adapters_is_handed_back_as_it_came(studio: Studio) -> None:
    drawer = studio.drawer("sdxl")
    paths = save_some(studio.folder / "sdxl", studio.folder)
    drawer.heard.clear()
    drawer.engine.handle(drawer.row("waits", loras=(lora(paths[2], 0.3),)))
    if drawer.engine._rows:
        pytest.skip("the file was read at once")
    drawer.engine.handle(ParkRow("waits"))
    assert drawer.heard == [(RowParked("waits", 0, 0, 0.0), b"")]
    drawer.finish()
    assert not any(isinstance(said, RowDone) for said, _ in drawer.heard)


def test_the_file_holds_tensors_and_plain_values_and_no_schedule(studio: Studio) -> None:
    drawer = studio.drawer("sdxl")
    _, raw = begun(drawer, drawer.row(sampler="dpmpp_2m", steps=STEPS), b"", 3)
    tensors = load(raw)
    past = [name for name in tensors if name.startswith("sampler.model_outputs")]
    assert tensors.keys() == {"latents", "generator", *past}
    assert len(past) == 2
    assert len(raw) < 4 * tensors["latents"].nbytes + tensors["generator"].nbytes + 2_000


def refused(drawer: Drawer, row: RunRow, raw: bytes) -> RowFailed:
    """What an engine says of a row that it can't take up."""
    drawer.heard.clear()
    drawer.engine.handle(replace(row, row="again", parked_bytes=len(raw)), raw)
    while not drawer.heard:
        drawer.engine.tick()
    [(said, _)] = drawer.heard
    assert isinstance(said, RowFailed), said
    return said


def test_what_is_of_another_row_or_no_row_is_refused_and_may_begin_again(studio: Studio) -> None:
    drawer = studio.drawer("sdxl")
    row = drawer.row(sampler="euler", steps=STEPS)
    _, raw = begun(drawer, row, b"", 3)
    for other in (replace(row, seed=12), replace(row, steps=8), replace(row, sampler="heun")):
        assert "of another" in refused(drawer, other, raw).reason
    told: dict[str, Any] = json.loads(header(raw)["row"])
    small = {**load(raw), "latents": torch.zeros(1, 4, 2, 2)}
    for said, bad in (
        ("can't be read", raw[:-1]),
        ("can't be read", b"no file"),
        ("can't be read", save(load(raw))),
        ("lacks a part", save({"latents": small["latents"]}, {"row": json.dumps(told)})),
        ("latents of (1, 4, 2, 2)", save(small, {"row": json.dumps(told)})),
        ("of another", save(load(raw), {"row": json.dumps({**told, "steps_done": 6})})),
        ("step is no state", with_sampler_of(raw, told, {"step": 1})),
        ("_internal_dict is no state", with_sampler_of(raw, told, {"_internal_dict": 1})),
    ):
        failed = refused(drawer, row, bad)
        assert said in failed.reason, failed.reason
        assert failed.retryable, "from the beginning it can be made"
    assert drawer.engine.rows_held == 0


def test_what_is_too_large_is_not_kept_and_says_so(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PARKED_ROW_BYTES_MAX", 1_000)
    drawer = studio.drawer("sdxl")
    parked, raw = begun(drawer, drawer.row(steps=STEPS), b"", 2)
    assert raw == b""
    assert parked.step == 2
    assert "no row may take more than 1,000" in parked.reason


def test_a_sampler_that_holds_what_cannot_be_written_is_not_kept_and_says_so(
    studio: Studio,
) -> None:
    drawer = studio.drawer("sdxl")
    row = drawer.row("odd", sampler="euler", steps=STEPS)
    drawer.engine.handle(row)
    for _ in range(2):
        drawer.engine.tick()
    odd = drawer.engine._rows["odd"]
    fresh = RowSampler("euler", odd.model.scheduler_config, lambda one: one.set_timesteps(STEPS))
    odd.sampler.scheduler.odd = object()
    said, raw = handed_back(odd, fresh)
    assert raw == b""
    assert "sampler.odd is a object" in said.reason
    drawer.engine.handle(CancelRow("odd"))


def test_the_ledger_counts_a_row_that_was_taken_up_as_any_other(studio: Studio) -> None:
    drawer = studio.drawer("sdxl")
    row = drawer.row(sampler="dpmpp_2m", steps=STEPS)
    _, raw = begun(drawer, row, b"", 3)
    drawer.engine.handle(replace(row, row="again", parked_bytes=len(raw)), raw)
    again = held(drawer, "again")
    drawer.engine.handle(replace(row, row="whole"))
    while drawer.engine._rows["whole"].steps_done < 3:
        drawer.engine.tick()
    assert again == held(drawer, "whole")
    drawer.finish()


def held(drawer: Drawer, row: str) -> int:
    return sum(each.nbytes for each in row_tensors([drawer.engine._rows[row]]))


def header(raw: bytes) -> dict[str, str]:
    length = int.from_bytes(raw[:8], "little")
    told: dict[str, str] = json.loads(raw[8 : 8 + length])["__metadata__"]
    return told


def with_sampler_of(raw: bytes, told: dict[str, Any], sampler: dict[str, Any]) -> bytes:
    return bytes(save(load(raw), {"row": json.dumps({**told, "sampler": sampler})}))


def test_messages_of_parking_travel_as_others_do() -> None:
    from calotype.core import frames

    for message in (ParkRow("a/1/0"), RowParked("a/1/0", 3, 6, 0.5)):
        raw = frames.encode(message, b"row")
        head = raw[4 : 4 + frames.head_length(raw[:4])]
        decoded: Message = frames.decode(head)
        assert decoded == message
