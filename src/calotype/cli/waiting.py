"""What a job's ``eta`` says, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNITS = (  # for ranges that end below so many seconds: a unit, its seconds, its smallest step
    (10.0, "s", 1.0, 1.0),
    (120.0, "s", 1.0, 5.0),
    (7_200.0, "min", 60.0, 1.0),
    (float("inf"), "h", 3_600.0, 0.5),
)


def eta_text(eta: Mapping[str, Any]) -> str:
    """As in "about 20 to 35 s: 2 turbo jobs ahead"; the reason alone where no time can be told."""
    if eta["p50_s"] is None:
        return str(eta["reason"])
    return f"{span_text(eta['p50_s'], eta['p90_s'])}: {eta['reason']}"


def span_text(p50_s: float, p90_s: float) -> str:
    """As in "about 20 to 35 s" and "about 2 min": rounded as people would."""
    name, unit_s, step = next(it[1:] for it in _UNITS if p90_s < it[0])
    low, high = (max(step, round(each / unit_s / step) * step) for each in (p50_s, p90_s))
    return f"about {low:g} {name}" if low == high else f"about {low:g} to {high:g} {name}"
