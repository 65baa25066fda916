"""Reads the mark that a decoder leaves in each picture it decodes, and how sure that is.

The method is Stable Signature's (Fernandez 2023, arXiv:2303.15435): a model's decoder is taught to
draw pictures in which a small network reads the bits of one key. Here is that network, the
extractor, as five products of matrices in NumPy: strangers' files are looked at in processes that
have no torch, and it is small. Who trains it is ``engine.marking``; a test holds the two equal.

False positives. Bits are even and independent on unmarked pictures as far as whitening can make
them so. Whatever they are, a key is drawn at random and no training has seen it before the
extractor was done: of a picture that has nothing to do with a key, each bit is right with a
probability of 1/2 over keys, independently. So how many are right is binomial, and the probability
of as many or more is told. FALSE_MAX is allowed for all that is compared: LOOKS for each key.

A mark repeats over a grid of GRID pixels, and is as large as its decoder drew it. So a picture is
looked at as it is, and as large as the decoder's model draws; if that says nothing, it may have
been cut, and what its first row and column are on the grid is tried. All of it mirrored, too.

A mark of this kind says which decoder drew a picture, and not which picture it is: it has no record
that could tell a copy. Fine-tuning a decoder removes it (arXiv:2405.07145).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

FALSE_MAX = 1e-6  # probability that an unmarked picture is called marked, all keys together
SIDE_MAX = 512  # pixels: of a larger picture, its middle is looked at
SIDE_MIN = 32
GRID = 8  # pixels that one value of a decoder's latents is large
PLACES = (0, 2, 4, 6)  # on it: marks are taught to bear one pixel
SEARCHED_PX = 128  # a side of the middle where places are tried
LOOKS = 2 * (len(PLACES) ** 2 + 1)  # as large as drawn, and at each place; mirrored, too

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]  # height x width x 3, RGB


@dataclass(frozen=True)
class Layer:
    """A convolution of 3 x 3 with zeros around, then what is below 0 becomes 0."""

    weight: Floats  # (out, in, 3, 3)
    bias: Floats  # (out,)
    stride: int


@dataclass(frozen=True)
class Extractor:
    """The layers, their mean over the picture, and what makes bits of it."""

    layers: tuple[Layer, ...]
    head: Floats  # (bits, in)
    head_bias: Floats  # (bits,)

    def logits(self, pixels: Pixels) -> Floats:
        """(bits,); a bit is 1 where it is above 0. The picture has at least 32 pixels each way."""
        seen = pixels.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
        for layer in self.layers:
            seen = _convolved(seen, layer)
        return np.asarray(self.head @ seen.mean((1, 2)) + self.head_bias, np.float32)


@dataclass(frozen=True)
class DecoderMark:
    """A decoder's mark: what reads it, and which bits it has."""

    key: str  # id of its key; no secret
    bits: tuple[int, ...] = field(repr=False)  # 0 or 1
    extractor: Extractor = field(repr=False)
    made_for: str = ""  # id of the autoencoder (core.nouns.Component) whose decoder has it
    made_at: str = ""  # ISO 8601, UTC
    drawn_px: int = 0  # longer side of what its model draws if not told; 0: not known
    decoder: str = ""  # the file of the decoder's weights


Views = Callable[[Pixels, DecoderMark], Iterator[Pixels]]


@dataclass(frozen=True)
class DecoderFound:
    """A decoder's mark that was found in a picture."""

    key: str
    right: int  # bits
    bits: int
    false_max: float  # probability that an unmarked picture has as much of any key that was tried
    is_mirrored: bool


def find(pixels: Pixels, marks: Sequence[DecoderMark]) -> DecoderFound | None:
    """The mark that is surest to be there, or None. ``pixels``: height x width x 3."""
    return _surest(pixels, marks, whole) or _surest(pixels, marks, cut)


def _surest(pixels: Pixels, marks: Sequence[DecoderMark], views: Views) -> DecoderFound | None:
    found: DecoderFound | None = None
    for mark in marks:
        for is_mirrored in (False, True):
            seen = pixels[:, ::-1] if is_mirrored else pixels
            right = max((right_bits(it, mark) for it in views(seen, mark)), default=0)
            count = len(mark.bits)
            chance = min(1.0, LOOKS * len(marks) * tail(right, count))
            if chance <= FALSE_MAX and (found is None or chance < found.false_max):
                found = DecoderFound(mark.key, right, count, chance, is_mirrored)
    return found


def whole(pixels: Pixels, mark: DecoderMark) -> Iterator[Pixels]:
    """The picture as it is, and as large as it may have been drawn; at least SIDE_MIN each way."""
    longer = max(pixels.shape[:2])
    height, width = (round(side * mark.drawn_px / longer) for side in pixels.shape[:2])
    if min(pixels.shape[:2]) >= SIDE_MIN:
        yield _middle(pixels, SIDE_MAX)
    if min(height, width) >= SIDE_MIN and mark.drawn_px != longer:
        scaled = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height))
        yield _middle(np.asarray(scaled), SIDE_MAX)


def cut(pixels: Pixels, mark: DecoderMark) -> Iterator[Pixels]:
    """Its middle, as if its first row and column lay elsewhere on the grid."""
    middle = _middle(pixels, SEARCHED_PX)
    if min(middle.shape[:2]) >= SIDE_MIN + max(PLACES):
        yield from (middle[top:, left:] for top in PLACES for left in PLACES if top or left)


def right_bits(pixels: Pixels, mark: DecoderMark) -> int:
    """How many of a mark's bits the extractor reads in a picture as it is."""
    read = mark.extractor.logits(pixels) > 0
    return int((read == np.asarray(mark.bits, bool)).sum())


def tail(right: int, bits: int) -> float:
    """The probability that at least so many of ``bits`` fair coins fall right."""
    return float(sum(math.comb(bits, k) for k in range(right, bits + 1)) / (1 << bits))


def needed(bits: int, marks: int = 1) -> int:
    """How many bits have to be right for a mark to be found; one more than there are: never."""
    return next(
        (k for k in range(bits + 1) if LOOKS * marks * tail(k, bits) <= FALSE_MAX), bits + 1
    )


def _convolved(seen: Floats, layer: Layer) -> Floats:
    """(in, h, w) to (out, h / stride, w / stride), rounded up."""
    padded = np.pad(seen, ((0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), (1, 2))[:, :: layer.stride, :: layer.stride]
    _, high, wide = windows.shape[:3]
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(-1, high * wide)
    drawn = layer.weight.reshape(len(layer.weight), -1) @ columns + layer.bias[:, None]
    return np.asarray(np.maximum(drawn, 0).reshape(-1, high, wide), np.float32)


def _middle(pixels: Pixels, side: int) -> Pixels:
    """At most so many pixels each way, from the middle, on the grid."""
    top, left = (max(0, each - side) // 2 // GRID * GRID for each in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]
