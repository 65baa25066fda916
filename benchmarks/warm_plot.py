"""Warm hits and waits by room, a column for each traffic, as an SVG: no script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

_KEEPERS = {  # name: colour, and how its line is dashed
    "ours": ("#c8501e", ""),
    "optimum": ("#24292f", "5 4"),
    "gdsf": ("#0b6e8a", ""),
    "lfu": ("#7a5ea8", ""),
    "lru": ("#7d8590", ""),
}
_WIDTH, _HEIGHT, _LEFT, _BETWEEN = 300, 170, 58, 62
_HEAD, _TITLE, _FOOT = 46, 26, 40
_WAITS_S = {0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3_600: "1 h"}
_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}"
    ".soft{fill:#57606a;font-size:11px}.title{font-weight:600}.grid{stroke:#d8dee4}"
    "polyline{fill:none;stroke-linejoin:round}"
)


def draw(found: Sequence[Mapping[str, Any]]) -> str:
    """The plot of what ``benchmarks.warm`` measured."""
    titles = list(dict.fromkeys(one["title"] for one in found))
    width = _LEFT + len(titles) * (_WIDTH + _BETWEEN)
    height = _HEAD + 2 * (_TITLE + _HEIGHT + _FOOT)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>Warm hits and waits by room for models</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_legend(),
    ]
    for at, title in enumerate(titles):
        mine = [one for one in found if one["title"] == title]
        left, top = _LEFT + at * (_WIDTH + _BETWEEN), _HEAD
        rooms = [one["room"] for one in mine]
        hits = {name: [one["runs"][name]["hits"] for one in mine] for name in _KEEPERS}
        waits = {name: [one["runs"][name]["wait_s"]["p95"] for one in mine] for name in _KEEPERS}
        shares = {share / 100: f"{share} %" for share in range(0, 101, 20)}
        parts += _panel(f"{title}: warm hits", (left, top), rooms, hits, (shares, lambda it: it))
        top += _TITLE + _HEIGHT + _FOOT
        said = f"{title}: P95 of the wait"
        parts += _panel(said, (left, top), rooms, waits, (_ticks(waits), _log))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(values: Mapping[str, list[float]]) -> dict[float, str]:
    """Those of the waits' axis that hold all values, and those between."""
    every = [value for series in values.values() for value in series]
    low = max((tick for tick in _WAITS_S if tick <= min(every)), default=min(_WAITS_S))
    high = min((tick for tick in _WAITS_S if tick >= max(every)), default=max(_WAITS_S))
    return {tick: name for tick, name in _WAITS_S.items() if low <= tick <= high}


def _log(value: float) -> float:
    return math.log10(max(value, min(_WAITS_S)))


def _panel(
    title: str,
    at: tuple[float, float],
    rooms: Sequence[int],
    series: Mapping[str, list[float]],
    axis: tuple[Mapping[float, str], Callable[[float], float]],
) -> list[str]:
    (left, top), (ticks, scale) = at, axis
    low, high = scale(min(ticks)), scale(max(ticks))
    last = top + _TITLE + _HEIGHT

    def x(index: int) -> float:
        return left + 14 + index * (_WIDTH - 28) / max(1, len(rooms) - 1)

    def y(value: float) -> float:
        return last - (scale(value) - low) / ((high - low) or 1.0) * _HEIGHT

    parts = [_text(title, left, top + 14, "title")]
    for tick, name in ticks.items():
        line = f'x1="{left}" x2="{left + _WIDTH}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"'
        parts.append(f'<line class="grid" {line}/>')
        parts.append(_text(name, left - 8, y(tick) + 4, "soft", "end"))
    for index, room in enumerate(rooms):
        parts.append(_text(str(room), x(index), last + 15, "soft", "middle"))
    parts.append(_text("room for so many models", left + _WIDTH / 2, last + 31, "soft", "middle"))
    for name in reversed(_KEEPERS):  # ours on top
        colour, dashes = _KEEPERS[name]
        points = [(x(index), y(value)) for index, value in enumerate(series[name])]
        joined = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
        parts.append(f'<polyline {_stroke(name, colour, dashes)} points="{joined}"/>')
        parts += [
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="{3.4 if name == "ours" else 2.4}" '
            f'fill="{colour}"/>'
            for across, down in points
        ]
    return parts


def _legend() -> list[str]:
    parts, left = [], _LEFT
    for name, (colour, dashes) in _KEEPERS.items():
        line = f'x1="{left}" x2="{left + 24}" y1="20" y2="20"'
        parts.append(f"<line {_stroke(name, colour, dashes)} {line}/>")
        said = {"optimum": "clairvoyant optimum", "ours": "ours"}.get(name, name.upper())
        parts.append(_text(said, left + 31, 24))
        left += 175 if name == "optimum" else 85
    return parts


def _stroke(name: str, colour: str, dashes: str) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'stroke="{colour}" stroke-width="{2.6 if name == "ours" else 1.5}"{dashed}'


def _text(text: str, x: float, y: float, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
