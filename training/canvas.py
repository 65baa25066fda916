"""What drawings at random begin with: a ground, points, colours, and bytes at the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Picture = NDArray[np.uint8]  # (h, w, 3)
Rng = np.random.Generator
Draw = Callable[[Rng, int, int], Picture]  # generator, height, width


def as_bytes(floats: NDArray[np.floating]) -> Picture:
    """Cut to 0..255."""
    found: Picture = np.clip(floats, 0, 255).astype(np.uint8)
    return found


def any_colour(rng: Rng) -> tuple[int, int, int]:
    """Red, green, blue: each 0..255."""
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def canvas(rng: Rng, high: int, wide: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A sheet, white or coloured, and what draws on it."""
    ground = any_colour(rng) if rng.random() < 0.6 else (255, 255, 255)
    image = Image.new("RGB", (wide, high), ground)
    return image, ImageDraw.Draw(image)


def any_point(rng: Rng, high: int, wide: int, beyond: float = 0.1) -> tuple[float, float]:
    """x and y, in pixels; up to this share of a side outside the picture."""
    x, y = rng.uniform(-beyond, 1 + beyond, 2)
    return float(x * wide), float(y * high)
