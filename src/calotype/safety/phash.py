"""A perceptual hash: pictures that look alike have hashes that differ in few bits.

64 bits, one per low frequency of the picture's cosine transform: whether it is above the median.
The principle is that of pHash (Zauner 2010, "Implementation and benchmarking of perceptual image
hash functions") and PDQ; the bits are our own and compare with no other tool's.

It survives re-encoding, resizing, small changes of light, and turning or mirroring (all eight
positions are compared). It doesn't survive cropping, small rotations, or a new background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 64
_SIDE = 32  # pixels each way, before the transform
_KEPT = 8  # frequencies each way
# At most this far apart counts as the same picture. Unrelated pictures lie about 32 apart.
DISTANCE_MAX = 8
# Below this contrast (standard deviation of the 32 x 32 picture, of 255) the bits are noise.
CONTRAST_MIN = 1.5


def _basis() -> NDArray[np.float64]:
    """Rows 1..8 of the DCT-II. Without frequency 0, mirroring only changes signs."""
    frequency = np.arange(1, _KEPT + 1)[:, None]
    position = np.arange(_SIDE)[None, :] + 0.5
    return np.asarray(np.cos(np.pi * frequency * position / _SIDE))


_DCT = _basis()
_SIGNS = np.where(np.arange(1, _KEPT + 1) % 2, -1.0, 1.0)  # what mirroring does to each frequency


def small(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The picture (height x width x 3) as 32 x 32 greys, 0..255."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601 luma
    grey = Image.fromarray(pixels.astype(np.float32) @ weights)
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)


def contrast(greys: NDArray[np.float64]) -> float:
    """Standard deviation of the small picture; below CONTRAST_MIN a hash means nothing."""
    return float(greys.std())


def hashes(greys: NDArray[np.float64]) -> tuple[int, ...]:
    """The hashes of the small picture in all eight positions; the first is as it stands."""
    upright = _DCT @ greys @ _DCT.T
    found = []
    for turned in (upright, upright.T):
        for rows in (turned, turned * _SIGNS[:, None]):
            found += [_bits(rows), _bits(rows * _SIGNS[None, :])]
    return tuple(found)


def distance(one: int, other: int) -> int:
    """In how many bits two hashes differ: 0..64."""
    return (one ^ other).bit_count()


def _bits(frequencies: NDArray[np.float64]) -> int:
    above = frequencies > np.median(frequencies)
    return int.from_bytes(np.packbits(above).tobytes(), "big")
