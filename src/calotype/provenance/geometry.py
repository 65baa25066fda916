"""How a marked picture may have been turned and scaled: guessed from the pilot's spectral lines.

The pilot's waves are lines in the picture's spectrum. A turn of the picture turns them, a change of
scale moves them out or in, and where the picture was cut doesn't matter. So every turn and scale of
a grid is scored by the power at the places where the lines would be, and the best are given back.
(The principle: Pereira and Pun 2000, "Robust template matching for affine resistant image
watermarks".) What is true of a guess, the pilot's phases tell: see ``detection``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calotype.provenance.carriers import SIDE, Whole

WINDOW = 512  # pixels, at most; larger pictures are heard in windows, half over each other
WINDOWS_MAX = 9  # of them
TURN_MAX = 12.0  # degrees, each way
SCALES = (0.4, 2.6)
LOUD = 12.0  # a line counts at most this many times the power around it
_FINEST = 0.35  # of a spectral line's width, at the outermost wave: the grid's step is twice it


@dataclass(frozen=True)
class Guess:
    """The picture is the marked one, mirrored if so, scaled, then turned."""

    turn: float  # degrees
    scale: float
    is_mirrored: bool = False


@dataclass(frozen=True)
class Grid:
    """The turns and scales that are tried for a picture of some size."""

    turns: NDArray[np.float64]  # degrees
    scales: NDArray[np.float64]
    step: float  # between two scales, relative; and between two turns, in radians


def grid(side: int) -> Grid:
    """The grid for windows of ``side`` pixels."""
    step = 2 * _FINEST * 4 / side
    half = np.arange(0, np.deg2rad(TURN_MAX) + step, step)
    turns = np.rad2deg(np.concatenate([-half[:0:-1], half]))
    scales = np.exp(np.arange(np.log(SCALES[0]), np.log(SCALES[1]), step))
    return Grid(turns, scales, step)


@dataclass(frozen=True)
class Heard:
    """What is heard of a picture at each frequency, whatever the key."""

    power: NDArray[np.float32]  # of twice-as-fine frequencies, over the power around them
    side: int  # pixels of a window


def heard(residual: NDArray[np.float32]) -> Heard:
    """Listen to a picture's small differences (height x width)."""
    side = min(WINDOW, *residual.shape)
    return Heard(_power(residual, side), side)


def guesses(of: Heard, lines: Whole, count: int) -> tuple[list[Guess], float]:
    """The ``count`` best guesses, best first, and the grid's step.

    ``lines``: a key's waves a tile, N x 2.
    """
    power, tried = of.power, grid(of.side)
    scored = []
    for is_mirrored in (False, True):
        for quarter in (0, 90):
            turned = _turned(lines, quarter, is_mirrored)
            for turn in tried.turns:
                scores = _scores(power, _turned(turned, turn, False), tried.scales)
                for best in np.argpartition(-scores, 3)[:3]:
                    guess = Guess(float(turn + quarter), float(tried.scales[best]), is_mirrored)
                    scored.append((float(scores[best]), guess))
    scored.sort(key=lambda each: -each[0])
    return [guess for _, guess in scored[:count]], tried.step


def _power(residual: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Power of twice-as-fine frequencies over the power around them, averaged over windows."""
    fine = 2 * side
    window = np.hanning(side)[:, None] * np.hanning(side)[None, :]
    total = np.zeros((fine, fine))
    for top, left in _corners(residual.shape, side):
        part = residual[top : top + side, left : left + side] * window
        total += np.abs(np.fft.fft2(part, (fine, fine))) ** 2
    around = sum(np.roll(total, by, axis) for axis in (0, 1) for by in (-9, -5, 5, 9))
    return np.asarray(np.minimum(total / (around / 8 + 1e-9), LOUD), np.float32)


def _corners(shape: tuple[int, ...], side: int) -> list[tuple[int, int]]:
    """Where the windows lie: evenly, at most three each way."""
    most = int(np.sqrt(WINDOWS_MAX))
    ways = []
    for length in shape:
        count = min(most, 1 + (length - side) // (side // 2))
        ways.append(np.linspace(0, length - side, count).astype(int).tolist())
    return [(top, left) for top in ways[0] for left in ways[1]]


def _turned(lines: NDArray[np.generic], degrees: float, is_mirrored: bool) -> NDArray[np.float64]:
    """Where the lines (y, x) are once the picture is mirrored and turned counter-clockwise."""
    y, x = lines[:, 0].astype(np.float64), lines[:, 1].astype(np.float64)
    if is_mirrored:
        x = -x
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.stack([y * cos - x * sin, y * sin + x * cos], 1)


def _scores(
    power: NDArray[np.float32], lines: NDArray[np.float64], scales: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean power at the lines, for each scale, in standard deviations of what chance gives."""
    fine = len(power)
    places = np.rint(lines[None] * (fine / SIDE / scales)[:, None, None]).astype(np.int64)
    is_there = np.abs(places).max(2) < fine // 2  # below the picture's own finest wave
    heard = power[places[..., 0] % fine, places[..., 1] % fine]
    count = is_there.sum(1)
    mean = (heard * is_there).sum(1) / np.maximum(count, 1)
    return np.where(count > 8, (mean - power.mean()) * np.sqrt(count), -np.inf)
