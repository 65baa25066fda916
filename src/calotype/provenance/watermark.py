"""Marks a picture: adds a keyed tile to its brightness, where and as far as the eye won't see it.

In flat parts the mark is below one level of 255; it grows with what goes on in the picture. It is
the same in red, green and blue. Each payload has its tile at a shift of its own, so that pictures
can't simply be averaged to learn it. It doesn't know what the payload means, nor where keys lie.

Whoever collects marked pictures of one key can learn to copy or remove its mark all the same: a
mark alone proves nothing. See ``fingerprint`` for how a copy is told.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from calotype.provenance.carriers import SIDE, carriers

BLOCK = 8  # pixels: the eye's masking is judged by blocks
# Standard deviation of the mark, in levels of 255. Chosen by eye: at 1.0 a grain shows in a sky.
FLAT = 0.7  # where nothing goes on
GAIN = 0.15  # more, for each level of the block's own standard deviation
TOP = 3.0
DARK = 0.7  # of it in black, where grain shows most; all of it from middle grey on

PAYLOAD_MAX = 2**64 - 1

Pixels = NDArray[np.uint8]  # height x width x 3, RGB
Grey = NDArray[np.float32]  # height x width, 0..255


@dataclass(frozen=True)
class MarkKey:
    """A key of the mark. The id is no secret."""

    id: str
    secret: bytes = field(repr=False)


def payload_of(pixels_sha256: str, key: MarkKey) -> int:
    """The payload of a picture, 1..2**64-1: opaque, it means nothing but to who has the record.

    Made of the pixels, so that the same recipe still gives the same file.
    """
    return int.from_bytes(_derived(key, f"payload {pixels_sha256}")[:8], "big") % PAYLOAD_MAX + 1


def embed(pixels: Pixels, payload: int, key: MarkKey) -> Pixels:
    """The picture with the payload (0..2**64-1) in it.

    Any size; whether a small one can be read again is told in docs/provenance.md.
    """
    down, across = _derived(key, f"shift {payload}")[:2]
    height, width, _ = pixels.shape
    picture = Image.fromarray(pixels)
    tile = np.roll(carriers(key.secret).tile(payload), (down, across), (0, 1))
    repeats = (-(-height // SIDE), -(-width // SIDE))
    mark = np.tile(tile, repeats)[:height, :width]
    mark = mark * _strength(np.asarray(picture.convert("L")))
    lighter, darker = (_levels(np.maximum(each, 0)) for each in (mark, -mark))
    return np.asarray(ImageChops.subtract(ImageChops.add(picture, lighter), darker))


def _derived(key: MarkKey, use: str) -> bytes:
    return hmac.new(key.secret, f"calotype watermark 1 {use}".encode(), hashlib.sha256).digest()


def _levels(mark: Grey) -> Image.Image:
    """Whole levels to add to each colour."""
    grey = Image.fromarray((mark + 0.5).astype(np.uint8))
    return Image.merge("RGB", (grey, grey, grey))


def _strength(brightness: Pixels) -> Grey:
    """The mark's standard deviation at each pixel, in levels."""
    height, width = brightness.shape
    down, across = -(-height // BLOCK), -(-width // BLOCK)
    padding = ((0, down * BLOCK - height), (0, across * BLOCK - width))
    blocks = np.pad(brightness, padding, "edge").astype(np.float32)
    blocks = blocks.reshape(down, BLOCK, across, BLOCK)
    mean = blocks.mean((1, 3))
    deviation = np.sqrt(np.maximum(np.square(blocks).mean((1, 3)) - mean * mean, 0))
    strength = np.minimum(FLAT + GAIN * deviation, TOP)
    strength *= np.minimum(DARK + (1 - DARK) * mean / 128, 1)
    smooth = Image.fromarray(strength).resize(
        (across * BLOCK, down * BLOCK), Image.Resampling.BILINEAR
    )
    return np.asarray(smooth, np.float32)[:height, :width]
