"""Judges pictures, finished or sent: whole, judgeable, and none of those known to be blocked.

It sees pixels and the scores the engine sent along, nothing else; it loads no model. It can't tell
what a new picture shows: that is for classifiers, whose scores will be judged here too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import OperatorError
from calotype.core.nouns import Verdict, VerdictKind
from calotype.safety import phash
from calotype.safety.errors import SafetyUnavailable

RULES = 1  # version of the rules below
FINITE = "finite"  # the score that says no number of the picture was lost: 1.0
SHIPPED = Path(__file__).with_name("known_pictures.txt")


@dataclass(frozen=True)
class KnownPictures:
    """The bank of blocked pictures, by perceptual hash."""

    hashes: tuple[int, ...]

    @classmethod
    def from_file(cls, path: Path) -> KnownPictures:
        """Read a bank, one "hash name" per line; raises OperatorError naming file and line."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise OperatorError(f"{path} can't be read: {error}") from error
        found = []
        for number, line in enumerate(lines, 1):
            word = line.partition(" ")[0].strip()
            if not line.strip() or line.startswith("#"):
                continue
            if len(word) != phash.BITS // 4 or not set(word) <= set("0123456789abcdef"):
                raise OperatorError(f"{path}, line {number}: not a hash of 16 hex digits")
            found.append(int(word, 16))
        return cls(tuple(found))

    @property
    def version(self) -> str:
        """Hash of the bank: first 12 hex digits of SHA-256."""
        text = ",".join(f"{each:016x}" for each in self.hashes)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def nearest(self, positions: tuple[int, ...]) -> int:
        """The smallest distance to any known picture, 0..64; 65 if the bank is empty."""
        return min(
            (phash.distance(one, other) for one in self.hashes for other in positions),
            default=phash.BITS + 1,
        )


class PictureCheck:
    """Judges a picture before anything of it is stored for delivery."""

    def __init__(self, known: KnownPictures) -> None:
        self._known = known
        self.version = f"{RULES}-{known.version}"

    @classmethod
    def default(cls) -> PictureCheck:
        """With the bank that ships with the package, which is empty."""
        return cls(KnownPictures.from_file(SHIPPED))

    @classmethod
    def from_file(cls, path: Path) -> PictureCheck:
        """With an operator's bank; raises OperatorError if it can't be read."""
        return cls(KnownPictures.from_file(path))

    def judge(self, pixels: NDArray[np.uint8], scores: Mapping[str, float]) -> Verdict:
        """Judge height x width x 3 RGB bytes and the engine's scores for them.

        BLOCK with category "damaged", "unjudgeable" or "known"; else ALLOW. Raises
        SafetyUnavailable if it can't be judged at all: no "finite" score, or no such picture.
        """
        if FINITE not in scores:
            raise SafetyUnavailable(f"the engine sent no score {FINITE!r}", field=FINITE)
        _check_shape(pixels)
        if scores[FINITE] != 1.0:  # also when it is NaN
            return self._block("integrity", "damaged", 1.0, "The picture came out damaged.")
        return self._compared(
            pixels, "The picture came out flat, so it can't be checked; another seed may help."
        )

    def judge_input(self, pixels: NDArray[np.uint8]) -> Verdict:
        """Judge a picture that a person sent, height x width x 3, before anything begins from it.

        BLOCK with category "unjudgeable" or "known"; else ALLOW. Raises SafetyUnavailable if it is
        no such picture.
        """
        _check_shape(pixels)
        return self._compared(pixels, "The picture is flat, so it can't be checked.")

    def _compared(self, pixels: NDArray[np.uint8], if_flat: str) -> Verdict:
        greys = phash.small(pixels)
        # "No match" for a picture that can't be compared would be an answer without a question,
        # and nobody looks at pictures held for review yet: so it is blocked, not let through.
        if phash.contrast(greys) < phash.CONTRAST_MIN:
            return self._block("integrity", "unjudgeable", 1.0, if_flat)
        nearest = self._known.nearest(phash.hashes(greys))
        if nearest <= phash.DISTANCE_MAX:
            score = 1.0 - nearest / phash.BITS
            return self._block("known", "known", score, "The picture is one that is blocked.")
        return Verdict(VerdictKind.ALLOW, "pictures", self.version)

    def _block(self, check: str, category: str, score: float, detail: str) -> Verdict:
        return Verdict(VerdictKind.BLOCK, check, self.version, category, score, detail)


def _check_shape(pixels: NDArray[np.uint8]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise SafetyUnavailable(f"not an RGB picture: {pixels.dtype} {pixels.shape}")
