"""What ``calotype bench engine`` makes of the outcomes: percentiles, tables, and the aims.

Pure. A result is JSON: {"machine": ..., "plan": ..., "models": [{"model", "systems": [{"system",
"title", "turbo_alone": run, "runs": [run, ...]}]}]}; a run is what ``summary`` returns, with its
name: "saturated", "load 0.95", "turbo over relax". Systems come in the order they were measured,
the serial one first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from calotype.cli.bench_drive import Outcome
from calotype.core.nouns import Tier

SATURATED, TURBO_OVER_RELAX = "saturated", "turbo over relax"
AIMS = "Aims"  # title of the last table
OURS, SERIAL = "ours", "serial"
PERCENTILES = (50, 95, 99)
P95_SHARE_MAX = 0.5  # of the best peer's, at AIM_LOAD
TURBO_RATIO_MAX = 1.3  # turbo P99 among relax, to that alone
SPEEDUP_MIN, SPEEDUP_ANYWHERE_MIN = 1.5, 0.97  # images/s to serial's: embedded saturated, all
AIM_LOAD = 0.95

Table = tuple[str, Sequence[str], list[list[str]]]  # title, column titles, rows


def load_name(load: float) -> str:
    """The name of a run at this share of the serial system's capacity."""
    return f"load {load:g}"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` (0..100) of the values don't exceed, interpolated linearly.

    That is Hyndman and Fan's (1996) seventh way, numpy's default. Raises ValueError without values.
    """
    if not values:
        raise ValueError("no values, no percentile")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One run as JSON: images/s, failures, and for all and each tier the percentiles in seconds.

    images/s counts from the beginning of the run to the last picture. A failure counts as failed
    and in nothing else.
    """
    done = [one for one in outcomes if one.latency_s is not None]
    failed = [one for one in outcomes if one.latency_s is None]
    tiers = {"all": done} | {
        tier: [one for one in done if one.request.tier is tier] for tier in Tier
    }
    return {
        "run": name,
        "images_s": len(done) / max(one.ended_s for one in done) if done else 0.0,
        "failed": len(failed),
        "failures": sorted({one.failure for one in failed})[:3],
        "tiers": {
            tier: {
                "n": len(those),
                "latency_s": _percentiles([one.latency_s for one in those]),
                "first_step_s": _percentiles([one.first_step_s for one in those]),
            }
            for tier, those in tiers.items()
            if those
        },
    }


def tables(result: dict[str, Any]) -> list[Table]:
    """All that was measured, for people: for each model its runs, its tiers and turbo; the aims."""
    made: list[Table] = []
    for model in result["models"]:
        made += [_runs(model), _tiers(model), _turbo(model)]
    made.append((AIMS, ("model", "aim", "measured", ""), aims(result)))
    return [table for table in made if table[2]]


def aims(result: dict[str, Any]) -> list[list[str]]:
    """Each aim with its figure, as measured: model, aim, figure, "met" or "missed"."""
    rows: list[list[str]] = []
    for model in result["models"]:
        ours = next((one for one in model["systems"] if one["system"] == OURS), None)
        if ours is None:
            continue
        peers = [one for one in model["systems"] if one is not ours]
        rows += _p95_aim(model, ours, peers)
        rows += _turbo_aim(model, ours)
        rows += _speed_aims(model, ours, peers)
    return rows


def _p95_aim(model: Any, ours: Any, peers: Sequence[Any]) -> list[list[str]]:
    mine = _run(ours, load_name(AIM_LOAD))
    theirs = {one["title"]: _run(one, load_name(AIM_LOAD)) for one in peers}
    p95s = {title: _p(run, "all", "latency_s", 95) for title, run in theirs.items() if run}
    if mine is None or not p95s:
        return []
    best = min(p95s, key=lambda title: p95s[title])
    share = _p(mine, "all", "latency_s", 95) / p95s[best]
    aim = f"P95 at load {AIM_LOAD} at most {P95_SHARE_MAX} of the best peer's"
    said = f"{share:.2f} of {best}'s"
    if alone := ours.get("turbo_alone"):  # no line and no neighbours: nothing can be below it
        floor = _p(alone, Tier.TURBO, "latency_s", 95) / _p(theirs[best], "all", "latency_s", 95)
        said += f"; {floor:.2f} with nobody else there"
    return [[model["model"], aim, said, _met(share <= P95_SHARE_MAX)]]


def _turbo_aim(model: Any, ours: Any) -> list[list[str]]:
    ratio = turbo_ratio(ours)
    if ratio is None:
        return []
    aim = f"turbo P99 while relax saturates at most {TURBO_RATIO_MAX} x unloaded"
    return [[model["model"], aim, f"{ratio:.2f} x", _met(ratio <= TURBO_RATIO_MAX)]]


def _speed_aims(model: Any, ours: Any, peers: Sequence[Any]) -> list[list[str]]:
    serial = next(one for one in peers if one["system"] == SERIAL)
    ratios = {}
    for run in ours["runs"]:
        other = _run(serial, run["run"])
        if other is not None and run["run"] != TURBO_OVER_RELAX and other["images_s"]:
            ratios[run["run"]] = run["images_s"] / other["images_s"]
    rows = []
    if model["is_embedded"] and SATURATED in ratios:
        speedup = ratios[SATURATED]
        aim = f"images/s at least {SPEEDUP_MIN} x serial, saturated"
        rows.append([model["model"], aim, f"{speedup:.2f} x", _met(speedup >= SPEEDUP_MIN)])
    if ratios:
        worst = min(ratios, key=lambda name: ratios[name])
        aim = f"images/s nowhere below {SPEEDUP_ANYWHERE_MIN} x serial"
        met = _met(ratios[worst] >= SPEEDUP_ANYWHERE_MIN)
        rows.append([model["model"], aim, f"{ratios[worst]:.2f} x, {worst}", met])
    return rows


def turbo_ratio(system: dict[str, Any]) -> float | None:
    """Turbo's P99 latency while relax saturates, to that of the same requests alone."""
    crowded, alone = _run(system, TURBO_OVER_RELAX), system.get("turbo_alone")
    if crowded is None or not alone or Tier.TURBO not in crowded["tiers"]:
        return None
    if Tier.TURBO not in alone["tiers"]:
        return None
    return _p(crowded, Tier.TURBO, "latency_s", 99) / _p(alone, Tier.TURBO, "latency_s", 99)


def _runs(model: Any) -> Table:
    rows = []
    for name in _run_names(model):
        for system in model["systems"]:
            if name != TURBO_OVER_RELAX and (run := _run(system, name)) is not None:
                figures = run["tiers"].get("all")
                failed = str(run["failed"] or "")
                cells = [*_cells(figures, "latency_s"), *_cells(figures, "first_step_s")]
                rows.append([name, system["title"], f"{run['images_s']:.2f}", *cells, failed])
    rows += [
        ["left out", system["title"], *["-"] * (1 + len(_TITLES)), system["left_out"]]
        for system in model["systems"]
        if system.get("left_out")
    ]
    titles = ("run", "system", "images/s", *_TITLES, "failed")
    return (f"{model['model']}: {model['about']}", titles, rows)


def _tiers(model: Any) -> Table:
    rows = []
    for name in _run_names(model):
        for system in model["systems"]:
            run = _run(system, name)
            if run is None or name in {SATURATED, TURBO_OVER_RELAX}:
                continue
            for tier in Tier:
                if figures := run["tiers"].get(tier):
                    cells = [*_cells(figures, "latency_s"), *_cells(figures, "first_step_s")]
                    rows.append([name, system["title"], tier.value, str(figures["n"]), *cells])
    return (f"{model['model']}, by tier", ("run", "system", "tier", "n", *_TITLES), rows)


def _turbo(model: Any) -> Table:
    rows = []
    for system in model["systems"]:
        run, ratio = _run(system, TURBO_OVER_RELAX), turbo_ratio(system)
        if run is not None and ratio is not None:
            alone = system["turbo_alone"]["tiers"][Tier.TURBO]
            crowded = run["tiers"][Tier.TURBO]
            cells = [_s(figures["latency_s"], 99) for figures in (alone, crowded)]
            first = _s(crowded["first_step_s"], 99)
            rows.append([system["title"], str(crowded["n"]), *cells, f"{ratio:.2f} x", first])
    titles = ("system", "n", "P99 alone, s", "P99 among relax, s", "ratio", "first step P99, s")
    return (f"{model['model']}: sparse turbo while relax saturates", titles, rows)


_TITLES = (
    *(f"P{percent}, s" for percent in PERCENTILES),
    *(f"first step P{percent}, s" for percent in PERCENTILES),
)


def _run_names(model: Any) -> list[str]:
    return list(dict.fromkeys(run["run"] for system in model["systems"] for run in system["runs"]))


def _run(system: Any, name: str) -> Any:
    return next((run for run in system["runs"] if run["run"] == name), None)


def _percentiles(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {f"p{percent}": percentile(known, percent) for percent in PERCENTILES}


def _p(run: Any, tier: str, what: str, percent: int) -> float:
    figures = run["tiers"].get(tier)  # none if all failed
    return float(figures[what][f"p{percent}"]) if figures else math.inf


def _cells(figures: Any, what: str) -> list[str]:
    return [_s(figures[what] if figures else None, percent) for percent in PERCENTILES]


def _s(percentiles: Any, percent: int) -> str:
    return f"{percentiles[f'p{percent}']:.2f}" if percentiles else "-"


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"
