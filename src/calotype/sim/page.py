"""The report as one HTML page: tables and plots, drawn here as SVG; no script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_COLOURS = ("#0b6e8a", "#c2571a", "#5b8c2a", "#8b3fa0", "#b8860b", "#a0305a")
_WIDTH, _HEIGHT = 680, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 96, 12, 34
_WAIT_S_MIN = 0.01  # waits below it are drawn as this: the axis is logarithmic

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 82rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884 }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left }
figure { display: inline-block; margin: .5rem 1rem .5rem 0; vertical-align: top }
figcaption { font-weight: 600 }
svg { max-width: 100%; height: auto } svg text { font-size: 11px; fill: currentColor }
svg .grid { stroke: #8884 } svg polyline { fill: none; stroke-width: 1.8 }
.scroll { overflow-x: auto }
"""

Line = tuple[str, Sequence[tuple[float, float]]]  # a name, and points


def page(report: Mapping[str, Any], plots: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of a report (as ``--json`` prints it) and the plots of its runs, by policy."""
    runs = report["runs"]
    tiers = [
        tier for tier in ("turbo", "fast", "relax") if any(tier in run["tiers"] for run in runs)
    ]
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Calotype simulation</title><style>{_STYLE}</style>",
        "<h1>Calotype simulation</h1>",
        f"<p>{escape(report['said'])}</p>",
        "<h2>Per tier</h2>",
        _table(*tier_table(report)),
        "<h2>Fleet</h2>",
        _table(*fleet_table(report)),
        _table(*machine_table(report)),
        *_etas(report),
        "<h2>Waits until the start</h2>",
        *(_waits(tier, plots) for tier in tiers),
        "<h2>Over time</h2>",
        *(_depth(policy, plots[policy]) for policy in plots),
        *(_engines(policy, plots[policy]) for policy in plots if _has_engines(plots[policy])),
        _asked(next(iter(plots.values()))),
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def tier_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: waits, latencies and objectives of every run and tier."""
    titles = ["policy", "tier", "jobs", "wait P50", "P95", "P99", "latency P50", "P95", "P99"]
    titles += ["objective", "attained", "Jain"]
    rows = []
    for run in report["runs"]:
        for tier, of in run["tiers"].items():
            times = [
                of[what][at] for what in ("wait_s", "latency_s") for at in ("p50", "p95", "p99")
            ]
            goal = f"{of['objective_s']:g} s" if of["objective_s"] else ""
            shares = (f"{of['attained']:.1%}", f"{of['jain']:.3f}")
            told = map(seconds, times)
            rows.append([run["policy"], tier, f"{of['jobs']:,}", *told, goal, *shares])
    return titles, rows


def fleet_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: what each run did to the machines, and what it cost."""
    titles = ["policy", "", "images", "failed", "warm hits", "LoRA hits", "in use", "GPU-hours"]
    titles += ["$ / 1,000 images", "Jain", "promoted", "retried", "took"]
    rows = [
        [
            run["policy"],
            "",
            f"{run['images']:,}",
            f"{run['failed'] + run['never_ran'] + sum(run['refused'].values()):,}",
            f"{run['warm_hit_rate']:.1%}",
            f"{run['lora_hit_rate']:.1%}",
            f"{run['utilisation']:.1%}",
            f"{run['gpu_hours']:,.0f}",
            f"{run['cost_per_1000_images']:,.2f}",
            f"{run['jain']:.3f}",
            f"{run['promoted']:,}",
            f"{run['retried']:,}",
            f"{run['makespan_s'] / 3600:,.1f} h",
        ]
        for run in report["runs"]
    ]
    return titles, rows


def machine_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: engines that came and went, what was lost with them, and their memory."""
    titles = [
        "policy",
        "",
        "engines, mean",
        "added",
        "given up",
        "lost",
        "work lost",
        "handed back",
    ]
    titles += ["loads", "loaded", "memory torn, mean", "most", "loads without a block"]
    rows = []
    for run in report["runs"]:
        engines, memory = run["engines"], run["fragmentation"]
        counts = [f"{engines[one]:,}" for one in ("added", "given_up", "lost")]
        loads = f"{sum(run['loads'].values()):,}", f"{run['loaded_gb']:,.0f} GB"
        torn = [f"{memory[one]:.0%}" for one in ("mean", "max")]
        rows.append(
            [
                run["policy"],
                "",
                f"{engines['mean']:,.1f}",
                *counts,
                seconds(engines["lost_device_s"]),
                f"{run['handed_back']:,}",
                *loads,
                *torn,
                f"{memory['loads_without_block']:,}",
            ]
        )
    return titles, rows


def eta_table(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: how the times that jobs were told came true; no rows if none was."""
    titles = ["policy", "tier", "jobs told", "done by P50", "done by P90"]
    titles += ["error of P50, median", "of what it took"]
    rows = []
    for run in report["runs"]:
        told = run.get("eta", {"told": 0, "tiers": {}})
        for tier, of in [*told["tiers"].items(), *([("all", told)] if told["told"] else [])]:
            shares = [f"{of[name]:.1%}" for name in ("done_by_p50", "done_by_p90")]
            errors = [seconds(of["error_s_median"]), f"{of['error_share_median']:.0%}"]
            rows.append([run["policy"], tier, f"{of['told']:,}", *shares, *errors])
    return titles, rows


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7_200 else f"{value / 3600:.1f} h"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(title)}" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) + "</tr>\n" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'


def _etas(report: Mapping[str, Any]) -> list[str]:
    titles, rows = eta_table(report)
    if not rows:
        return []
    said = "When they were admitted jobs were told when half, and nine of ten, such jobs are done."
    return ["<h2>Times that were told</h2>", f"<p>{said}</p>", _table(titles, rows)]


def _waits(tier: str, plots: Mapping[str, Mapping[str, Any]]) -> str:
    lines: list[Line] = []
    for policy, of in plots.items():
        waits = of["waits"].get(tier, [])
        points = [
            (max(wait, _WAIT_S_MIN), at / (len(waits) - 1) * 100) for at, wait in enumerate(waits)
        ]
        lines.append((policy, points))
    return _figure(f"{tier}: share of jobs that waited at most", lines, "seconds", "%", is_log=True)


def _depth(policy: str, of: Mapping[str, Any]) -> str:
    lines = [
        (name.removeprefix("waiting "), _over_time(series, of["slice_s"]))
        for name, series in of["series"].items()
        if name.startswith("waiting ")
    ]
    return _figure(f"{policy}: jobs waiting, at most", lines, "hours", "jobs")


def _has_engines(of: Mapping[str, Any]) -> bool:
    return any(name.startswith("engines ") for name in of["series"])


def _engines(policy: str, of: Mapping[str, Any]) -> str:
    lines = [
        (name.removeprefix("engines "), _over_time(series, of["slice_s"]))
        for name, series in of["series"].items()
        if name.startswith("engines ")
    ]
    return _figure(f"{policy}: engines that are paid for", lines, "hours", "engines")


def _asked(of: Mapping[str, Any]) -> str:
    series = [images / of["slice_s"] for images in of["series"].get("asked", [])]
    lines = [("asked", _over_time(series, of["slice_s"]))]
    return _figure("images asked for, a second", lines, "hours", "1/s")


def _over_time(series: Sequence[float], slice_s: float) -> list[tuple[float, float]]:
    last = max((at for at, value in enumerate(series) if value), default=0)
    return [((at + 0.5) * slice_s / 3600, value) for at, value in enumerate(series[: last + 1])]


def _figure(
    caption: str, lines: Sequence[Line], across: str, up: str, *, is_log: bool = False
) -> str:
    xs = [x for _, points in lines for x, _ in points] or [1.0]
    ys = [y for _, points in lines for _, y in points] or [1.0]
    x_ticks = _decades(min(xs), max(xs)) if is_log else _ticks(max(xs))
    y_ticks = _ticks(max(ys))
    scale_x = math.log10 if is_log else float
    low, high = scale_x(x_ticks[0]), scale_x(x_ticks[-1])

    def at_x(x: float) -> float:
        return _LEFT + (scale_x(x) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(y: float) -> float:
        return _HEIGHT - _BOTTOM - y / y_ticks[-1] * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">']
    for y in y_ticks:
        at = f"{at_y(y):.1f}"
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>'
        )
        parts.append(f'<text x="{_LEFT - 6}" y="{at}" dy="4" text-anchor="end">{y:,g}</text>')
    for x in x_ticks:
        at = f"{at_x(x):.1f}"
        parts.append(
            f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
        )
        parts.append(f'<text x="{at}" y="{_HEIGHT - 18}" text-anchor="middle">{x:,g}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{across}</text>')
    parts.append(f'<text x="4" y="{_TOP + 8}">{up}</text>')
    for number, (name, points) in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline stroke="{colour}" points="{path}"/>')
        below = _TOP + 14 + 15 * number
        parts.append(
            f'<text x="{_WIDTH - _RIGHT + 8}" y="{below}" style="fill: {colour}">'
            f"{escape(name)}</text>"
        )
    return f"<figure><figcaption>{escape(caption)}</figcaption>{''.join(parts)}</svg></figure>"


def _ticks(most: float) -> list[float]:
    """About five round numbers from 0 to at least the most."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * each for each in (1, 2, 2.5, 5, 10) if unit * each >= rough)
    return [step * at for at in range(math.ceil(most / step - 1e-9) + 1)]


def _decades(least: float, most: float) -> list[float]:
    first = math.floor(math.log10(least) + 1e-9)
    last = max(first + 1, math.ceil(math.log10(most) - 1e-9))
    return [10.0**at for at in range(first, last + 1)]
