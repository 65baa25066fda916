"""How well a probe does on pictures that it neither learnt from nor was calibrated by, by slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.core import limits
from calotype.safety.evaluate import tally
from calotype.safety.training.parts import Example
from calotype.safety.training.probe import Floats, Probe

_DARK, _BRIGHT = 85.0, 170.0  # mean luma: thirds of 0..255
_SMALL_PX, _LARGE_PX = 256, 768  # of the longer side
SLICES: Mapping[str, Callable[[Example], str]] = {
    "label": lambda each: each.of.label,
    "source": lambda each: each.of.source,
    "brightness": lambda each: _bucket(each.brightness, _DARK, _BRIGHT, "dark middling bright"),
    "size": lambda each: _bucket(each.side_px, _SMALL_PX, _LARGE_PX, "small middling large"),
    "tier": lambda each: each.of.tier or "not known",
}

Row = dict[str, Any]  # what is told of some pictures


def measured(
    examples: Sequence[Example], chances: Floats, probe: Probe, harmless: Sequence[str]
) -> dict[str, Any]:
    """Figures of all of these pictures, and of each slice; counts with Wilson's 95 % intervals.

    "right": the likeliest label is the picture's; "found": of bad pictures, past the threshold of
    their own label; "refused": of harmless ones, past any label's threshold.
    """
    past = np.stack(
        [chances[:, at] >= probe.thresholds.get(it, np.inf) for at, it in enumerate(probe.labels)],
        axis=1,
    )
    wanted = np.array([probe.labels.index(each.of.label) for each in examples])
    is_right: NDArray[np.bool_] = np.equal(chances.argmax(axis=1), wanted)
    is_harmless = np.isin([each.of.label for each in examples], list(harmless))

    def row(chosen: NDArray[np.bool_]) -> Row:
        bad, good = chosen & ~is_harmless, chosen & is_harmless
        own = past[np.arange(len(wanted)), wanted]
        return {
            "pictures": int(chosen.sum()),
            "right": _tally(is_right, chosen),
            "found": _tally(own, bad),
            "refused": _tally(np.asarray(past.any(axis=1)), good),
        }

    found: dict[str, Any] = {"all": row(np.ones(len(wanted), bool))}
    for name, key in SLICES.items():
        keys = np.array([key(each) for each in examples])
        found[name] = {str(value): row(keys == value) for value in np.unique(keys)}
    return found


def few(figures: Mapping[str, Any]) -> list[str]:
    """A warning for each figure that is of few pictures."""
    said = []
    for name in SLICES:
        for value, row in figures[name].items():
            if row["pictures"] < limits.TRAINING_FEW:
                said.append(
                    f"{name} {value}: {row['pictures']} pictures were measured on; fewer than "
                    f"{limits.TRAINING_FEW} say little"
                )
    return said


def doubted(figures: Mapping[str, Any], target: float) -> list[str]:
    """A warning where the aimed-at share of false positives is missed, or isn't shown."""
    refused = figures["all"]["refused"]
    if refused is None or refused["high"] <= target:
        return []
    share = refused["count"] / refused["of"]
    verb = "isn't met" if share > target else "isn't shown"
    said = (
        f"the aim of {target:.2%} false positives {verb}: {refused['count']} of {refused['of']} "
        f"harmless pictures are refused ({share:.2%}; {refused['low']:.2%} to "
        f"{refused['high']:.2%})"
    )
    return [said]


def _tally(hits: NDArray[np.bool_], of: NDArray[np.bool_]) -> dict[str, Any] | None:
    """None of no pictures."""
    return tally(int((hits & of).sum()), int(of.sum())) if of.any() else None


def _bucket(value: float, first: float, second: float, names: str) -> str:
    low, middle, high = names.split()
    return low if value < first else middle if value < second else high
