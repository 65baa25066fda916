"""What jobs are thought to cost: by what engines measured, then by what jobs took."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calotype.core.cost import CostModel, Curve
from calotype.core.messages import ModelLoaded
from calotype.flow.costs import Costs
from calotype.pool.launch import Life
from tests.flow.dispatch_bench import SPEC

SIZED = replace(SPEC, width=128, height=128, steps=20, guidance=3.0)
LOADED = ModelLoaded("tiny", 1.0, 10, (2, 4), (0.03, 0.05), size_px=128, image_s=0.04)


def measured() -> dict[str, CostModel]:
    life = Life()
    life.heard(LOADED, 1.0)
    life.heard(replace(LOADED, name="unmeasured", pass_s=()), 1.0)
    return life.costs


def test_a_model_nobody_has_run_costs_what_its_engine_measured() -> None:
    costs = Costs()
    guess_s = costs.predict_s(SIZED)
    costs.begin(measured())
    assert costs.predict_s(SIZED) == pytest.approx(20 * 0.03 + 0.04)
    unguided = replace(SIZED, guidance=1.0)  # its one forward takes the smallest bucket too
    assert costs.predict_s(unguided) == pytest.approx(20 * 0.03 + 0.04)
    assert costs.predict_s(replace(SIZED, model="unmeasured")) == guess_s


def test_where_every_forward_goes_alone_a_guided_step_costs_two() -> None:
    model = CostModel.measured(Curve((1,), (0.02,)), 128, 0.0)
    assert model.predict_s(SIZED) == pytest.approx(20 * 0.04)
    assert model.predict_s(replace(SIZED, guidance=1.0)) == pytest.approx(20 * 0.02)


def test_what_jobs_took_counts_more_than_what_was_measured_and_outlives_a_restart() -> None:
    costs = Costs()
    costs.begin(measured())
    before_s = costs.predict_s(SIZED)
    costs.learn(SIZED, 2 * before_s)
    after_s = costs.predict_s(SIZED)
    assert before_s < after_s < 2 * before_s
    restarted = Costs(costs.kept())
    restarted.begin(measured())
    assert restarted.predict_s(SIZED) == after_s
