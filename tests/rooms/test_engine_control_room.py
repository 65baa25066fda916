"""The room for ControlNets: what is too large, who goes, and rows that compete for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from calotype.core import limits
from calotype.core.errors import InvalidInput, ModelBroken
from calotype.core.messages import RowControl, RowFailed
from calotype.engine.controls import Controls, load_control
from tests.rooms.engine_models import Drawer
from tests.rooms.engine_studio import FIRST, SECOND, Studio, controls_of, frame

pytestmark = pytest.mark.usefixtures("one_thread")

CALLS = itertools.count()


def test_a_control_too_large_is_refused_by_what_lies_on_disk(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    (control,) = controls_of(studio, "sdxl", [(1.0, 0.0, 1.0)])
    monkeypatch.setattr(limits, "CONTROL_BYTES_MAX", 1000)
    with pytest.raises(ModelBroken, match="too many") as refused:
        load_control(control, studio.drawer("sdxl").model)
    assert refused.value.limit == 1000


def test_the_least_recently_used_control_goes_when_there_is_no_room(studio: Studio) -> None:
    model = studio.drawer("sdxl").model
    one, two = controls_of(studio, "sdxl", [(1.0, 0.0, 1.0)] * 2)
    kept = Controls(bytes_max=load_control(one, model).net.bytes * 3 // 2)
    assert kept.claim("a", (one,), model) == [one]
    assert kept.put(kept.key(one, model), load_control(one, model))
    kept.of("a", (one,), model)
    assert kept.claim("b", (two, two), model) == [two]
    assert not kept.put(kept.key(two, model), load_control(two, model)), "one of a row that runs"
    kept.release("a")
    assert kept.put(kept.key(two, model), load_control(two, model))
    assert kept.claim("c", (one,), model) == [one]
    assert not kept.put(kept.key(one, model), load_control(one, model)), "b came before"
    with pytest.raises(InvalidInput, match="more than there is") as refused:
        kept.claim("d", (one, two), model)
    assert (refused.value.field, refused.value.limit) == ("controls", kept.shelf.bytes_max)


@pytest.fixture
def one_and_a_half(studio: Studio) -> Iterator[Drawer]:
    """An engine that has room for one ControlNet, and a half of another."""
    drawer = studio.drawer("sdxl")
    (one,) = controls_of(studio, "sdxl", [(1.0, 0.0, 1.0)])
    kept = drawer.engine._admission.controls
    for key in kept.shelf:
        kept.shelf.forget(key)
    before, kept.shelf.bytes_max = (
        kept.shelf.bytes_max,
        load_control(one, drawer.model).net.bytes * 3 // 2,
    )
    yield drawer
    kept.shelf.bytes_max = before


def test_a_row_whose_controls_never_fit_together_is_refused(
    studio: Studio, one_and_a_half: Drawer
) -> None:
    drawer = one_and_a_half
    controls = controls_of(studio, "sdxl", [(1.0, 0.0, 1.0)] * 2)
    pictures, blob = frame(FIRST, SECOND)
    row = drawer.row(f"both {next(CALLS)}", pictures=pictures, controls=controls)
    drawer.engine.handle(row, blob)
    drawer.finish()
    (failed,) = [it for it, _ in drawer.heard if isinstance(it, RowFailed) and it.row == row.row]
    assert "more than there is for all" in failed.reason
    assert not failed.retryable
    assert drawer.engine.rows_held == 0


def test_rows_that_compete_for_room_are_served_one_after_the_other(
    studio: Studio, one_and_a_half: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawer, kept = one_and_a_half, one_and_a_half.engine._admission.controls
    controls = controls_of(studio, "sdxl", [(1.0, 0.0, 1.0)] * 2, first=0)
    pictures, blob = frame(FIRST, SECOND)
    reads, most = [], [0]
    read = load_control

    def counted(wanted: RowControl, model: Any) -> Any:
        reads.append(wanted.name)
        most.append(kept.bytes)
        return read(wanted, model)

    monkeypatch.setattr("calotype.engine.admission.load_control", counted)
    rows = [
        drawer.row(f"{at} {next(CALLS)}", pictures=pictures, controls=(controls[at % 2],), seed=at)
        for at in range(6)
    ]
    for row in rows:
        drawer.engine.handle(row, blob)
    drawer.finish()
    assert max(*most, kept.bytes) <= kept.shelf.bytes_max
    assert len(reads) <= len(rows), "each at most once for each row"
    for row in rows:
        beside = replace(row, row=f"{row.row} alone")
        assert np.array_equal(drawer.ours(beside, blob), drawer.picture(row))
