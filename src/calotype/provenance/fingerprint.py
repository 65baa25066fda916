"""A sketch of a picture, kept to tell whether a mark fits the picture it is found in.

Whoever can copy a mark from one picture into another can't make the other look like the first. The
sketch is small and grey, its longer side 64 pixels: enough to recognise a picture, or a part of it,
by the correlation of brightness, whatever was done to its light and size.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from calotype.provenance.geometry import Guess
from calotype.provenance.watermark import Pixels

SIDE = 64  # pixels of the longer side
PART_MIN = 8  # pixels of the sketch: a smaller part could be of any picture
CONTRAST_MIN = 3.0  # standard deviation, of 255: less, and it could be of any picture too
# Measured (docs/provenance.md): what was done to a picture leaves more, other pictures reach less.
FITS_MIN = 0.9

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
    part = _part(drawn, size, pixels, placed)
    if min(part.shape) < PART_MIN or float(part.std()) < CONTRAST_MIN:
        return None
    windows = sliding_window_view(drawn.astype(np.float32), part.shape)
    windows = windows.reshape(-1, part.size)
    fine = part.ravel() - part.mean()
    means, deviations = windows.mean(1), windows.std(1)
    products = windows @ fine - means * fine.sum()
    fits = products / (np.maximum(deviations, 1.0) * fine.std() * part.size)
    return float(fits.max())


def _part(
    drawn: Sketch, size: tuple[int, int], pixels: Pixels, placed: Guess
) -> NDArray[np.float32]:
    """The picture as it was, in the sketch's scale; its middle, if it had been turned."""
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
    wanted = (max(1, round(grey.width * by)), max(1, round(grey.height * by)))
    array = np.rot90(np.asarray(grey.resize(wanted, Image.Resampling.BOX)), -quarters)
    array = array[:, ::-1] if placed.is_mirrored else array
    height, width = drawn.shape
    return np.asarray(array[:height, :width], np.float32)
