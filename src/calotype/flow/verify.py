"""Where a picture came from: its claim, its mark, the hash log, and what follows from the three.

Each can be lost or forged by itself: a claim goes with any re-encoding, a mark can be copied, and a
log entry is only of a file. So each is told with how sure it is, and the verdict says which carry
it. Nothing that is in a file makes this raise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calotype.core.errors import InvalidInput
from calotype.core.hash_log import leaf_hash, proves
from calotype.delivery import inputs
from calotype.jobs.hash_log import HashLog, Kept
from calotype.provenance import fingerprint
from calotype.provenance.detection import Mark, detect
from calotype.provenance.geometry import Guess
from calotype.provenance.verification import Report, verify
from calotype.provenance.watermark import MarkKey
from calotype.safety import phash

NEAR_BITS = 20  # of 64; what is that near is then compared by its sketch
NEAR_MAX = 20  # entries that are compared
LOOKS_MIN = 0.97  # likeness by which a picture without a mark is called a copy

Verdict = Literal["ours", "ours_changed", "ours_by_mark", "ours_by_looks", "copied_mark",
                  "signed_by_others", "not_ours"]  # fmt: skip

SENTENCES: dict[Verdict, str] = {
    "ours": "signed by us and unchanged",
    "ours_changed": "its claim was made here, but the file was changed since it was signed",
    "ours_by_mark": "made here: it has our mark, and fits the picture that was given it",
    "ours_by_looks": "looks like a picture that was made here; it has no mark of ours",
    "copied_mark": "has a mark of ours that was given to another picture: a copied mark",
    "signed_by_others": "signed by somebody else, and unchanged; nothing says it was made here",
    "not_ours": "nothing says that it was made here",
}


@dataclass(frozen=True)
class Logged:
    """An entry of the hash log that has to do with the picture."""

    kept: Kept
    by: Literal["file", "mark", "looks"]
    likeness: float | None  # of the picture and the entry's sketch, -1 to 1; None: can't be told
    count: int  # entries of the log now
    head: bytes
    is_proven: bool  # its place in the log's tree holds


@dataclass(frozen=True)
class Origin:
    """What can be said of where a picture came from."""

    verdict: Verdict
    claim: Report
    mark: Mark | None
    logged: Logged | None
    is_picture: bool  # False: it can't be read as one, so that only its claim was looked at

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        return SENTENCES[self.verdict]


async def origin(
    data: bytes, *, log: HashLog, keys: Sequence[MarkKey], anchors_pem: str | None
) -> Origin:
    """Look at a file from every side. ``keys``: those of the mark, old ones too."""
    claim = verify(data, anchors_pem=anchors_pem)
    try:
        pixels = inputs.read(data)
    except InvalidInput:
        return Origin(_verdict(claim, None, None), claim, None, None, is_picture=False)
    mark = detect(pixels, keys)
    logged = await _logged(data, pixels, mark, log)
    return Origin(_verdict(claim, mark, logged), claim, mark, logged, is_picture=True)


async def _logged(
    data: bytes, pixels: NDArray[np.uint8], mark: Mark | None, log: HashLog
) -> Logged | None:
    """The entry of this file, else of its mark, else of what looks the same."""
    if kept := await log.of_file(hashlib.sha256(data).hexdigest()):
        return await _told(kept, "file", 1.0, log)
    if mark is not None and mark.payload is not None and (kept := await log.of_mark(mark.payload)):
        return await _told(kept, "mark", _likeness(kept, pixels, mark.placed), log)
    hashes = phash.hashes(phash.small(pixels))
    near = await log.near(hashes, bits=NEAR_BITS, most=NEAR_MAX)
    scored = [(likeness, kept) for kept in near if (likeness := _looks(kept, pixels)) is not None]
    best = max(scored, key=lambda each: each[0], default=None)
    if best is None or best[0] < LOOKS_MIN:
        return None
    return await _told(best[1], "looks", best[0], log)


async def _told(
    kept: Kept, by: Literal["file", "mark", "looks"], likeness: float | None, log: HashLog
) -> Logged:
    proof = await log.proof(kept.number)
    # Of the entry as it stands, not of the leaf that was kept: so a changed entry shows. A sketch
    # may have been wiped: then the leaf is all there is.
    leaf = leaf_hash(kept.entry) if kept.entry.sketch else kept.leaf
    is_proven = proves(leaf, proof.number, proof.count, proof.path, proof.head)
    return Logged(kept, by, likeness, proof.count, proof.head, is_proven)


def _likeness(kept: Kept, pixels: NDArray[np.uint8], placed: Guess) -> float | None:
    if not kept.entry.sketch:
        return None
    drawn, size = fingerprint.from_bytes(kept.entry.sketch), (kept.entry.height, kept.entry.width)
    return fingerprint.likeness(drawn, size, pixels, placed)


def _looks(kept: Kept, pixels: NDArray[np.uint8]) -> float | None:
    """How alike they look, whether the picture was only made smaller or cut by a little."""
    height, width, _ = pixels.shape
    whole = max(height, width) / max(kept.entry.height, kept.entry.width)
    found = []
    for share in (1.0, 0.95, 0.9, 0.85):  # of the entry's picture that is left
        for is_mirrored in (False, True):
            placed = Guess(0.0, whole / share, is_mirrored)
            found.append(_likeness(kept, pixels, placed))
    return max((each for each in found if each is not None), default=None)


def _verdict(claim: Report, mark: Mark | None, logged: Logged | None) -> Verdict:
    if claim.state == "trusted":
        return "ours"
    if mark is not None:
        if logged is not None and logged.by == "mark" and not _fits(logged):
            return "copied_mark"
        return "ours_changed" if claim.state == "invalid" else "ours_by_mark"
    if logged is not None:
        return "ours_by_looks"
    return "signed_by_others" if claim.state == "valid" else "not_ours"


def _fits(logged: Logged) -> bool:
    """Whether a mark fits its record; what is too plain to tell is given the benefit."""
    return logged.likeness is None or logged.likeness >= fingerprint.FITS_MIN
