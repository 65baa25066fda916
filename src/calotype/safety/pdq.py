"""PDQ, the perceptual hash in which lists of known abuse are exchanged: 256 bits and a quality.

After Facebook's "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm" (2019)
and its reference in C++, to which a test holds it: blur by box filters, 64 x 64 greys, the 16 x 16
lowest frequencies of their cosine transform without the first, each above the median or not.

Pictures within DISTANCE_MAX bits are called the same. That survives re-encoding, resizing and
colours; a turned or mirrored picture is found since all eight positions are hashed. It doesn't
survive cropping: a twentieth cut away already leaves more than DISTANCE_MAX bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BITS = 256
WORDS = 4  # of 64 bits
DISTANCE_MAX = 31  # of the reference; unrelated pictures lie about 128 apart
QUALITY_MAX = 100
SIDE_MIN = 5  # pixels; of less there is no hash
_SIDE = 64  # greys each way, before the transform
_KEPT = 16  # frequencies each way
_PASSES = 2  # of the box filter, each way
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]  # n x WORDS, the most significant first


@dataclass(frozen=True)
class PdqHash:
    """A picture's hash in its eight positions, and how much there was to hash."""

    positions: Hashes  # 8 x WORDS; the first is as it stands
    quality: int  # 0..100; 0 is next to nothing to see: no list can say that it isn't on it


def pdq(pixels: NDArray[np.uint8]) -> PdqHash:
    """Hash a picture, height x width x 3 RGB bytes."""
    height, width, _ = pixels.shape
    if min(height, width) < SIDE_MIN:
        return PdqHash(np.zeros((8, WORDS), np.uint64), 0)
    greys = pixels.astype(np.float32) @ _LUMA
    # Mirrored before they are shrunk: that isn't symmetric, and mirroring the hash of a small
    # picture of few details was up to 56 bits off.
    smalls = [_small(each) for each in (greys, greys[:, ::-1], greys[::-1], greys[::-1, ::-1])]
    found = [_bits(_DCT @ each @ _DCT.T) for small in smalls for each in (small, small.T)]
    return PdqHash(np.stack(found), _quality(smalls[0]))


def from_hex(digits: str) -> Hashes:
    """The hash of 64 hexadecimal digits, as lists and the reference write it; raises ValueError."""
    if len(digits) != BITS // 4:
        raise ValueError(f"a PDQ hash has {BITS // 4} hexadecimal digits, not {len(digits)}")
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


def to_hex(one: Hashes) -> str:
    """A hash as lists write it."""
    return one.astype(">u8").tobytes().hex()


def distances(one: Hashes, others: Hashes) -> NDArray[np.int64]:
    """In how many bits each of ``others`` (n x WORDS) differs from ``one``."""
    apart: NDArray[np.int64] = np.bitwise_count(others ^ one).sum(axis=-1, dtype=np.int64)
    return apart


def _small(greys: Floats) -> Floats:
    """64 x 64 of the picture, blurred as the reference does."""
    high, wide = greys.shape
    if (high, wide) != (_SIDE, _SIDE):
        for _ in range(_PASSES):
            greys = _box(_box(greys, _window(wide), axis=1), _window(high), axis=0)
    rows = ((np.arange(_SIDE) + 0.5) * high / _SIDE).astype(int)
    columns = ((np.arange(_SIDE) + 0.5) * wide / _SIDE).astype(int)
    return np.ascontiguousarray(greys[np.ix_(rows, columns)], np.float32)


def _window(pixels: int) -> int:
    return (pixels + 2 * _SIDE - 1) // (2 * _SIDE)


def _box(greys: Floats, window: int, axis: int) -> Floats:
    """The mean of each ``window`` pixels along an axis; fewer where the picture ends."""
    count = greys.shape[axis]
    after = (window + 2) // 2 - 1
    places = np.arange(count)
    first = np.maximum(places + after + 1 - window, 0)
    last = np.minimum(places + after, count - 1) + 1
    sums = np.cumsum(greys, axis=axis, dtype=np.float64)
    sums = np.insert(sums, 0, 0.0, axis=axis)
    lengths = (last - first).reshape((-1, 1) if axis == 0 else (1, -1))
    means = (np.take(sums, last, axis=axis) - np.take(sums, first, axis=axis)) / lengths
    return np.asarray(means, np.float32)


def _quality(greys: Floats) -> int:
    """How much changes from grey to grey, 0..100, in the reference's whole numbers."""
    total = 0
    for axis in (0, 1):
        total += int((np.abs(np.diff(greys, axis=axis)) * 100 / 255).astype(int).sum())
    return min(total // 90, QUALITY_MAX)


def _bits(frequencies: NDArray[np.floating]) -> Hashes:
    """Bit 16 i + j says of row i, column j whether it is above the lower median."""
    flat = frequencies.ravel()
    median = np.partition(flat, flat.size // 2 - 1)[flat.size // 2 - 1]
    packed = np.packbits(flat[::-1] > median)
    return np.frombuffer(packed.tobytes(), ">u8").astype(np.uint64)


def _basis() -> Floats:
    frequency = np.arange(1, _KEPT + 1)[:, None]
    position = 2 * np.arange(_SIDE)[None, :] + 1
    scale = np.sqrt(2.0 / _SIDE)
    return np.asarray(scale * np.cos(np.pi / 2 / _SIDE * frequency * position), np.float32)


_DCT = _basis()
