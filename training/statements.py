"""What a caption says of its scene: the truth that the text encoders learn to read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training.scenes import LIGHTS, SEASONS, TERRAINS, TIMES, WEATHERS

UNSAID = "unsaid"
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "time": TIMES,
    "weather": WEATHERS,
    "season": SEASONS,
    "terrain": TERRAINS,
    "light": LIGHTS,
}


@dataclass(frozen=True)
class ThingSaid:
    """What a caption says of an object it names; each a class's name or ``UNSAID``."""

    colour: str
    place: str


@dataclass(frozen=True)
class Said:
    """What a caption says of its scene: a class's name of each attribute, or ``UNSAID``."""

    time: str
    weather: str
    season: str
    terrain: str
    light: str
    things: Mapping[str, ThingSaid]  # by kind; a kind that is not named is not a key
