"""From which score on a check of prompts should refuse, told from what harmless prompts score.

A label's threshold is the lowest at which the share of harmless prompts that it refuses is shown to
be under a target: not the share itself, but the upper end of Wilson's 95 % interval of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from calotype.core.errors import InvalidInput
from calotype.safety.evaluate import interval

_DIGITS = 6  # of a threshold as it is told


@dataclass(frozen=True)
class Threshold:
    """Of one label."""

    label: str
    score: float | None  # from it on; None: harmless prompts score as high as it goes
    refused: int  # of the harmless prompts
    of: int
    high: float  # upper end of the interval of that share


def thresholds(
    scores: Sequence[Mapping[str, float]], labels: Collection[str], target: float
) -> list[Threshold]:
    """Of each label, from the scores (0..1, by label) of harmless prompts; ``target`` is 0..1.

    Raises InvalidInput for a target that can't be met by so few prompts, naming how many it takes.
    """
    check_target(len(scores), target)
    most = allowed(len(scores), target)
    return [_lowest(label, [each[label] for each in scores], most) for label in labels]


def check_target(count: int, target: float) -> None:
    """Refuse a share that is none, or that so many prompts can't show; raises InvalidInput."""
    if not 0.0 < target < 1.0:
        raise InvalidInput(
            "a share of harmless prompts is between 0 and 1", field="false_positives", limit=1.0
        )
    if interval(0, count)[1] >= target:
        raise InvalidInput(
            f"{count} harmless prompts can't show a share under {target:g}: it takes "
            f"{_needed(target):,} of which none is refused",
            field="harmless",
            limit=_needed(target),
        )


def allowed(count: int, target: float) -> int:
    """How many of so many harmless prompts may be refused, if a share can be shown at all."""
    refused = 0
    while refused < count and interval(refused + 1, count)[1] < target:
        refused += 1
    return refused


def _needed(target: float) -> int:
    """Prompts of which none is refused that show a share under the target, by Wilson."""
    return math.floor(1.96**2 * (1 - target) / target) + 1


def _lowest(label: str, scores: Sequence[float], most: int) -> Threshold:
    """Just above the score of the highest that has to pass."""
    ordered, of = sorted(scores, reverse=True), len(scores)
    step = 10.0**-_DIGITS
    score = 0.0 if most >= of else (math.floor(ordered[most] / step) + 1) * step
    score = round(score, _DIGITS)
    if score > 1.0:
        return Threshold(label, None, 0, of, interval(0, of)[1])
    refused = sum(each >= score for each in scores)
    return Threshold(label, score, refused, of, interval(refused, of)[1])
