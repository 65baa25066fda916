"""PDQ, the perceptual hash in which lists of known abuse are exchanged: 256 bits and a quality.

After Facebook's "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm" (2019)
and its reference in C++, to which a test holds it: blur by box filters, 64 x 64 greys, the 16 x 16
lowest frequencies of their cosine transform without the first, each above the median or not.

Pictures within DISTANCE_MAX bits are called the same. That survives re-encoding, resizing and
colours; a turned or mirrored picture is found since all eight positions are hashed. It doesn't
survive cropping: a twentieth cut away already leaves more than DISTANCE_MAX bits.
"""

from __future__ import annotations

import functools
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
    down, across = _shrinking(height), _shrinking(width)
    smalls = [
        rows @ narrow
        for narrow in (greys @ across.T, greys @ across[:, ::-1].T)
        for rows in (down, down[:, ::-1])
    ]
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


@functools.lru_cache(maxsize=64)
def _shrinking(count: int) -> Floats:
    """What shrinks so many pixels to 64: 64 x count weights; two box filters, then every n-th.

    The reference filters rows and columns one after the other; all of it is linear.
    """
    found = np.zeros((_SIDE, count), np.float32)
    window = 1 if count == _SIDE else (count + 2 * _SIDE - 1) // (2 * _SIDE)
    for place, middle in enumerate(((np.arange(_SIDE) + 0.5) * count / _SIDE).astype(int)):
        outer = _window(int(middle), window, count)
        for inner in range(outer.start, outer.stop):
            part = _window(inner, window, count)
            found[place, part] += 1 / ((outer.stop - outer.start) * (part.stop - part.start))
    return found


def _window(place: int, window: int, count: int) -> slice:
    """The pixels whose mean the filter puts at a place; fewer where the picture ends."""
    after = (window + 2) // 2 - 1
    return slice(max(place + after + 1 - window, 0), min(place + after, count - 1) + 1)


def _quality(greys: NDArray[np.floating]) -> int:
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
