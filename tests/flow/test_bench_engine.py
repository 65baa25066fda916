from __future__ import annotations

import random
import statistics
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from benchmarks.report import markdown
from calotype.cli.bench_compare import SYSTEMS
from calotype.cli.bench_drive import Outcome
from calotype.cli.bench_engine import choose, measure, plan_of
from calotype.cli.bench_report import (
    AIMS,
    OURS,
    SATURATED,
    SERIAL,
    TURBO_OVER_RELAX,
    aims,
    load_name,
    percentile,
    summary,
    tables,
)
from calotype.cli.bench_workload import (
    GUIDANCES,
    SAMPLERS,
    STEPS,
    Request,
    turbo_over_relax,
    workload,
)
from calotype.core.errors import InvalidInput
from calotype.core.nouns import Tier
from calotype.pool.registry import ModelRegistry, embedded_folder


def outcome(request: Request, latency_s: float | None, ended_s: float = 1.0) -> Outcome:
    return Outcome(request, 0.1, latency_s, ended_s, b"", "" if latency_s else "broken")


def a_run(name: str, latency_s: float, images_s: float, tier: str = "all") -> dict[str, Any]:
    figures = {f"p{percent}": latency_s for percent in (50, 95, 99)}
    tiers = {tier: {"n": 1, "latency_s": figures, "first_step_s": figures}}
    return {"run": name, "images_s": images_s, "failed": 0, "tiers": tiers}


def a_system(name: str, p95_s: float, images_s: float, turbo_s: float = 1.0) -> dict[str, Any]:
    return {
        "system": name,
        "title": name,
        "turbo_alone": a_run("turbo alone", 1.0, 1.0, Tier.TURBO),
        "runs": [
            a_run(SATURATED, p95_s, images_s),
            a_run(load_name(0.95), p95_s, min(images_s, 1.0)),
            a_run(TURBO_OVER_RELAX, turbo_s, 0.1, Tier.TURBO),
        ],
    }


def test_the_same_seed_asks_the_same_and_another_does_not() -> None:
    assert workload(40, 2.0, seed=7) == workload(40, 2.0, seed=7)
    assert workload(40, 2.0, seed=7) != workload(40, 2.0, seed=8)


def test_a_higher_load_asks_the_same_pictures_sooner() -> None:
    slow, fast = workload(40, 1.0, seed=7), workload(40, 4.0, seed=7)
    assert [one.at_s for one in fast] == pytest.approx([one.at_s / 4 for one in slow])
    assert [(one.prompt, one.steps, one.seed) for one in slow] == [
        (one.prompt, one.steps, one.seed) for one in fast
    ]


