"""What all checks have in common, and what an answer of one has to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import OperatorError
from calotype.core.picture_checks import CheckUse

Picture = NDArray[np.uint8]  # height x width x 3, RGB
Scores = Mapping[str, float]  # by label


class CheckBroken(OperatorError):
    """A check can't be loaded, or its answer is none: its pictures aren't judged."""

    kind = "check-broken"
    title = "A picture check can't run"


class Check(Protocol):
    """One loaded check."""

    def scores(self, given: Sequence[Any]) -> Sequence[Scores]:
        """The scores of each picture, 0..1 by label; one network pass for all of them if it can.

        ``given``: Pictures, or the prompts they were asked by if its kind reads.
        """


def checked(use: CheckUse, answers: Sequence[Scores], count: int) -> list[dict[str, float]]:
    """The answers, if there is a whole one for each of ``count`` pictures; else CheckBroken.

    Whole: every label that the check has to score, no other, each a number from 0 to 1.
    """
    if len(answers) != count:
        raise CheckBroken(f"{use.name} answered {len(answers)} times of {count} pictures")
    for answer in answers:
        if set(answer) != set(use.labels):
            got = ", ".join(sorted(answer)) or "nothing"
            raise CheckBroken(f"{use.name} scored {got}, not {', '.join(sorted(use.labels))}")
        for label, score in answer.items():
            if not (math.isfinite(score) and 0.0 <= score <= 1.0):
                raise CheckBroken(f"{use.name} scored {label} with {score}")
    names = {label: use.score_name(label) for label in use.labels}
    return [{names[label]: float(answer[label]) for label in names} for answer in answers]


def check_labels(use: CheckUse, labels: Sequence[str]) -> None:
    """Refuse a network whose own labels aren't the ones that it has to score."""
    if sorted(labels) != sorted(use.labels):
        raise CheckBroken(
            f"{use.name} has the labels {', '.join(labels)}; {', '.join(use.labels)} are mapped",
            field=f"checks.{use.name}.categories",
            limit=list(labels),
        )


def check_weights(folder: Path) -> None:
    """Refuse weights that aren't safetensors: others can bring code."""
    if not any(folder.glob("*.safetensors")):
        raise CheckBroken(f"{folder} has no weights in safetensors", field="path")
