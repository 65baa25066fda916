"""Autoscaled fleets and spot machines in the simulator: what they cost; nothing is lost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.errors import InvalidInput
from calotype.core.nouns import Tier
from calotype.sim.baselines import POLICIES
from calotype.sim.fleet import KINDS, Engines, FleetPlan, Loading
from calotype.sim.fleet import read as read_fleet
from calotype.sim.jobs import Costs
from calotype.sim.traffic import Traffic, generate
from calotype.sim.world import World
from tests.flow.command_line import here
from tests.sim.builders import asked, play, warm

DAY = Traffic(images=6_000, hours=24.0, models={"m": 1.0}, lora_share=0.0, bursts=2)
HOUR_S = 3_600.0


def scaled(count: int = 1, **more: Any) -> FleetPlan:
    return warm(count, **{"min": 0, "max": 8, "boot_s": 60.0, **more})


# Autoscaled fleets


def test_a_day_has_the_waits_it_is_sized_for_on_fewer_gpu_hours() -> None:
    jobs = list(generate(DAY, 3))
    begins = scaled(3)
    own, fixed = play(begins, jobs), play(begins.fixed(), jobs)
    assert own["jobs"] == fixed["jobs"] == len(jobs)
    assert own["gpu_hours"] < 0.8 * fixed["gpu_hours"] == pytest.approx(0.8 * 72, rel=0.01)
    for tier, wait_s in begins.waits.items():
        assert own["tiers"][tier]["wait_s"]["p95"] <= wait_s
    assert own["retried"] == 0, "who leaves ends what it runs"
    assert own["engines"]["given_up"] > 0


def test_a_machine_is_paid_for_while_it_boots_and_until_it_is_given_up() -> None:
    """Two jobs of an hour: another engine is there after 10 minutes, and works an hour."""
    jobs = [asked(0.0, device_s=HOUR_S), asked(0.0, device_s=HOUR_S)]
    plan = replace(scaled(boot_s=600.0, max=2), loading=Loading(model_s=30.0, spread=0.0))
    told = play(plan, jobs)
    assert told["engines"]["added"] == 1
    latest_s = told["makespan_s"]
    assert latest_s == pytest.approx(600.0 + 30.0 + HOUR_S, abs=20.0)
    # The first is given up when its job is over, long before the end of the other.
    assert told["gpu_hours"] == pytest.approx((HOUR_S + latest_s) / HOUR_S, abs=0.01)


def test_what_is_pinned_is_loaded_first_and_its_last_home_stays() -> None:
    jobs = [asked(0.0, device_s=1.0), asked(5_000.0, model="p", device_s=1.0)]
    told = play(scaled(2, pinned=("p",)), jobs)
    assert told["loads"]["pinned"] >= 1
    assert told["engines"]["given_up"] == 1
    assert told["tiers"]["fast"]["wait_s"]["p99"] < 1.0, "p was warm"


def test_a_job_that_no_group_could_hold_ends_the_run() -> None:
    plan = replace(scaled(), loading=Loading(model_gb=60.0))
    told = play(plan, [asked(0.0, model="large"), asked(1.0, model="large")])
    assert list(told["refused"].values()) == [2]


def test_jobs_whose_loras_need_a_large_kind_have_it_hired() -> None:
    """Two LoRAs lie beside the model on a small device, four don't."""
    small, large = (Engines(kind, 1, min=0, max=9, boot_s=60.0) for kind in ("A10G", "A100"))
    kinds = {**KINDS, "A10G": replace(KINDS["A10G"], price_per_hour=0.5)}  # by its work, too
    loading = Loading(lora_gb=4.0, spread=0.0)
    plan = FleetPlan((small, large), kinds, loading=loading, delay_s=0.0)

    def most(loras: int) -> list[int]:
        """Engines at one time, of each kind."""
        names = tuple(f"l{at}" for at in range(loras))
        jobs = [asked(at * 2.0, loras=names, device_s=3.0) for at in range(900)]
        record = World(plan, jobs, Costs(), 0).run()
        told, series = record.figures(), record.plots()["series"]
        assert told["jobs"] == len(jobs)
        assert told["tiers"]["fast"]["wait_s"]["p95"] < 60.0
        return [max(series[f"engines {name}"]) for name in plan.names]

    assert most(2)[0] > most(2)[1] == 1
    assert most(4)[0] == 1 < most(4)[1]


def test_the_same_seed_gives_the_same_bytes() -> None:
    plan = scaled(2, spot_hours=2.0)
    jobs = list(generate(replace(DAY, images=1_500, hours=6.0), 5))
    worlds = [World(plan, jobs, Costs(), 7, etas_every=50).run() for _ in range(2)]
    first, again = (json.dumps([it.figures(), it.plots()]) for it in worlds)
    assert first == again


MACHINES = st.fixed_dictionaries(
    {
        "spot_hours": st.sampled_from([None, 0.02, 0.2]),
        "fail_hours": st.sampled_from([None, 0.1]),
        "repair_s": st.sampled_from([0.0, 5.0, 200.0]),
        "notice_s": st.sampled_from([0.0, 15.0, 120.0]),
        "boot_s": st.sampled_from([0.0, 60.0]),
        "min": st.integers(0, 1),
        "max": st.integers(1, 4),
    }
)