def test_the_mix_has_each_value_as_often_as_any_other() -> None:
    requests = workload(120, 1.0, seed=3, loras=("one", "two"))
    tiers = Counter(one.tier for one in requests)
    assert tiers == {Tier.TURBO: 24, Tier.FAST: 48, Tier.RELAX: 48}
    for values, field in ((STEPS, "steps"), (GUIDANCES, "guidance"), (SAMPLERS, "sampler")):
        found = Counter(getattr(one, field) for one in requests)
        assert found == {value: 120 // len(values) for value in values}
    assert Counter(one.lora for one in requests) == {"": 60, "one": 30, "two": 30}
    assert min(STEPS) == 4
    assert max(STEPS) == 50


def test_arrivals_are_a_poisson_process_of_the_asked_rate() -> None:
    times = [one.at_s for one in workload(4000, 5.0, seed=1)]
    gaps = [after - before for before, after in pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(1 / 5, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 5, rel=0.1)  # an exponential's is its mean


def test_without_a_rate_all_arrive_at_once() -> None:
    assert {one.at_s for one in workload(20, 0.0, seed=1)} == {0.0}


def test_an_alike_mix_differs_in_words_and_seeds_only() -> None:
    requests = workload(30, 1.0, seed=1, mix="alike", loras=("one",))
    assert len({(one.steps, one.guidance, one.sampler, one.lora) for one in requests}) == 1
    assert len({one.prompt for one in requests}) == 30


def test_sparse_turbo_comes_among_a_backlog_of_relax() -> None:
    turbo = workload(3, 0.0, seed=1, tiers=(Tier.TURBO,))
    relax = workload(20, 2.0, seed=2, tiers=(Tier.RELAX,))
    crowd = turbo_over_relax(turbo, 5.0, relax, backlog=8)
    assert [one.at_s for one in crowd if one.tier is Tier.TURBO] == [5.0, 10.0, 15.0]
    assert sum(one.at_s == 0.0 for one in crowd) == 8
    assert [one.number for one in crowd] == list(range(23))


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_percentiles_are_those_of_the_inclusive_method(count: int) -> None:
    chance = random.Random(count)
    values = [chance.random() for _ in range(count)]
    assert percentile(values, 0) == min(values)
    assert percentile(values, 100) == max(values)
    if count > 1:
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        for percent in (1, 50, 95, 99):
            assert percentile(values, percent) == pytest.approx(cuts[percent - 1])


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_summary_counts_each_tier_and_no_failure() -> None:
    requests = workload(10, 0.0, seed=1)
    outcomes = [outcome(one, 2.0, ended_s=1.0 + one.number) for one in requests[:-1]]
    found = summary("x", [*outcomes, outcome(requests[-1], None, ended_s=99.0)])
    assert found["images_s"] == pytest.approx(9 / 9.0)
    assert found["failed"] == 1
    assert found["failures"] == ["broken"]
    assert found["tiers"]["all"]["n"] == 9
    assert sum(found["tiers"][tier]["n"] for tier in Tier) == 9
    assert found["tiers"]["all"]["latency_s"] == {"p50": 2.0, "p95": 2.0, "p99": 2.0}


def test_a_summary_of_failures_alone_is_a_summary() -> None:
    found = summary("x", [outcome(one, None) for one in workload(3, 0.0, seed=1)])
    assert found["images_s"] == 0.0
    assert found["tiers"] == {}


@pytest.mark.parametrize(
    ("p95_s", "images_s", "turbo_s", "verdicts"),
    [
        (1.0, 1.6, 1.2, ["met", "met", "met", "met"]),
        (1.1, 1.4, 1.4, ["missed", "missed", "missed", "met"]),
        (1.0, 0.9, 1.2, ["met", "met", "missed", "missed"]),
    ],
)
def test_aims_are_told_as_measured(
    p95_s: float, images_s: float, turbo_s: float, verdicts: list[str]
) -> None:
    systems = [
        a_system(SERIAL, 4.0, 1.0, 9.0),
        a_system(OURS, p95_s, images_s, turbo_s),
        a_system("ray", 2.0, 1.0, 9.0),
    ]
    model = {"model": "m", "about": "", "is_embedded": True, "systems": systems}
    rows = aims({"models": [model]})
    assert [row[-1] for row in rows] == verdicts
    assert rows[0][2] == f"{p95_s / 2:.2f} of ray's; 0.50 with nobody else there"


def test_the_page_shows_the_aims_first_and_every_table() -> None:
    systems = [a_system(SERIAL, 4.0, 1.0), a_system(OURS, 1.0, 2.0)]
    left_out = {"system": "ray", "title": "ray", "left_out": "it | broke", "runs": []}
    model = {
        "model": "m",
        "about": "small",
        "is_embedded": True,
        "systems": [*systems, left_out],
    }
    page = markdown({"machine": {"cores": 2}, "models": [model]}, plot="engine.svg")
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Aims",
        "## m: small",
        "## m: sparse turbo while relax saturates",
    ]
    assert "it \\| broke" in page
    widths = {line.count(" | ") for line in page.split("## ")[2].splitlines() if "ray" not in line}
    assert len(widths - {0}) == 1


def test_loads_must_be_numbers_above_zero() -> None:
    for loads in ("a", "0.5,,1", "0.5,0", "-1"):
        with pytest.raises(InvalidInput):
            a_plan(loads=loads)


def test_the_serial_system_is_always_there_and_first() -> None:
    assert [system.name for system in choose("ours", SYSTEMS)] == [SERIAL, OURS]
    with pytest.raises(InvalidInput):
        choose("ours,nobody", SYSTEMS)


def a_plan(**changes: Any) -> Any:
    options = {"requests": 4, "seconds": 6.0, "loads": "0.95", "turbo": 1, "seed": 1}
    return plan_of(**{**options, "mix": "mixed", "loras": 0, "quick": True, **changes})


@pytest.mark.timeout(600)
def test_ours_and_serial_are_compared_from_end_to_end() -> None:
    registry = ModelRegistry([embedded_folder()], embedded_folder() / "none")
    registry.scan()
    result = measure([(registry.get("vignette"), a_plan())], choose("ours", SYSTEMS))
    [model] = result["models"]
    assert model["capacity_images_s"] > 0
    for system in model["systems"]:
        assert "left_out" not in system, system
        assert [run["run"] for run in system["runs"]] == [SATURATED, "load 0.95", TURBO_OVER_RELAX]
        assert all(run["failed"] == 0 for run in system["runs"])
        assert system["runs"][0]["tiers"]["all"]["n"] == 4
        assert max(system["pictures_differ_by"]) < 0.1  # the same pictures, drawn twice
    *_, (title, _, rows) = tables(result)
    assert title == AIMS
    assert {row[-1] for row in rows} <= {"met", "missed"}
