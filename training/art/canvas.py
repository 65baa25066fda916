"""The tools of the painter: a canvas, masks with soft edges, noise and blends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.art.colours import Colour

Field = NDArray[np.float32]  # (height, width), mostly 0..1
Pixels = NDArray[np.float32]  # (height, width, 3), 0..1
Line = NDArray[np.float32]  # (width,), a height over each column, in fractions from the top
Points = Sequence[tuple[float, float]]

OVERSAMPLING = 4  # outlines are drawn this much larger, then averaged


class Canvas:
    """A square picture being painted, ``size`` pixels a side; ``x`` and ``y`` run 0..1."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pixels: Pixels = np.zeros((size, size, 3), np.float32)
        axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
        self.x: Field = axis[None, :]
        self.y: Field = axis[:, None]

    def paint(self, mask: Field, colour: Colour | Pixels) -> None:
        """Lay a colour (one, or one a pixel) over the canvas where the mask (0..1) says."""
        box = self._box(mask)
        if box is None:
            return
        if colour.ndim > 1:
            colour = np.broadcast_to(colour, self.pixels.shape)[box]
        under = self.pixels[box]
        under += mask[box][..., None] * (colour - under)

    def _box(self, mask: Field) -> tuple[slice, slice] | None:
        """The rows and columns a mask touches: most parts are small."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            return None
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def glow(self, mask: Field, colour: Colour) -> None:
        """Add light (a screen blend): never darker, never past white."""
        self.pixels += mask[..., None] * colour * (1 - self.pixels)

    def below(self, line: Line) -> Field:
        """The mask of all below a line, its edge one pixel soft whatever its slope."""
        slope = np.gradient(line) * self.size
        distance = (self.y - line[None, :]) * self.size / np.sqrt(1 + slope**2)[None, :]
        return np.clip(distance + 0.5, 0, 1).astype(np.float32)

    def disc(self, x: float, y: float, radius: float) -> Field:
        """The mask of a disc."""
        reach = radius + 1 / self.size
        left, right = (round(np.clip(edge, 0, 1) * self.size) for edge in (x - reach, x + reach))
        top, bottom = (round(np.clip(edge, 0, 1) * self.size) for edge in (y - reach, y + reach))
        mask = np.zeros((self.size, self.size), np.float32)
        away = np.hypot(self.x[:, left:right] - x, self.y[top:bottom] - y)
        mask[top:bottom, left:right] = np.clip((radius - away) * self.size + 0.5, 0, 1)
        return mask

    def haze(self, x: float, y: float, radius: float) -> Field:
        """A soft round light: 1 in its middle, falling to 0."""
        square = (self.x - x) ** 2 + (self.y - y) ** 2
        return np.exp(-square / (2 * radius**2)).astype(np.float32)


class Sketch:
    """Outlines for one object, in its own units: x from its middle, y up from its foot, both in
    heights of the object. Each outline becomes a part of the canvas with a mask of its own.
    """

    def __init__(self, canvas: Canvas, x: float, foot: float, height: float) -> None:
        self.canvas = canvas
        self.x, self.foot, self.height = x, foot, height

    def to_picture(self, point: tuple[float, float]) -> tuple[float, float]:
        """Where a point of the sketch is in the picture, in fractions."""
        return self.x + point[0] * self.height, self.foot - point[1] * self.height

    def across(self, left: float, right: float) -> Field:
        """0 at ``left`` to 1 at ``right`` (in the sketch's units), for shading; (1, width)."""
        start = self.x + left * self.height
        share = (self.canvas.x - start) / ((right - left) * self.height)
        shading: Field = np.clip(share, 0, 1).astype(np.float32)
        return shading

    def up(self, bottom: float, top: float) -> Field:
        """0 at ``bottom`` to 1 at ``top``; (height, 1)."""
        start = self.foot - bottom * self.height
        share = (start - self.canvas.y) / ((top - bottom) * self.height)
        shading: Field = np.clip(share, 0, 1).astype(np.float32)
        return shading

    def polygon(self, points: Points) -> Field:
        """The mask of a polygon."""
        return self._drawn("polygon", points)

    def ellipse(self, x: float, y: float, width: float, height: float) -> Field:
        """The mask of an ellipse around a middle."""
        halves = width / 2, height / 2
        return self._drawn(
            "ellipse", [(x - halves[0], y + halves[1]), (x + halves[0], y - halves[1])]
        )

    def stroke(self, points: Points, width: float) -> Field:
        """The mask of a line of a width (in the sketch's units)."""
        scale = self.canvas.size * OVERSAMPLING
        return self._drawn("line", points, width=max(1, round(width * self.height * scale)))

    def _drawn(self, shape: str, points: Points, **options: int) -> Field:
        size = self.canvas.size
        mask = np.zeros((size, size), np.float32)
        corners = np.array([self.to_picture(point) for point in points]) * size
        rim = 2 + options.get("width", 0) // OVERSAMPLING
        left, top = np.clip(np.floor(corners.min(axis=0)).astype(int) - rim, 0, size)
        right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int) + rim, 0, size)
        if left >= right or top >= bottom:
            return mask
        image = Image.new("L", ((right - left) * OVERSAMPLING, (bottom - top) * OVERSAMPLING))
        flat = [tuple(corner) for corner in (corners - (left, top)) * OVERSAMPLING]
        getattr(ImageDraw.Draw(image), shape)(flat, fill=255, **options)
        mask[top:bottom, left:right] = np.asarray(image.reduce(OVERSAMPLING), np.float32) / 255
        return mask


def ridge(
    rng: np.random.Generator,
    size: int,
    level: float,
    swing: float,
    roughness: float,
    octaves: int = 4,
) -> Line:
    """A horizon of hills or peaks: sines of growing frequency with random phases.

    ``level`` and ``swing`` in fractions of the picture; ``roughness`` 0..1 weighs each octave
    against the last.
    """
    x = np.linspace(0, 1, size, dtype=np.float32)
    line = np.zeros(size, np.float32)
    weight, frequency, total = 1.0, rng.uniform(0.6, 1.2), 0.0
    for _ in range(octaves):
        line += np.float32(weight) * np.sin(2 * np.pi * (frequency * x + rng.random()))
        total += weight
        weight *= roughness
        frequency *= rng.uniform(1.8, 2.3)
    return np.float32(level) - np.float32(swing / total) * line


def clouds(rng: np.random.Generator, size: int, cells: int, stretch: float = 1.0) -> Field:
    """Smooth noise, 0..1, ``cells`` bumps across; ``stretch`` > 1 draws it out sideways."""
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for octave in range(3):
        across = max(2, round(cells * 2**octave / stretch))
        coarse = rng.random((cells * 2**octave + 2, across + 2)).astype(np.float32)
        image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        total += np.float32(weight) * np.asarray(image)
        weight *= 0.5
    noise: Field = np.clip(total / 1.75, 0, 1).astype(np.float32)
    return noise


def smoothstep(low: float, high: float, values: Field) -> Field:
    """0 below ``low``, 1 above ``high``, smooth between."""
    share = np.clip((values - low) / (high - low), 0, 1)
    step: Field = (share * share * (3 - 2 * share)).astype(np.float32)
    return step
