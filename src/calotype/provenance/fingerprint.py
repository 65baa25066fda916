"""A sketch of a picture, kept to tell whether a mark fits the picture it is found in.

Whoever can copy a mark from one picture into another can't make the other look like the first. The
sketch is small and grey, its longer side 64 pixels: enough to recognise a picture, or a part of it,
by the correlation of brightness, whatever was done to its light and size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from calotype.provenance.geometry import Guess
from calotype.provenance.watermark import Pixels

SIDE = 64  # pixels of the longer side
PART_MIN = 8  # pixels of the sketch: a smaller part could be of any picture
CONTRAST_MIN = 3.0  # standard deviation, of 255: less, and it could be of any picture too
# Measured (docs/provenance.md): fewer than one in a thousand changed pictures fit their own sketch
# less well than this, and fewer than one in a thousand other pictures fit it better.
FITS_MIN = 0.85

Sketch = NDArray[np.uint8]  # height x width, grey


def sketch(pixels: Pixels) -> Sketch:
    """The sketch of a picture (height x width x 3)."""
    height, width, _ = pixels.shape
    by = SIDE / max(height, width)
    size = (max(1, round(width * by)), max(1, round(height * by)))
    return np.asarray(Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX))


def to_bytes(drawn: Sketch) -> bytes:
    """Height, width, and the greys by row."""
    return bytes(drawn.shape) + drawn.tobytes()


def from_bytes(data: bytes) -> Sketch:
    """What ``to_bytes`` made."""
    return np.frombuffer(data[2:], np.uint8).reshape(data[0], data[1])


def likeness(drawn: Sketch, size: tuple[int, int], pixels: Pixels, placed: Guess) -> float | None:
    """How well a picture fits a sketch, anywhere in it: -1 to 1; None if it is too plain to say.

    ``size``: height and width of the picture that was sketched, in pixels. ``placed``: how the
    picture was turned and scaled since, as its mark tells.
    """
    fits = [_fit(drawn, part) for part in _parts(drawn, size, pixels, placed)]
    return max((each for each in fits if each is not None), default=None)


def _fit(drawn: Sketch, part: NDArray[np.float32]) -> float | None:
    """The best correlation of a part with any window of the sketch."""
    if min(part.shape) < PART_MIN or float(part.std()) < CONTRAST_MIN:
        return None
    windows = sliding_window_view(drawn.astype(np.float32), part.shape)
    windows = windows.reshape(-1, part.size)
    fine = part.ravel() - part.mean()
    means, deviations = windows.mean(1), windows.std(1)
    products = windows @ fine - means * fine.sum()
    fits = products / (np.maximum(deviations, 1.0) * fine.std() * part.size)
    return float(fits.max())


def _parts(
    drawn: Sketch, size: tuple[int, int], pixels: Pixels, placed: Guess
) -> Iterator[NDArray[np.float32]]:
    """The picture as it was, in the sketch's scale; its middle, if it had been turned.

    One that was cut may begin between two pixels of the sketch: it comes half a pixel on, too.
    """
    grey = Image.fromarray(pixels).convert("L")
    quarters = round(placed.turn / 90)
    turn = placed.turn - 90 * quarters
    grey = grey.rotate(-turn, Image.Resampling.BICUBIC)
    if turn:  # what is left of the upright square inside a turned one
        keep = 1 / (abs(math.cos(math.radians(turn))) + abs(math.sin(math.radians(turn)))) ** 2
        width, height = grey.size
        margin_x, margin_y = round(width * (1 - keep) / 2), round(height * (1 - keep) / 2)
        grey = grey.crop((margin_x, margin_y, width - margin_x, height - margin_y))
    by = max(drawn.shape) / max(size) / placed.scale
    height, width = drawn.shape if quarters % 2 == 0 else drawn.shape[::-1]
    for top, left in itertools.product(
        _begins(grey.height, height, by), _begins(grey.width, width, by)
    ):
        wanted = (max(1, round((grey.width - left) * by)), max(1, round((grey.height - top) * by)))
        cut = grey.resize(wanted, Image.Resampling.BOX, (left, top, grey.width, grey.height))
        array = np.rot90(np.asarray(cut), -quarters)
        array = array[:, ::-1] if placed.is_mirrored else array
        yield np.asarray(array[: drawn.shape[0], : drawn.shape[1]], np.float32)


def _begins(length: int, whole: int, by: float) -> tuple[float, ...]:
    """Where a side of ``length`` pixels may begin; ``whole`` pixels of the sketch are all of it."""
    is_cut = round(length * by) < whole and length * by > 1
    return (0.0, 0.5 / by) if is_cut else (0.0,)
