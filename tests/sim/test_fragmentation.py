"""How a simulated device's memory lies as models come and go."""

from __future__ import annotations

import pytest

from calotype.core.events import ModelKnown
from calotype.core.nouns import Component
from calotype.sim.engines import SimEngine
from calotype.sim.fleet import GB, Kind, of_gpus
from calotype.sim.record import Record

SMALL = Kind(speed=1.0, price_per_hour=1.0, spot_price_per_hour=1.0, models_gb=10.0)


def parts(**sizes_gb: int) -> dict[str, int]:
    known = ModelKnown("m", tuple(Component(*it) for it in _told(sizes_gb)), 1.0)
    return {part.id: part.bytes for part in known.components}


def _told(sizes_gb: dict[str, int]) -> list[tuple[str, str, int]]:
    return [(name, "denoiser", size * GB) for name, size in sizes_gb.items()]


def test_a_model_without_a_block_has_all_laid_anew_and_it_is_counted() -> None:
    engine, record = SimEngine("e", "here", SMALL), Record(of_gpus(1))
    for held in (parts(a=3, b=3, c=3), parts(a=3, c=3), parts(a=3, c=3, d=4)):
        is_block = engine.lay(held)
        record.laid(engine.arena.fragmentation, is_block=is_block)
    told = record.figures()["fragmentation"]
    assert told["loads_without_block"] == 1
    assert told["max"] == pytest.approx(0.25), "of 4 GB free the largest block was 3"
    assert engine.arena.blocks.keys() == {"a", "c", "d"}
    assert engine.arena.fragmentation.index == 0
