"""Times that simulated jobs are told: as often right as they say, the same for the same seed."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import pytest

from calotype.core.nouns import Tier
from calotype.sim.compare import compare
from calotype.sim.fleet import Engines, FleetPlan, Loading, of_gpus
from calotype.sim.jobs import Asked, Costs
from calotype.sim.page import eta_table, page
from calotype.sim.traffic import Traffic, generate
from calotype.sim.world import World


def report(every: int, policies: tuple[str, ...] = ("ours",), gpus: int = 1) -> dict[str, Any]:
    traffic = Traffic(images=4_000, hours=20.0)
    told, _ = compare(
        plan=of_gpus(gpus),
        traffic=lambda: generate(traffic, 2),
        costs=Costs(),
        seed=2,
        policies=policies,
        said="",
        etas_every=every,
    )
    return told


def test_half_of_the_jobs_are_done_by_p50_and_nine_of_ten_by_p90() -> None:
    eta = report(1)["runs"][0]["eta"]
    assert eta["told"] == report(0)["runs"][0]["jobs"] > 1_500
    assert eta["basis"]["waits"] > 500
    assert eta["done_by_p50"] == pytest.approx(0.5, abs=0.03)
    assert eta["done_by_p90"] == pytest.approx(0.9, abs=0.03)
    assert eta["error_share_median"] < 0.15


def test_telling_changes_no_decision_and_the_same_seed_tells_the_same() -> None:
    told, untold = report(5), report(0)
    assert json.dumps(told) == json.dumps(report(5))
    assert "eta" not in untold["runs"][0]
    del told["runs"][0]["eta"]
    assert told == untold


def test_others_policies_tell_no_times_and_the_tables_leave_them_out() -> None:
    both = report(20, ("fifo", "ours"))
    assert [("eta" in run) for run in both["runs"]] == [False, True]
    _, rows = eta_table(both)
    assert [row[:2] for row in rows] == [["ours", it] for it in ("turbo", "fast", "relax", "all")]
    plots = {run["policy"]: {"waits": {}, "series": {}, "slice_s": 1.0} for run in both["runs"]}
    assert "Times that were told" in page(both, plots)
    assert "Times that were told" not in page(report(0), {"ours": plots["ours"]})


def asked(at_s: float, device_s: float, tenant: str = "ann") -> Asked:
    return Asked(at_s=at_s, tenant=tenant, tier=Tier.FAST, model="m", device_s=device_s)


def test_costs_of_a_trace_are_predicted_from_jobs_that_ended_before() -> None:
    plan = FleetPlan((Engines("A100", 1, warm=("m",)),), delay_s=0.0)
    jobs = [asked(at * 100.0, 40.0) for at in range(100)]
    world = World(plan, jobs, Costs(), 0, etas_every=1)
    world.run()
    assert world.etas is not None
    errors = [error for of in world.etas._tiers.values() for error in of.errors_s]
    assert errors[0] > 30.0, "nothing is known of the first: the cost model's 7 s"
    assert max(errors[-20:]) < 4.0


def test_a_load_and_what_runs_are_in_the_time_that_is_told() -> None:
    plan = FleetPlan((Engines("A100", 1),), loading=Loading(20.0, spread=0.0), delay_s=0.0)
    cost_s = 7.1  # of a standard picture, as the cost model has it
    jobs = [Asked(at, f"t{at}", Tier.FAST, "m") for at in (0.0, 5.0)]
    world = World(plan, jobs, Costs(cost_s), 0, etas_every=1)
    assert world.etas is not None
    noted = mock.patch.object(world.etas._ranges, "told", wraps=world.etas._ranges.told)
    with noted as note:
        world.run()
    told = [call.args[2] for call in note.call_args_list]
    assert told == pytest.approx([20.0 + cost_s, 15.0 + 2 * cost_s])
