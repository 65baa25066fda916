"""Finds a mark in a picture, and how sure that is.

First as if nothing but cutting, mirroring and quarter turns had happened: the picture's small
differences are folded onto one tile, and its spectrum compared with each key's pilot at all shifts.
If that says nothing, the likeliest turns and scales of ``geometry`` are undone and tried the same
way.

The threshold is not fitted to pictures. For a picture that has nothing to do with a key, each
comparison exceeds t with probability exp(-t**2 / 2) at most (``Carriers.find``). FALSE_MAX, what is
allowed in all, is divided by the number of comparisons that could be made, and t follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from calotype.provenance.carriers import SIDE, Carriers, Complexes, carriers
from calotype.provenance.geometry import Guess, guesses
from calotype.provenance.watermark import Grey, MarkKey, Pixels

FALSE_MAX = 1e-9  # probability that an unmarked picture is called marked, all keys together
SIDE_MAX = 2_048  # pixels: of a larger picture, its middle is looked at
SEARCH_MAX = 768  # pixels: the same, while turns and scales are tried
GUESSES = 24  # turns and scales that are tried
REFINED = 2  # of them, by smaller and smaller steps
ROUNDS = 4  # of such steps, each half of the one before
# Comparisons of the first look: eight positions, all shifts. Of the search, the same for each of
# 2**25 turns and scales: a grid has under 2**15, and 625 can be reached from each in four rounds.
DIRECT = 8 * SIDE * SIDE
SEARCHED = 2**25 * DIRECT
_AROUND = 7  # pixels: what differs from the mean of this square is a small difference
_CLIP = 1.0  # in local standard deviations, so that edges don't drown the rest


@dataclass(frozen=True)
class Mark:
    """A mark that was found."""

    key: str  # id of its key
    payload: int | None  # None: there is a mark, but too little is left of its payload
    statistic: float
    threshold: float
    false_max: float  # the probability that an unmarked picture gives such a statistic is below it
    mended: int  # symbols of the payload that had to be mended, of 12
    placed: Guess  # what was done to the picture since


@dataclass(frozen=True)
class _Found:
    statistic: float
    spectrum: Complexes
    shift: tuple[int, int]
    placed: Guess


def detect(pixels: Pixels, keys: Sequence[MarkKey], *, search: bool = True) -> Mark | None:
    """The mark of one of the keys, or None. ``search`` for turns and scales too.

    ``pixels``: height x width x 3, at least 32 each way, else nothing can be found.
    """
    if min(pixels.shape[:2]) < 32 or not keys:
        return None
    grey = _middle(np.asarray(Image.fromarray(pixels).convert("L"), np.float32), SIDE_MAX)
    residual = _residual(grey)
    for key, best in _best_direct(residual, keys):
        if best.statistic >= threshold(DIRECT, len(keys)):
            return _mark(key, best, DIRECT, len(keys))
    if not search:
        return None
    levels = {1: residual}
    if min(grey.shape) >= 64:
        half = Image.fromarray(grey).reduce(2)
        levels[2] = _residual(np.asarray(half, np.float32))
    for key in keys:
        best = _search(levels, carriers(key.secret))
        if best.statistic >= threshold(SEARCHED, len(keys)):
            return _mark(key, best, SEARCHED, len(keys))
    return None


def threshold(comparisons: int, keys: int) -> float:
    """What the statistic has to reach; half of FALSE_MAX goes to each of the two looks."""
    return math.sqrt(2 * math.log(2 * comparisons * keys / FALSE_MAX))


def _mark(key: MarkKey, found: _Found, comparisons: int, keys: int) -> Mark:
    read = carriers(key.secret).read(found.spectrum, found.shift)
    chance = min(1.0, comparisons * keys * math.exp(-(found.statistic**2) / 2))
    return Mark(
        key=key.id,
        payload=read.payload,
        statistic=found.statistic,
        threshold=threshold(comparisons, keys),
        false_max=chance,
        mended=read.mended,
        placed=found.placed,
    )


def _best_direct(residual: Grey, keys: Sequence[MarkKey]) -> Iterator[tuple[MarkKey, _Found]]:
    spectra = list(_positions(_folded(residual)))
    for key in keys:
        yield key, _best(carriers(key.secret), spectra)


def _best(waves: Carriers, spectra: Sequence[tuple[Guess, Complexes]]) -> _Found:
    found = []
    for placed, spectrum in spectra:
        statistic, shift = waves.find(spectrum)
        found.append(_Found(statistic, spectrum, shift, placed))
    return max(found, key=lambda each: each.statistic)


def _positions(tile: Grey) -> Iterator[tuple[Guess, Complexes]]:
    """The tile's spectrum with each quarter turn and mirroring undone."""
    for quarter in (0, 1):
        for is_mirrored in (False, True):
            undone = np.rot90(tile, -quarter)
            undone = undone[:, ::-1] if is_mirrored else undone
            yield from _both_ways(undone, Guess(90.0 * quarter, 1.0, is_mirrored))


def _both_ways(tile: Grey, placed: Guess) -> tuple[tuple[Guess, Complexes], ...]:
    """The spectrum of the tile, and of the tile turned by half: but for a shift, its conjugate."""
    spectrum = _whitened(tile)
    half = replace(placed, turn=placed.turn + 180)
    return (placed, spectrum), (half, np.conj(spectrum))


def _search(levels: dict[int, Grey], waves: Carriers) -> _Found:
    levels = {by: _middle(level, SEARCH_MAX) for by, level in levels.items()}
    likely, step = guesses(levels[1], waves.pilot_at, GUESSES)
    tried = sorted((_try(levels, waves, guess) for guess in likely), key=lambda f: -f.statistic)
    best = tried[0]
    for found in tried[:REFINED]:
        refined, by = found, step / 2
        for _ in range(ROUNDS):
            around = [_try(levels, waves, guess) for guess in _near(refined.placed, by)]
            refined, by = max([refined, *around], key=lambda f: f.statistic), by / 2
        best = max(best, refined, key=lambda f: f.statistic)
    return best


def _near(guess: Guess, step: float) -> Iterator[Guess]:
    degrees = math.degrees(step)
    for turn, scale in ((degrees, 0.0), (-degrees, 0.0), (0.0, step), (0.0, -step)):
        yield replace(guess, turn=guess.turn + turn, scale=guess.scale * math.exp(scale))


def _try(levels: dict[int, Grey], waves: Carriers, guess: Guess) -> _Found:
    """Undo a guess and compare."""
    return _best(waves, _both_ways(_folded(_undone(levels, guess)), guess))


def _undone(levels: dict[int, Grey], guess: Guess) -> Grey:
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


def _middle(grey: Grey, most: int) -> Grey:
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


def _folded(residual: Grey) -> Grey:
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
