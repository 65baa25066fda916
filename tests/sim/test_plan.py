"""The planner: the known example, closed forms, and objectives that nothing can meet."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from calotype.core.errors import InvalidInput
from calotype.core.nouns import Tier
from calotype.sim.fleet import KINDS
from calotype.sim.plan import Wanted, erlang_c, fewest_by_erlang, formula, plan
from tests.flow.command_line import here

EXAMPLE = Wanted(images_per_day=1_000_000, peak_per_s=50, seconds_per_image=12)


def test_the_known_example_needs_858_by_formula_and_about_1000_with_the_pool() -> None:
    assert formula(EXAMPLE, 1.0) == 858
    assert round(858 * 1.165, -1) == 1_000


def test_the_simulation_says_why_the_known_example_is_roomy() -> None:
    report = plan(EXAMPLE, kinds={"A100": KINDS["A100"]})
    assert (report["formula"], report["formula_with_pool"]) == (858, 1_000)
    (found,) = report["kinds"]
    assert 600 < found["erlang_c"] < found["formula"]
    assert 600 < found["simulated"] < 0.8 * found["formula"]
    assert found["utilisation"] > 0.9
    assert min(found["attained"].values()) >= 0.95
    assert "600 A100s are at work" in report["why"]


@pytest.mark.parametrize(
    ("servers", "offered", "waits"), [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (10, 8.0, 0.4092)]
)
def test_erlang_c_is_as_in_the_tables(servers: int, offered: float, waits: float) -> None:
    assert erlang_c(servers, offered) == pytest.approx(waits, abs=5e-4)


def late_share(servers: int) -> float:
    return erlang_c(servers, 10.0) * math.exp(-(servers - 10.0) / 10.0 * 2.0)


def test_fewest_servers_are_the_fewest() -> None:
    most = fewest_by_erlang(per_s=1.0, take_s=10.0, wait_s=2.0, attained=0.95)
    assert late_share(most) <= 0.05 < late_share(most - 1)
    assert fewest_by_erlang(1.0, 10.0, 1e6, 0.95) == 11


def test_the_cheapest_kind_is_chosen_and_slow_ones_are_named() -> None:
    wanted = Wanted(images_per_day=50_000, peak_per_s=2, seconds_per_image=7)
    report = plan(wanted)
    per_hour = {one["kind"]: one["per_hour"] for one in report["kinds"]}
    assert report["cheapest"] == min(per_hour, key=lambda kind: per_hour[kind])
    assert report["too_slow"] == {"A10G": pytest.approx(7 / 0.3, abs=1e-3)}


def test_an_impossible_objective_says_which_bound_makes_it_so() -> None:
    wanted = Wanted(1_000_000, 50, 12, objectives={Tier.TURBO: 5.0, Tier.RELAX: 600.0})
    with pytest.raises(InvalidInput) as raised:
        plan(wanted)
    assert raised.value.field == "objectives.turbo"
    assert raised.value.limit == pytest.approx(12 / 1.9, abs=1e-3)
    assert "one image takes 6.32 s on H100" in raised.value.detail


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 0.0, -1.0])
def test_an_objective_is_an_amount_of_seconds(seconds: float) -> None:
    with pytest.raises(InvalidInput, match="is no amount of seconds") as raised:
        Wanted(1_000_000, 50, 12, objectives={Tier.FAST: seconds})
    assert raised.value.field == "objectives.fast"


def test_a_peak_below_the_mean_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"mean is 11\.6/s"):
        Wanted(1_000_000, 5, 12)
    with pytest.raises(InvalidInput, match="utilization"):
        Wanted(1_000_000, 50, 12, utilization=1.5)


def test_the_command_plans_a_small_fleet(tmp_path: Path) -> None:
    arguments = ["--images-per-day", "9000", "--peak-per-second", "1", "--seconds-per-image", "5"]
    done = here(tmp_path, "plan", *arguments)
    assert done.returncode == 0, done.stderr
    assert "cheapest" in done.stdout
