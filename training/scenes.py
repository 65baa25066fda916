"""The nouns of a scene: what can be in a picture, and which combinations are allowed.

Everything else in this folder (the renderer, the captions, the trainers, the classifier) takes
its words and its order of classes from here. Pure: a scene is made from a ``random.Random`` and
says nothing about pixels.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, field

TIMES = ("dawn", "day", "sunset", "night")
WEATHERS = ("clear", "cloudy", "foggy", "rainy", "snowing")
SEASONS = ("spring", "summer", "autumn", "winter")
TERRAINS = ("hills", "mountains", "desert", "forest", "sea")
LIGHTS = ("none", "sun", "moon", "stars", "aurora", "rainbow")
OBJECTS = ("cottage", "lighthouse", "windmill", "castle", "tent", "balloon", "sailboat")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
PLACES = ("left", "centre", "right")

# Which lights a sky can carry at a time of day. A closed sky (fog, rain, snow) hides the small
# ones, so that a picture always shows what its caption says.
LIGHTS_AT = {
    "dawn": ("none", "sun"),
    "day": ("none", "sun", "rainbow"),
    "sunset": ("none", "sun"),
    "night": ("none", "moon", "stars", "aurora"),
}
LIGHTS_IN = {
    "clear": LIGHTS,
    "cloudy": ("none", "sun", "moon", "rainbow"),
    "foggy": ("none", "sun", "moon"),
    "rainy": ("none", "rainbow"),
    "snowing": ("none", "moon"),
}
# How often a choice comes where it is allowed (2 unless named): rare lights need a lift, since few
# skies can carry them.
WEIGHTS = {"clear": 5, "cloudy": 3, "none": 1, "stars": 6, "aurora": 6, "rainbow": 3}
# A desert has one look all year, so it carries no season but summer.
SEASONS_OF = {"desert": ("summer",)}
WEATHERS_OF = {"desert": ("clear", "cloudy", "foggy")}


@dataclass(frozen=True)
class Thing:
    """One object with its colour and its place (a third of the picture's width)."""

    kind: str  # of OBJECTS
    colour: str  # of COLOURS
    place: str  # of PLACES


@dataclass(frozen=True)
class Scene:
    """All that a caption can say of a picture. ``seed`` fixes everything it does not say."""

    time: str
    weather: str
    season: str
    terrain: str
    light: str
    things: tuple[Thing, ...] = field(default=())  # one or two, of different kinds and places
    seed: int = 0  # shapes of hills, clouds, sizes: the renderer's own choices

    @property
    def combination(self) -> tuple[str, ...]:
        """What makes two scenes the same combination: all but the seed, order of things aside."""
        things = sorted(f"{t.colour} {t.kind} {t.place}" for t in self.things)
        return (self.time, self.weather, self.season, self.terrain, self.light, *things)


def sample_scene(rng: random.Random) -> Scene:
    """Draw an allowed scene, by ``WEIGHTS`` where choices are not equally likely."""
    terrain = rng.choice(TERRAINS)
    time = rng.choice(TIMES)
    weathers = WEATHERS_OF.get(terrain, WEATHERS)
    weather = rng.choices(weathers, [WEIGHTS.get(weather, 2) for weather in weathers])[0]
    season = rng.choice(SEASONS_OF.get(terrain, SEASONS))
    if weather == "snowing":
        season = "winter"
    lights = [light for light in LIGHTS_AT[time] if light in LIGHTS_IN[weather]]
    light = rng.choices(lights, [WEIGHTS.get(light, 2) for light in lights])[0]
    kinds = [k for k in OBJECTS if k != "sailboat" or terrain == "sea"]
    if terrain == "sea" and rng.random() < 0.4:
        chosen = ["sailboat"]
        if rng.random() < 0.5:
            chosen.append(rng.choice(kinds[:-1]))
    else:
        chosen = rng.sample(kinds, 1 if rng.random() < 0.5 else 2)
    places = rng.sample(PLACES, len(chosen))
    things = tuple(
        Thing(kind, rng.choice(COLOURS), place) for kind, place in zip(chosen, places, strict=True)
    )
    return Scene(time, weather, season, terrain, light, things, rng.getrandbits(32))


def is_held_out(scene: Scene) -> bool:
    """True for the tenth of all combinations that no trainer may see (they are for evaluation).

    Decided by a hash of the combination that is stable across processes and versions.
    """
    return zlib.crc32("|".join(scene.combination).encode()) % 10 == 0
