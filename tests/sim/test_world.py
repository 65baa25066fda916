"""The simulator's loop: theory it must agree with, and what no fault may break."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.nouns import Tier
from calotype.sim.baselines import POLICIES
from calotype.sim.compare import compare
from calotype.sim.engines import Run, SimEngine
from calotype.sim.fleet import Engines, FleetPlan, Kind, Loading, Outage, of_gpus
from calotype.sim.jobs import Asked, Costs
from calotype.sim.traffic import Traffic, generate
from calotype.sim.world import World
from tests.sim.builders import asked, play, warm

# Engines


def test_rows_on_an_engine_share_it_evenly() -> None:
    engine = SimEngine("e", "r", Kind(1.0, 1.0, 1.0, rows=4))
    engine.up(0.0)
    assert engine.join(Run("a", 1, 10.0), 0.0) == 10.0
    assert engine.join(Run("b", 1, 10.0), 4.0) == 16.0, "a has 6 left, at half the speed"
    run, device_s, next_s = engine.end(16.0)
    assert (run.job_id, next_s) == ("a", 20.0)
    assert device_s == pytest.approx(10.0)
    run, device_s, next_s = engine.end(20.0)
    assert (run.job_id, next_s) == ("b", None)
    assert device_s == pytest.approx(10.0)
    engine.down(50.0)
    assert engine.busy_s == pytest.approx(20.0)
    assert engine.up_s == 50.0


def test_a_faster_kind_and_full_batches_take_less_time() -> None:
    kind = Kind(speed=2.0, price_per_hour=1.0, spot_price_per_hour=1.0, rows=4, batch_gain=1.6)
    engine = SimEngine("e", "r", kind)
    engine.up(0.0)
    assert engine.join(Run("a", 4, 10.0), 0.0) == pytest.approx(4 * 10.0 / 2.0 / 1.6)


def test_loras_used_longest_ago_are_dropped() -> None:
    engine = SimEngine("e", "r", Kind(1.0, 1.0, 1.0, loras=2))
    assert [engine.needs_loras((name,)) for name in "abacb"] == [1, 1, 0, 1, 1]


# The loop


def test_one_engine_works_jobs_off_one_by_one() -> None:
    figures = play(warm(), [asked(0.0), asked(1.0), asked(2.0)])
    assert figures["tiers"]["fast"]["wait_s"] == {"p50": 9.0, "p95": 18.0, "p99": 18.0}
    assert figures["tiers"]["fast"]["latency_s"]["p99"] == 28.0
    assert figures["makespan_s"] == 30.0
    assert figures["utilisation"] == 1.0
    assert figures["tiers"]["fast"]["attained"] == pytest.approx(1 / 3, abs=1e-4)


def test_a_cold_start_takes_the_time_of_a_load_and_counts_as_a_miss() -> None:
    plan = FleetPlan((Engines("A100", 1),), loading=Loading(model_s=20.0, spread=0.0), delay_s=0.5)
    figures = play(plan, [asked(0.0), asked(100.0)])
    latency = figures["tiers"]["fast"]["latency_s"]
    assert latency == {"p50": 11.0, "p95": 32.0, "p99": 32.0}  # a message takes half a second
    assert figures["warm_hit_rate"] == 0.5


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_wait_is_what_pollaczek_and_khinchine_say(load: float) -> None:
    """One server, Poisson arrivals, general service: W = load x mean x (1 + cv^2) / 2(1 - load)."""
    take_s, jobs = 10.0, 30_000
    hours = jobs * take_s / load / 3600
    traffic = Traffic(
        images=jobs, hours=hours, swing=0.0, bursts=0, models={"m": 1}, batch={1: 1}, lora_share=0
    )
    world = World(warm(), generate(traffic, 5), Costs(take_s), 5, "fifo")
    record = world.run()
    waits = [wait for of in record._tiers.values() for wait in of.waits_s]
    theory = load * take_s * (1 + 0.08**2) / (2 * (1 - load))
    assert sum(waits) / len(waits) == pytest.approx(theory, rel=0.08)


def test_the_same_seed_gives_the_same_bytes_and_another_another_result() -> None:
    def bytes_of(seed: int) -> str:
        traffic = Traffic(images=2_000, hours=1.0)
        report = compare(
            plan=FleetPlan((Engines("A100", 6, spot_hours=0.5),)),
            traffic=lambda: generate(traffic, seed),
            costs=Costs(),
            seed=seed,
            policies=list(POLICIES),
            said="",
        )
        return json.dumps(report)

    assert bytes_of(1) == bytes_of(1)
    assert bytes_of(1) != bytes_of(2)


def saturating(at: int) -> Asked:
    """Every tier and tenant always has work."""
    return asked(0.0, tier=list(Tier)[at % 3], tenant=f"t{at % 6}", device_s=2.0 + at % 5)


def test_policies_differ_as_they_should_under_overload() -> None:
    jobs = [saturating(at) for at in range(600)]
    medians = {
        policy: {
            tier: of["wait_s"]["p50"] for tier, of in play(warm(2), jobs, policy)["tiers"].items()
        }
        for policy in POLICIES
    }
    assert medians["strict"]["turbo"] < medians["strict"]["fast"] < medians["strict"]["relax"]
    assert medians["ours"]["turbo"] < medians["ours"]["fast"] < medians["ours"]["relax"]
    fifo = medians["fifo"]
    assert fifo["turbo"] == pytest.approx(fifo["relax"], rel=0.05)


def test_shortest_first_lets_large_jobs_wait_and_round_robin_counts_jobs() -> None:
    large = [asked(0.0, tenant="big", device_s=20.0) for _ in range(20)]
    small = [asked(0.1, tenant="small", device_s=1.0) for _ in range(20)]
    shortest = play(warm(), large + small, "shortest")["tiers"]["fast"]["wait_s"]
    assert shortest["p50"] < 45.0
    turns = play(warm(), large + small, "round-robin")["tiers"]["fast"]["wait_s"]
    ours = play(warm(), large + small, "ours")["tiers"]["fast"]["wait_s"]
    assert ours["p50"] < turns["p50"], "a turn of 20 s is twenty of 1 s"


FAULTS = st.fixed_dictionaries(
    {
        "spot_hours": st.sampled_from([None, 0.02, 0.2]),
        "fail_hours": st.sampled_from([None, 0.02, 0.2]),
        "repair_s": st.sampled_from([0.0, 5.0, 200.0]),
        "count": st.integers(1, 4),
    }
)


@given(FAULTS, st.integers(0, 10**6), st.sampled_from(sorted(POLICIES)))
@settings(max_examples=60, deadline=None)
def test_no_job_is_lost_whatever_the_machines_do(
    faults: dict[str, Any], seed: int, policy: str
) -> None:
    plan = FleetPlan(
        (Engines("A100", region="west", **faults), Engines("A10G", 1, region="east")),
        outages=(Outage("west", 30.0, 100.0), Outage("east", 100.0, 50.0)),
        loading=Loading(2.0, 0.5),
    )
    jobs = [
        asked(
            at * 1.5, tier=list(Tier)[at % 3], tenant=f"t{at % 4}", model="mx"[at % 2], n=1 + at % 3
        )
        for at in range(60)
    ]
    figures = play(plan, jobs, policy, seed)
    assert figures["jobs"] + figures["failed"] == len(jobs)
    assert figures["never_ran"] == 0
    assert 0.0 < figures["utilisation"] <= 1.0


def test_a_lost_region_sends_its_jobs_elsewhere() -> None:
    plan = FleetPlan(
        (
            Engines("A100", 1, region="west", warm=("m",)),
            Engines("A100", 1, region="east", warm=("m",)),
        ),
        outages=(Outage("west", 5.0, 1_000.0),),
    )
    figures = play(plan, [asked(0.0), asked(0.0, tenant="bob")])
    assert figures["retried"] == 1
    assert figures["jobs"] == 2
    assert figures["engines"]["lost"] == 1


def test_jobs_with_many_loras_go_to_the_large_engines_and_leave_the_small_ones_to_others() -> None:
    loading = Loading(lora_gb=3.0, spread=0.0)
    plan = FleetPlan((Engines("A100", 1), Engines("A10G", 1)), loading=loading)
    jobs = [asked(20.0 * at, loras=("a", "b", "c", "d") * (at % 2)) for at in range(10)]
    world = World(plan, jobs, Costs(), 0)
    figures = world.run().figures()
    large, small = world._machines.engines.values()
    assert figures["jobs"] == 10
    assert len(large.loras) == 4
    assert not small.loras, "12 GB of LoRAs have no room beside a model there"
    assert small.busy_s > 0


def test_what_fits_on_no_machine_is_refused_with_the_arithmetic_and_the_run_ends() -> None:
    plan = FleetPlan(
        (Engines("A10G", 2, pinned=("sdxl",), spot_hours=0.5, fail_hours=0.5),),
        loading=Loading(lora_gb=3.0),
    )
    jobs = [asked(0.0, model="flux"), asked(1.0, model="sdxl"), asked(2.0, model="flux")]
    jobs.append(asked(3.0, model="sdxl", loras=("a", "b", "c", "d")))
    figures = play(plan, jobs)
    assert (figures["jobs"], figures["never_ran"]) == (1, 0)
    assert list(figures["refused"].values()) == [2, 1]
    flux, loras = figures["refused"]
    said = "flux fits on no engine: 40,460,000,000 bytes are needed (base 29,300,000,000, clip-l"
    assert flux.startswith(said)
    assert flux.endswith("and spot A10G in local, which has most, has 16,000,000,000")
    assert "sdxl with its LoRAs fits on no engine" in loras
    assert "loras 12,000,000,000" in loras


def test_late_relax_jobs_are_promoted_and_counted() -> None:
    jobs = [asked(0.0, tier=Tier.TURBO, device_s=30.0) for _ in range(40)]
    jobs.append(asked(0.1, tier=Tier.RELAX, tenant="bob", device_s=1.0))
    jobs += [asked(0.2, tier=Tier.RELAX, tenant="bob", device_s=1.0) for _ in range(60)]
    figures = play(warm(), jobs)
    assert figures["promoted"] > 0
    assert figures["starts"]["promoted"] > 0


def test_cost_is_hours_by_price_and_spot_is_cheaper() -> None:
    on_demand = play(warm(), [asked(0.0, device_s=3_600.0)])
    assert on_demand["gpu_hours"] == 1.0
    assert on_demand["cost"] == 2.5
    assert on_demand["cost_per_1000_images"] == 2_500.0
    assert play(warm(spot_hours=1e9), [asked(0.0, device_s=3_600.0)])["cost"] == 1.0


def test_generated_traffic_has_about_as_many_images_and_the_tiers_asked_for() -> None:
    jobs = list(generate(Traffic(images=20_000), 3))
    assert sum(job.n for job in jobs) == pytest.approx(20_000, rel=0.03)
    share = sum(job.tier is Tier.RELAX for job in jobs) / len(jobs)
    assert share == pytest.approx(0.6, abs=0.05)
    assert all(one.at_s <= other.at_s for one, other in pairwise(jobs))
    assert len({job.tier for job in jobs if job.tenant == "t5"}) == 1


def test_a_fleet_of_gpus_is_large_enough_for_its_number() -> None:
    assert of_gpus(3).size == 3
