"""A picture laid on one tile: its small differences, folded, and the tile's whitened spectrum.

In this a mark's waves stand alone: where the picture was cut is only a shift, half a turn only the
conjugate, and what the picture shows is evened out. It knows no key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from calotype.provenance.carriers import SIDE, Complexes
from calotype.provenance.geometry import Guess
from calotype.provenance.watermark import Grey, Pixels

SIDE_MAX = 2_048  # pixels: of a larger picture, its middle is looked at
_AROUND = 7  # pixels: what differs from the mean of this square is a small difference
_CLIP = 1.0  # in local standard deviations, so that edges don't drown the rest


def levels_of(pixels: Pixels) -> dict[int, Grey]:
    """A picture's small differences (brightness; RGB or grey), as it is (1) and halved (2)."""
    grey = middle(np.asarray(Image.fromarray(pixels).convert("L"), np.float32), SIDE_MAX)
    levels = {1: _residual(grey)}
    if min(grey.shape) >= 64:
        levels[2] = _residual(np.asarray(Image.fromarray(grey).reduce(2), np.float32))
    return levels


def positions(tile: Grey, scale: float = 1.0) -> Iterator[tuple[Guess, Complexes]]:
    """The tile's spectrum with each quarter turn and mirroring undone."""
    for quarter in (0, 1):
        for is_mirrored in (False, True):
            undone = np.rot90(tile, -quarter)
            undone = undone[:, ::-1] if is_mirrored else undone
            yield from both_ways(undone, Guess(90.0 * quarter, scale, is_mirrored))


def both_ways(tile: Grey, placed: Guess) -> tuple[tuple[Guess, Complexes], ...]:
    """The spectrum of the tile, and of the tile turned by half: but for a shift, its conjugate."""
    spectrum = _whitened(tile)
    half = replace(placed, turn=placed.turn + 180)
    return (placed, spectrum), (half, np.conj(spectrum))


def undone(levels: Mapping[int, Grey], guess: Guess) -> Grey:
    """The small differences as they were before they were mirrored, scaled and turned."""
    by = 2 if guess.scale >= 1.8 and 2 in levels else 1  # else fine noise would fold into the mark
    level, scale = levels[by], guess.scale / by
    height, width = level.shape
    turn = math.radians(guess.turn)
    cos, sin = math.cos(turn), math.sin(turn)
    tall = math.ceil((height * abs(cos) + width * abs(sin)) / scale)
    wide = math.ceil((width * abs(cos) + height * abs(sin)) / scale)
    mirror = -1.0 if guess.is_mirrored else 1.0
    # From a pixel of the result to one of the level: mirror, scale, turn, each about its middle.
    a, b = scale * cos * mirror, scale * sin
    d, e = -scale * sin * mirror, scale * cos
    c = width / 2 - a * wide / 2 - b * tall / 2
    f = height / 2 - d * wide / 2 - e * tall / 2
    picture = Image.fromarray(level).transform(
        (wide, tall), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC
    )
    return np.asarray(picture, np.float32)


def middle(grey: Grey, most: int) -> Grey:
    """The middle of it, ``most`` pixels each way."""
    height, width = grey.shape
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return grey[top : top + most, left : left + most]


def _residual(grey: Grey) -> Grey:
    """The small differences: brightness less its surroundings, in local standard deviations."""
    fine = grey - _mean_around(grey)
    deviation = np.sqrt(np.maximum(_mean_around(fine * fine), 0)) + 1.0
    return np.asarray(np.clip(fine / deviation, -_CLIP, _CLIP), np.float32)


def _mean_around(grey: Grey) -> Grey:
    """The mean of the square around each pixel."""
    before, after = _AROUND // 2 + 1, _AROUND // 2
    mean = grey
    for _ in range(2):  # down, then across
        sums = np.cumsum(np.pad(mean, ((before, after), (0, 0)), "reflect"), 0, np.float64)
        mean = ((sums[_AROUND:] - sums[:-_AROUND]) / _AROUND).astype(np.float32).T
    return mean


def folded(residual: Grey) -> Grey:
    """The sum of all tiles of the picture: SIDE x SIDE."""
    height, width = residual.shape
    down, across = -(-height // SIDE), -(-width // SIDE)
    whole = np.pad(residual, ((0, down * SIDE - height), (0, across * SIDE - width)))
    return np.asarray(whole.reshape(down, SIDE, across, SIDE).sum((0, 2)), np.float32)


def _whitened(tile: Grey) -> Complexes:
    """The tile's spectrum over the power around each of its frequencies."""
    spectrum = np.fft.fft2(tile)
    power = np.abs(spectrum) ** 2
    for axis in (0, 1):
        near = power + np.roll(power, 1, axis) + np.roll(power, -1, axis)
        power = near + np.roll(power, 2, axis) + np.roll(power, -2, axis)
    return np.asarray(spectrum / np.sqrt(power / 25 + 1e-9), np.complex64)
