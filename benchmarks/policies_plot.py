"""Waits by policy and tier, one panel for each traffic, as an SVG: no script, nothing fetched.

Each line goes from the median wait to the 95th percentile, where the dot is, in seconds on a
logarithmic axis that all panels share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_LANES = (  # a name, its colour, where its waits are, and whether its dots are filled
    ("turbo", "#c8501e", ("turbo", "wait_s"), True),
    ("fast", "#0b6e8a", ("fast", "wait_s"), True),
    ("relax", "#7d8590", ("relax", "wait_s"), True),
    ("relax, each tenant's mean", "#7d8590", ("relax", "tenant_wait_s"), False),
)
_TICKS_S = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3_600: "1 h", 36_000: "10 h"}
_LEAST_S, _MOST_S = 0.5, 50_000.0  # of the axis; shorter waits are drawn as the least
_LANE, _GAP = 11, 13  # pixels: between tiers of a policy, and more between policies
_NAMES, _PANEL, _BETWEEN = 92, 300, 36
_HEAD, _TITLE, _FOOT, _MARGIN = 44, 30, 26, 14

Panel = tuple[str, str, Sequence[Mapping[str, Any]]]  # a title, what it ran on, its runs

_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}"
    ".soft{fill:#57606a;font-size:11px;font-weight:400}.title{font-weight:600}.ours{font-weight:700}"
    ".grid{stroke:#d8dee4}.range{stroke-width:2.5;stroke-linecap:round}"
)


def draw(panels: Sequence[Panel]) -> str:
    """The plot, two panels in a row."""
    policies = [run["policy"] for run in panels[0][2]]
    body = len(policies) * (len(_LANES) * _LANE + _GAP)
    height = _TITLE + body + _FOOT
    rows = math.ceil(len(panels) / 2)
    width = _MARGIN * 2 + 2 * (_NAMES + _PANEL) + _BETWEEN
    whole = _HEAD + rows * height + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole}" role="img">',
        "<title>Waits until the start, by policy and tier</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{whole}" fill="#fff"/>',
        *_legend(),
    ]
    for at, panel in enumerate(panels):
        left = _MARGIN + at % 2 * (_NAMES + _PANEL + _BETWEEN) + _NAMES
        parts += _panel(panel, left, _HEAD + at // 2 * height, body)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend() -> list[str]:
    parts = [_text("Wait until the start: median to 95th percentile", _MARGIN, 26, "title")]
    left = _MARGIN + 340
    for name, colour, _, is_filled in _LANES:
        parts.append(_range(left, left + 24, 22, colour, is_filled=is_filled))
        parts.append(_text(name, left + 34, 26))
        left += 96
    return parts


def _panel(panel: Panel, left: float, top: float, body: float) -> list[str]:
    title, ran_on, runs = panel
    beside = f'<tspan class="soft" dx="8">{escape(ran_on)}</tspan>'
    parts = [f'<text class="title" x="{left}" y="{top + 14}">{escape(title)}{beside}</text>']
    first, last = top + _TITLE - 6, top + _TITLE + body - 4
    for tick_s, name in _TICKS_S.items():
        x = _x(left, tick_s)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{first:.1f}" y2="{last:.1f}"/>'
        )
        parts.append(_text(name, x, last + 14, "soft", "middle"))
    y = top + _TITLE + _GAP / 2
    for run in runs:
        middle = y + _LANE * (len(_LANES) - 1) / 2 + 4
        name = run["policy"]
        parts.append(_text(name, left - 10, middle, "ours" if name == "ours" else "", "end"))
        for _, colour, (tier, what), is_filled in _LANES:
            waits = run["tiers"][tier][what]
            begin, end = _x(left, waits["p50"]), _x(left, waits["p95"])
            parts.append(_range(begin, end, y, colour, is_filled=is_filled))
            y += _LANE
        y += _GAP
    return parts


def _range(begin: float, end: float, y: float, colour: str, *, is_filled: bool) -> str:
    return (
        f'<line class="range" stroke="{colour}" stroke-opacity=".45" '
        f'x1="{begin:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<circle cx="{end:.1f}" cy="{y:.1f}" r="3.4" fill="{colour if is_filled else "#fff"}" '
        f'stroke="{colour}" stroke-width="1.4"/>'
    )


def _x(left: float, wait_s: float) -> float:
    low, high = math.log10(_LEAST_S), math.log10(_MOST_S)
    at = math.log10(min(_MOST_S, max(_LEAST_S, wait_s)))
    return left + (at - low) / (high - low) * _PANEL


def _text(text: str, x: float, y: float, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
