"""The palette: what each time of day, weather, season and colour word looks like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.scenes import Scene

Colour = NDArray[np.float32]  # (3,), 0..1, sRGB


def rgb(red: float, green: float, blue: float) -> Colour:
    """A colour from 0..255 values."""
    return np.array([red, green, blue], np.float32) / np.float32(255)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """``share`` of the second colour in the first."""
    return first * np.float32(1 - share) + second * np.float32(share)


@dataclass(frozen=True)
class Daylight:
    """One time of day: a sky from zenith to horizon, and what its light does to things."""

    zenith: Colour
    middle: Colour
    horizon: Colour
    land: Colour  # multiplies the land
    things: Colour  # multiplies objects: milder, so that a colour keeps its name
    cloud_lit: Colour
    cloud_shade: Colour
    haze: Colour  # of distance and of fog
    sun: Colour
    window: Colour  # what shines from windows


DAYLIGHT = {
    "dawn": Daylight(
        rgb(126, 146, 204), rgb(238, 186, 204), rgb(255, 228, 188),
        rgb(255, 228, 226), rgb(255, 244, 240),
        rgb(255, 232, 222), rgb(206, 164, 190), rgb(244, 214, 208),
        rgb(255, 240, 200), rgb(255, 214, 140),
    ),
    "day": Daylight(
        rgb(64, 146, 222), rgb(128, 192, 240), rgb(212, 236, 246),
        rgb(255, 255, 252), rgb(255, 255, 255),
        rgb(255, 255, 255), rgb(186, 206, 224), rgb(206, 226, 236),
        rgb(255, 246, 190), rgb(96, 130, 160),
    ),
    "sunset": Daylight(
        rgb(62, 46, 116), rgb(206, 82, 112), rgb(255, 172, 74),
        rgb(246, 182, 152), rgb(255, 236, 226),
        rgb(255, 176, 130), rgb(130, 66, 112), rgb(226, 138, 112),
        rgb(255, 232, 150), rgb(255, 206, 110),
    ),
    "night": Daylight(
        rgb(10, 16, 48), rgb(24, 40, 92), rgb(62, 86, 140),
        rgb(104, 124, 184), rgb(216, 216, 236),
        rgb(92, 108, 156), rgb(36, 48, 92), rgb(66, 84, 128),
        rgb(250, 244, 214), rgb(255, 210, 110),
    ),
}  # fmt: skip

STORM = {  # what a rainy sky is mixed with
    "dawn": rgb(136, 128, 148),
    "day": rgb(122, 138, 152),
    "sunset": rgb(112, 70, 92),
    "night": rgb(20, 26, 46),
}
SNOW_SKY = {
    "dawn": rgb(216, 200, 216),
    "day": rgb(200, 214, 228),
    "sunset": rgb(196, 136, 150),
    "night": rgb(48, 60, 98),
}


@dataclass(frozen=True)
class Growth:
    """One season: the ground near and far, and what grows on it."""

    near: Colour
    far: Colour
    shade: Colour
    leaf: Colour
    leaf_lit: Colour
    speck: Colour  # flowers, fallen leaves, glints of snow


GROWTH = {
    "spring": Growth(
        rgb(152, 208, 92), rgb(126, 190, 122), rgb(84, 152, 78),
        rgb(240, 158, 190), rgb(255, 206, 222), rgb(255, 240, 160),
    ),
    "summer": Growth(
        rgb(98, 168, 62), rgb(86, 150, 92), rgb(42, 106, 52),
        rgb(44, 118, 58), rgb(96, 170, 72), rgb(206, 226, 96),
    ),
    "autumn": Growth(
        rgb(222, 164, 66), rgb(202, 136, 76), rgb(150, 88, 44),
        rgb(196, 78, 34), rgb(242, 146, 48), rgb(214, 70, 36),
    ),
    "winter": Growth(
        rgb(244, 248, 254), rgb(214, 226, 242), rgb(168, 190, 220),
        rgb(150, 176, 196), rgb(250, 252, 255), rgb(255, 255, 255),
    ),
}  # fmt: skip

PAINT = {
    "red": rgb(214, 46, 44),
    "orange": rgb(244, 134, 28),
    "yellow": rgb(250, 212, 54),
    "green": rgb(44, 160, 84),
    "blue": rgb(42, 104, 212),
    "purple": rgb(130, 66, 184),
    "pink": rgb(248, 138, 182),
    "white": rgb(246, 244, 240),
}
DUNE_NEAR, DUNE_FAR, DUNE_SHADE = rgb(240, 196, 120), rgb(226, 178, 124), rgb(190, 130, 82)
ROCK, ROCK_LIT, SNOW_CAP = rgb(98, 104, 126), rgb(154, 156, 168), rgb(246, 248, 252)
SEA = {
    "dawn": rgb(120, 150, 190),
    "day": rgb(32, 118, 176),
    "sunset": rgb(86, 60, 120),
    "night": rgb(14, 28, 66),
}
WOOD, DARK_WOOD, CREAM, SLATE = (
    rgb(150, 98, 58),
    rgb(92, 58, 40),
    rgb(250, 238, 208),
    rgb(70, 76, 96),
)


def sky_colours(scene: Scene) -> tuple[Colour, Colour, Colour]:
    """Zenith, middle and horizon of the sky after the weather had its say."""
    light = DAYLIGHT[scene.time]
    colours = (light.zenith, light.middle, light.horizon)
    veil, share = {
        "clear": (light.haze, 0.0),
        "cloudy": (light.cloud_shade, 0.28),
        "foggy": (light.haze, 0.62),
        "rainy": (STORM[scene.time], 0.72),
        "snowing": (SNOW_SKY[scene.time], 0.68),
    }[scene.weather]
    zenith, middle, horizon = (mix(colour, veil, share) for colour in colours)
    return zenith, middle, horizon


def land_light(scene: Scene) -> Colour:
    """What multiplies the land's colours under this sky."""
    light = DAYLIGHT[scene.time].land
    dim = {"clear": 1.0, "cloudy": 0.92, "foggy": 0.97, "rainy": 0.82, "snowing": 0.95}
    return light * np.float32(dim[scene.weather])
