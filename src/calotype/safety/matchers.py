"""Other ways than PDQ to tell known pictures: plug-ins, such as one's licence of PhotoDNA.

A plug-in is an entry point of the group ``calotype.picture_matchers``, in a package that an
operator installs: something that is called without arguments and gives a ``Matcher``. It runs in
the finishing processes, on every picture that is sent or made, beside PDQ. What it can't hash is
blocked as unjudgeable, never let through as unknown; what goes wrong in it holds the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import OperatorError
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.plugins import plugin

GROUP = "calotype.picture_matchers"


class Matcher(Protocol):
    """What a plug-in gives."""

    version: str  # of the method and its lists: it is part of every verdict's version

    def distance(self, pixels: NDArray[np.uint8]) -> float | None:
        """How far the nearest known picture is from this one, height x width x 3 RGB; from 0 on.

        Infinity where none is known at all; None of a picture that can't be hashed.
        """


@dataclass(frozen=True)
class MatcherUse:
    """A plug-in that every picture goes through; plain data, so that it can be sent."""

    name: str  # of its entry point
    distance_max: float  # up to which a picture is the known one
    is_severe: bool = True  # what it knows is abuse: a case, and a severe refusal


@dataclass(frozen=True)
class Loaded:
    """A plug-in, and from where on it matches."""

    use: MatcherUse
    matcher: Matcher

    def nearness(self, pixels: NDArray[np.uint8]) -> float | None:
        """0..1: how near a known picture is, 0 if none is near enough; None: it can't be hashed.

        Raises SafetyUnavailable for an answer that is none.
        """
        found = self.matcher.distance(pixels)
        if found is None:
            return None
        if not isinstance(found, float | int) or math.isnan(found) or found < 0:
            raise SafetyUnavailable(
                f"the matcher {self.use.name} said {found!r}", field=self.use.name
            )
        if found > self.use.distance_max:
            return 0.0
        return 1.0 - found / (2 * self.use.distance_max) if self.use.distance_max else 1.0


def load(uses: Sequence[MatcherUse]) -> list[Loaded]:
    """The plug-ins; raises OperatorError naming one that isn't installed or doesn't begin."""
    return [Loaded(use, _matcher(use)) for use in uses]


def _matcher(use: MatcherUse) -> Matcher:
    field = f"matchers.{use.name}"
    matcher = plugin(GROUP, use.name, field)
    version, distance = getattr(matcher, "version", None), getattr(matcher, "distance", None)
    if not isinstance(version, str) or not callable(distance):
        raise OperatorError(
            f"the picture matcher {use.name} has no version or no distance", field=field
        )
    return matcher  # type: ignore[no-any-return]