@given(MACHINES, st.integers(0, 10**6), st.sampled_from(sorted(POLICIES)))
@settings(max_examples=60, deadline=None)
def test_no_job_is_lost_however_machines_come_and_go(
    machines: dict[str, Any], seed: int, policy: str
) -> None:
    plan = FleetPlan(
        (Engines("A100", 1, region="west", **machines), Engines("A10G", 1, region="east")),
        loading=Loading(2.0, 0.5),
    )
    jobs = [
        asked(at * 2.0, tier=list(Tier)[at % 3], model="mx"[at % 2], n=1 + at % 3)
        for at in range(60)
    ]
    told = play(plan, jobs, policy, seed)
    assert told["jobs"] + told["failed"] == len(jobs)
    assert 0.0 < told["utilisation"] <= 1.0


# Spot machines


def taken_away(notice_s: float, seed: int = 1) -> dict[str, Any]:
    """A job of half an hour on machines that are taken away four times an hour."""
    plan = warm(2, spot_hours=0.25, notice_s=notice_s)
    return play(plan, [asked(0.0, device_s=1_800.0)], seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_with_notice_a_job_goes_on_where_it_was_and_costs_no_more(seed: int) -> None:
    told = taken_away(120.0, seed)
    assert told["jobs"] == 1
    assert told["retried"] == told["engines"]["lost_device_s"] == 0
    assert told["tiers"]["fast"]["device_s"] == pytest.approx(1_800.0, abs=0.01)


def test_without_notice_what_was_done_is_lost() -> None:
    runs = [taken_away(0.0, seed) for seed in range(5)]
    assert sum(told["handed_back"] for told in runs) == 0
    assert sum(told["engines"]["lost_device_s"] for told in runs) > 1_000.0
    assert sum(taken_away(120.0, seed)["handed_back"] for seed in range(5)) > 3


def test_a_job_called_back_before_it_began_is_done_elsewhere_in_full() -> None:
    """Its LoRA takes longer to load than the engine has left."""
    plan = replace(warm(2, spot_hours=0.03, notice_s=20.0), loading=Loading(lora_s=40.0))
    jobs = [asked(9.0 * at, loras=(f"l{at}",), device_s=30.0) for at in range(20)]
    told = play(plan, jobs)
    assert told["jobs"] + told["failed"] == 20
    assert told["handed_back"] > 0
    assert told["tiers"]["fast"]["device_s"] == pytest.approx(30.0 * told["jobs"], abs=0.01)


# Fleets as TOML, and the command

FLEET = """\
[waits]
turbo = 4
[[engines]]
kind = "A100"
count = 2
min = 1
max = 6
boot_s = 90
pinned = ["sdxl"]
notice_s = 30
spot_hours = 3
"""


def fleet_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return path


def test_an_autoscaled_fleet_is_read(tmp_path: Path) -> None:
    plan = read_fleet(fleet_of(tmp_path, FLEET))
    (group,) = plan.engines
    assert (group.min, group.max, group.boot_s, group.notice_s) == (1, 6, 90.0, 30.0)
    assert plan.is_scaled
    assert not plan.fixed().is_scaled
    assert plan.waits == {Tier.TURBO: 4.0, Tier.FAST: 10.0, Tier.RELAX: 300.0}
    assert plan.names == ("spot A100 in local",)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("max = 6", "max = 1", "line 7, field engines[0].max: min <= count <= max <= 100000"),
        ("max = 6\n", "", "line 6, field engines[0].min: needs max"),
        ("max = 6", "max = -6", "line 7, field engines[0].max: -6 can't be (int | None)"),
        ("turbo = 4", "gold = 4", "line 2, field waits.gold: no tier"),
    ],
)
def test_bounds_that_are_wrong_are_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in FLEET
    with pytest.raises(InvalidInput) as raised:
        read_fleet(fleet_of(tmp_path, FLEET.replace(old, new)))
    assert says in raised.value.detail


def test_groups_of_one_name_are_told_apart() -> None:
    group = Engines("A100", 1)
    assert FleetPlan((group, group, replace(group, spot_hours=1.0))).names == (
        "A100 in local",
        "A100 in local (2)",
        "spot A100 in local",
    )


def test_simulate_shows_an_autoscaled_fleet_beside_the_fixed_one(tmp_path: Path) -> None:
    fleet_of(tmp_path, FLEET)
    asked = ("simulate", "--images", "400", "--hours", "2", "--fleet", "fleet.toml", "--seed", "4")
    done = here(tmp_path, *asked, "--json", "--html", "report.html")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [run["policy"] for run in report["runs"]] == ["ours", "ours, fixed"]
    assert "2 (1 to 6) x spot A100 in local" in report["said"]
    page = (tmp_path / "report.html").read_text()
    assert page.count("engines that are paid for") == 1, "of a fixed fleet there is no more to see"
    assert "memory torn" in page
