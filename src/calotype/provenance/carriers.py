"""What a key makes of a payload: which waves of a 128-pixel tile carry it, and with what phases.

The mark is a tile that repeats over the picture: a sum of waves whose frequencies lie on a ring of
the tile's spectrum. A key deals them out. Some are the *pilot*, whose phases only the key decides:
it says that there is a mark, and where. The others carry twelve symbols of a Reed-Solomon code over
GF(256) (8 of payload, 4 of redundancy); each symbol is one of 256 keyed sequences of phases, so
that a symbol is read from all of its waves at once, softly. Knows nothing of pictures.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from reedsolo import ReedSolomonError, RSCodec

SIDE = 128  # pixels of the tile, each way
PAYLOAD_BYTES = 8
PARITY = 4  # symbols: two wrong ones are mended, or four that are known to be weak
SYMBOLS = PAYLOAD_BYTES + PARITY
PILOTS = 128  # waves; the largest statistic there can be is sqrt(2 * PILOTS) = 16
PILOT_SHARE = 0.35  # of the mark's energy
# With four symbols left out every word can be mended, to something. What then stands in their
# places has to fit the waves: a symbol that is there fits by 2 or more, any other by 0 +- 1.
MENDED_MIN = 1.5  # mean, where more symbols are mended than the code finds by itself
# Waves a tile: below, the picture itself is loud and the eye keen; above, JPEG throws them away.
RING = (7.0, 26.0)

Complexes = NDArray[np.complex64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Read:
    """What the symbols of a tile said."""

    payload: int | None  # None: more symbols are wrong than the code mends
    mended: int  # symbols that differ from what was read


@dataclass(frozen=True)
class Waves:
    """Waves of a tile whose phases are known."""

    at: Whole  # N x 2
    expected: Complexes  # N: how strong each is, and its phase
    shared: NDArray[np.float32]  # N: how many of them have the same phase of the key's

    def find(self, spectrum: Complexes) -> tuple[float, tuple[int, int]]:
        """Where they fit a tile's (whitened) spectrum best: the statistic, and the shift.

        The statistic is the correlation over its standard deviation if the phases were drawn anew:
        for any one shift, P(statistic >= t) <= exp(-t**2 / 2) over the keys, whatever the tile. (A
        sum of independent |g| cos(phase) is strictly sub-Gaussian, since I0(x) <= exp(x**2 / 4).
        Of n waves that share a phase |g1 + ... + gn|**2 <= n (|g1|**2 + ... + |gn|**2).)
        """
        heard = spectrum[self.at[:, 0], self.at[:, 1]] * np.conj(self.expected)
        deviation = np.sqrt(float((self.shared * np.abs(heard) ** 2).sum()) / 2)
        if deviation == 0.0:
            return 0.0, (0, 0)
        product = np.zeros((SIDE, SIDE), np.complex64)
        product[self.at[:, 0], self.at[:, 1]] = heard
        fits = np.fft.ifft2(product).real * (SIDE * SIDE / deviation)
        best = int(fits.argmax())
        return float(fits.flat[best]), divmod(best, SIDE)


@dataclass(frozen=True)
class Carriers:
    """One key's waves. Frequencies are (y, x), in waves a tile."""

    pilot_at: Whole  # PILOTS x 2
    pilot: Complexes  # PILOTS, of magnitude 1
    symbols_at: Whole  # SYMBOLS x waves of one x 2
    sequences: Complexes  # 256 x waves of one, of magnitude 1

    def tile(self, payload: int) -> NDArray[np.float32]:
        """The tile of a payload (0..2**64-1): SIDE x SIDE, mean 0, standard deviation 1."""
        symbols = _symbols(payload)
        spectrum = np.zeros((SIDE, SIDE), np.complex64)
        count = self.symbols_at.shape[0] * self.symbols_at.shape[1]
        of_pilot = np.sqrt(PILOT_SHARE / len(self.pilot))
        spectrum[self.pilot_at[:, 0], self.pilot_at[:, 1]] = of_pilot * self.pilot
        at = self.symbols_at
        of_symbols = np.sqrt((1 - PILOT_SHARE) / count)
        spectrum[at[..., 0], at[..., 1]] = of_symbols * self.sequences[symbols]
        tile = np.fft.ifft2(spectrum).real
        return np.asarray(tile / tile.std(), np.float32)

    def find(self, spectrum: Complexes) -> tuple[float, tuple[int, int]]:
        """Where the pilot fits a tile's (whitened) spectrum best: see Waves.find."""
        return Waves(self.pilot_at, self.pilot, np.ones(len(self.pilot), np.float32)).find(spectrum)

    def of_payload(self, payload: int) -> Waves:
        """All waves of a payload's tile."""
        symbols = _symbols(payload)
        _, which, counts = np.unique(symbols, return_inverse=True, return_counts=True)
        waves = self.symbols_at.shape[1]
        of_pilot = np.sqrt(PILOT_SHARE / len(self.pilot))
        of_symbols = np.sqrt((1 - PILOT_SHARE) / (len(symbols) * waves))
        expected = (of_pilot * self.pilot, (of_symbols * self.sequences[symbols]).ravel())
        shared = (np.ones(len(self.pilot)), np.repeat(counts[which], waves))
        return Waves(
            np.concatenate([self.pilot_at, self.symbols_at.reshape(-1, 2)]),
            np.concatenate(expected).astype(np.complex64),
            np.concatenate(shared).astype(np.float32),
        )

    def read(self, spectrum: Complexes, shift: tuple[int, int]) -> Read:
        """The payload of a tile whose pilot was found at ``shift``.

        Of the words that the code can mend to, with none to PARITY of the weakest symbols left
        out, that which fits the waves best.
        """
        at = self.symbols_at
        turns = (at[..., 0] * shift[0] + at[..., 1] * shift[1]) / SIDE
        heard = spectrum[at[..., 0], at[..., 1]] * np.exp(2j * np.pi * turns)
        power = np.sqrt((np.abs(heard) ** 2).sum(1, keepdims=True) / 2) + 1e-12
        fits = (heard @ np.conj(self.sequences).T).real / power
        best = fits.argmax(1).astype(np.uint8)
        top = np.sort(fits, axis=1)
        weakest = np.argsort(top[:, -1] - top[:, -2]).tolist()
        found = [_mended(best, weakest[:left_out]) for left_out in range(PARITY + 1)]
        words = [word for word in found if word is not None]
        if not words:
            return Read(None, SYMBOLS)
        word = max(words, key=lambda each: float(fits[np.arange(SYMBOLS), each].sum()))
        mended = word != best
        count = int(mended.sum())
        if count > PARITY // 2 and fits[np.arange(SYMBOLS), word][mended].mean() < MENDED_MIN:
            return Read(None, count)
        return Read(int.from_bytes(word[:PAYLOAD_BYTES].tobytes(), "big"), count)


