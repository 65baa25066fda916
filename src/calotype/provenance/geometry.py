"""How a marked picture may have been turned and scaled: guessed from the pilot's spectral lines.

The pilot's waves are lines in the picture's spectrum. A turn of the picture turns them, a change of
scale moves them out or in, and where the picture was cut doesn't matter. So every turn and scale of
a grid is scored by the power at the places where the lines would be, and the best are given back;
by angle and the logarithm of the radius both are shifts, and all are scored by one convolution.
(The principle: Pereira and Pun 2000, "Robust template matching for affine resistant image
watermarks".) What is true of a guess, the pilot's phases tell: see ``detection``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calotype.provenance.carriers import RING, SIDE, Whole

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
    """What is heard of a picture at each frequency, whatever the key, by angle and by radius.

    A turn of the picture moves all of it by rows, which go round after half a turn; a change of
    scale moves it by columns, whose radii grow by the grid's step.
    """

    power: NDArray[np.float32]  # angles x radii: above the mean; 0 where nothing can be heard
    is_there: NDArray[np.float32]  # angles x radii: 1 below the picture's own finest wave, else 0
    side: int  # pixels of a window


def heard(residual: NDArray[np.float32]) -> Heard:
    """Listen to a picture's small differences (height x width)."""
    side = min(WINDOW, *residual.shape)
    power, step = _power(residual, side), grid(side).step
    fine = len(power)
    least = RING[0] * fine / SIDE / SCALES[1]
    radii = np.exp(np.arange(np.log(least), np.log(fine / np.sqrt(2)), step))
    angles = np.arange(_angles(step)) * (np.pi / _angles(step))
    y, x = (np.rint(np.outer(of(angles), radii)).astype(np.int64) for of in (np.sin, np.cos))
    is_there = np.maximum(np.abs(y), np.abs(x)) < fine // 2
    above = power[y % fine, x % fine] - power.mean()
    return Heard(np.where(is_there, above, 0), is_there.astype(np.float32), side)


def guesses(of: Heard, lines: Whole, count: int) -> tuple[list[Guess], float]:
    """The ``count`` best guesses, best first, and the grid's step.

    ``lines``: a key's waves a tile, N x 2. Each guess is better than those beside it.
    """
    tried, (angles, radii) = grid(of.side), of.power.shape
    turns = len(tried.turns) // 2  # each way
    smaller, larger = (round(np.log(scale) / tried.step) for scale in SCALES)
    width = radii + larger - smaller  # so that no line goes round
    spectra = [np.fft.rfft2(each, (angles, width)) for each in (of.power, of.is_there)]
    rows, columns = np.arange(-turns, turns + 1), np.arange(smaller, larger + 1)
    scored = []
    for is_mirrored in (False, True):
        at = np.fft.rfft2(_marked(lines, of.side, tried.step, is_mirrored, (angles, width)))
        sums, counts = (
            np.fft.irfft2(at * np.conj(spectrum), (angles, width)) for spectrum in spectra
        )
        scores = np.where(counts > 8.5, sums / np.sqrt(np.maximum(counts, 1)), -np.inf)
        for quarter in (0, 90):
            shift = rows + quarter * angles // 180
            part = scores[shift % angles][:, columns % width]
            for row, column in zip(*_peaks(part), strict=True):
                turn = float(np.degrees(rows[row] * np.pi / angles)) + quarter
                guess = Guess(turn, float(np.exp(columns[column] * tried.step)), is_mirrored)
                scored.append((float(part[row, column]), guess))
    scored.sort(key=lambda each: -each[0])
    return [guess for _, guess in scored[:count]], tried.step


def _angles(step: float) -> int:
    """Steps in half a turn; an even number, so that a quarter is one of them."""
    return 2 * round(np.pi / step / 2)


def _marked(
    lines: Whole, side: int, step: float, is_mirrored: bool, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """1 where a key's lines are in an unturned, unscaled picture (mirrored or not), else 0."""
    y, x = lines[:, 0].astype(np.float64), lines[:, 1].astype(np.float64)
    angle = np.arctan2(y, -x if is_mirrored else x)
    row = np.rint(angle * shape[0] / np.pi).astype(np.int64) % shape[0]
    column = np.rint(np.log(np.hypot(y, x) / RING[0] * SCALES[1]) / step).astype(np.int64)
    found = np.zeros(shape, np.float32)
    np.add.at(found, (row, column), 1)
    return found


def _peaks(scores: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where a score is none less than those around it."""
    around = np.pad(scores, 1, constant_values=-np.inf)
    height, width = scores.shape
    best = np.max(
        [
            around[down : down + height, across : across + width]
            for down in range(3)
            for across in range(3)
        ],
        axis=0,
    )
    rows, columns = np.nonzero((scores >= best) & np.isfinite(scores))
    return rows, columns


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
