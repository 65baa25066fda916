"""How a simulated device's memory lies as models come and go."""

from __future__ import annotations

from dataclasses import replace

from calotype.sim.fleet import Engines, FleetPlan, Kind, Loading, ModelSize
from tests.sim.builders import asked, play

SMALL = Kind(speed=1.0, price_per_hour=1.0, spot_price_per_hour=1.0, models_gb=10.0)
# a and c stay warm while b goes: 4 GB are free then, 3 before c and 1 behind it.
JOBS = [asked(100.0 * at, model=model) for at, model in enumerate("abcacacd")]
PLAN = FleetPlan(
    (Engines("small", 1),),
    kinds={"small": SMALL},
    models={**dict.fromkeys("abc", ModelSize(3.0)), "d": ModelSize(4.0)},
    loading=Loading(model_s=5.0, spread=0.0),
)


def test_a_model_without_a_block_has_all_laid_anew_and_it_is_counted() -> None:
    told = play(PLAN, JOBS)
    assert told["jobs"] == len(JOBS)
    assert told["fragmentation"]["loads_without_block"] == 1
    assert sum(told["loads"].values()) == 4


def test_where_parts_need_a_block_the_line_lays_memory_anew() -> None:
    told = play(replace(PLAN, loading=replace(PLAN.loading, in_one_block=True)), JOBS)
    assert told["jobs"] == len(JOBS), "nothing is lost by a load that fails"
    assert told["loads"]["anew"] > 0
    assert told["fragmentation"]["max"] > 0