@lru_cache(maxsize=64)
def carriers(secret: bytes) -> Carriers:
    """The waves of a key (at least 16 secret bytes)."""
    ring = _ring()
    order = np.argsort(_stream(secret, "order", 8 * len(ring)).view("<u8"), kind="stable")
    dealt = ring[order]
    waves = (len(ring) - PILOTS) // SYMBOLS
    return Carriers(
        pilot_at=dealt[:PILOTS],
        pilot=_phases(secret, "pilot", PILOTS),
        symbols_at=dealt[PILOTS : PILOTS + SYMBOLS * waves].reshape(SYMBOLS, waves, 2),
        sequences=_phases(secret, "sequences", 256 * waves).reshape(256, waves),
    )


def _ring() -> Whole:
    """The frequencies of the ring, one of each pair k, -k."""
    whole = np.fft.fftfreq(SIDE, 1 / SIDE)
    y, x = np.meshgrid(whole, whole, indexing="ij")
    radius = np.hypot(y, x)
    is_half = (y > 0) | ((y == 0) & (x > 0))
    chosen = is_half & (radius >= RING[0]) & (radius <= RING[1])
    return np.stack([y[chosen], x[chosen]], 1).astype(np.int64)


def _stream(secret: bytes, use: str, length: int) -> NDArray[np.uint8]:
    label = f"calotype watermark 1 {use}\n".encode()
    return np.frombuffer(hashlib.shake_256(label + secret).digest(length), np.uint8)


def _phases(secret: bytes, use: str, count: int) -> Complexes:
    turns = _stream(secret, use, 2 * count).view("<u2") / 65536
    return np.asarray(np.exp(2j * np.pi * turns), np.complex64)


@lru_cache(maxsize=1)
def _code() -> RSCodec:
    return RSCodec(PARITY)


def _symbols(payload: int) -> NDArray[np.uint8]:
    return np.frombuffer(bytes(_code().encode(payload.to_bytes(PAYLOAD_BYTES, "big"))), np.uint8)


def _mended(symbols: NDArray[np.uint8], left_out: list[int]) -> NDArray[np.uint8] | None:
    try:
        whole = _code().decode(symbols.tobytes(), erase_pos=left_out)[1]
    except ReedSolomonError:
        return None
    return np.frombuffer(bytes(whole), np.uint8)
