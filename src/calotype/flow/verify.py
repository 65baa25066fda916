"""Where a picture came from: its claim, its mark, the hash log, and what follows from the three.

Each can be lost or forged by itself: a claim goes with any re-encoding, a mark can be copied, and a
log entry is only of a file. So each is told with how sure it is, and the verdict says which carry
it. Nothing that is in a file makes this raise. The command line and HTTP ask here, both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calotype.core.hash_log import leaf_hash, proves
from calotype.flow.examine import Seen, examine
from calotype.jobs.files import PictureFiles
from calotype.jobs.hash_log import HashLog, Kept
from calotype.provenance import fingerprint
from calotype.provenance.detection import CANDIDATES_MAX, Mark, confirm
from calotype.provenance.geometry import Guess
from calotype.provenance.stable_signature import DecoderFound, DecoderMark
from calotype.provenance.verification import Report
from calotype.provenance.watermark import MarkKey

NEAR_BITS = 20  # of 64; what is that near is then compared by its sketch
NEAR_MAX = CANDIDATES_MAX  # entries that are compared
LOOKS_MIN = 0.97  # likeness by which a picture without a mark is called a copy

Verdict = Literal["ours", "ours_changed", "ours_by_mark", "ours_by_looks", "ours_by_decoder",
                  "copied_mark", "signed_by_others", "not_ours"]  # fmt: skip
Confidence = Literal["proven", "near_certain", "likely", "unknown"]

SENTENCES: dict[Verdict, str] = {
    "ours": "signed by us and unchanged",
    "ours_changed": "its claim was made here, but the file was changed since it was signed",
    "ours_by_mark": "made here: it has our mark, and fits the picture that was given it",
    "ours_by_looks": "looks like a picture that was made here; it has no mark of ours",
    "ours_by_decoder": "has the mark that a decoder of ours draws; nothing else says it is ours",
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
    decoder: DecoderFound | None = None  # the mark of a decoder that drew it

    @property
    def sentence(self) -> str:
        """The verdict for people."""
        return SENTENCES[self.verdict]

    @property
    def confidence(self) -> tuple[Confidence, str]:
        """How sure the verdict is, and what that rests on."""
        sure: tuple[Confidence, str]
        match self.verdict:
            case "ours":
                sure = "proven", "its signature covers every byte, and its key is ours"
            case "ours_changed" if self.claim.state == "trusted":
                sure = "proven", "its claim is ours, and its SHA-256 none of those that were signed"
            case "ours_changed" if self.claim.is_signed_here:
                sure = "proven", "its signature is ours, and doesn't fit the file any more"
            case "signed_by_others":
                signer = self.claim.signer or "a key that isn't ours"
                sure = "proven", f"its signature covers every byte; it is by {signer}"
            case "not_ours":
                sure = "unknown", "all three witnesses can be removed, so this proves nothing"
            case "ours_by_looks":
                sure = self._by_the_log()
            case "ours_by_decoder":
                assert self.decoder is not None
                share = f"{self.decoder.false_max:.0e}"
                sure = "likely", f"less than {share} of unmarked pictures seem to have this mark"
            case _:
                assert self.mark is not None
                share = f"{max(self.mark.false_max, 1e-30):.0e}"
                sure = (
                    "near_certain",
                    f"less than {share} of unmarked pictures seem to have this mark",
                )
        return sure

    def _by_the_log(self) -> tuple[Confidence, str]:
        assert self.logged is not None
        if self.logged.by == "file":
            return "proven", "its SHA-256 is in the hash log"
        return "likely", f"likeness {self.logged.likeness or 0:.3f}; pictures can look alike"


async def origin(
    data: bytes,
    *,
    log: HashLog,
    keys: Sequence[MarkKey],
    anchors_pem: str | None,
    serials: Collection[str] | None = None,
    files: PictureFiles | None = None,
    decoders: Sequence[DecoderMark] = (),
) -> Origin:
    """Look at a file from every side, here and now. ``keys``: those of the mark, old ones too."""
    seen = examine(data, keys=keys, anchors_pem=anchors_pem, serials=serials, decoders=decoders)
    return await origin_of(seen, log, files, keys)


async def origin_of(
    seen: Seen,
    log: HashLog,
    files: PictureFiles | None = None,
    keys: Sequence[MarkKey] = (),
) -> Origin:
    """What follows from what was seen of a file, from the log, and from the records of files.

    With ``keys`` the marks of pictures that it looks like are looked for once more, one by one.
    """
    seen, logged = await _logged(seen, log, keys)
    verdict = _verdict(seen, logged)
    if verdict == "ours" and files is not None and await _is_another(seen, files):
        verdict = "ours_changed"
    is_picture = seen.grey is not None
    return Origin(verdict, seen.claim, seen.mark, logged, is_picture, seen.decoder)


async def _is_another(seen: Seen, files: PictureFiles) -> bool:
    """Whether a file whose claim is whole is none of those that were signed of its picture.

    A claim leaves out a few bytes of itself, which can be changed without it noticing.
    """
    image = str((seen.claim.manifest or {}).get("image", ""))
    signed = await files.sha256s(image)
    return bool(signed) and seen.sha256 not in signed


async def _logged(seen: Seen, log: HashLog, keys: Sequence[MarkKey]) -> tuple[Seen, Logged | None]:
    """The entry of this file, else of its mark, else of what looks the same; and what was seen.

    Of a picture that looks like an entry's that entry's mark is looked for, too: too little of it
    may be left to be found by itself.
    """
    if kept := await log.of_file(seen.sha256):
        return seen, await _told(kept, "file", 1.0, log)
    grey, mark = seen.grey, seen.mark
    if grey is None:
        return seen, None
    if mark is not None and mark.payload is not None and (kept := await log.of_mark(mark.payload)):
        likeness = await asyncio.to_thread(_likeness, kept, grey, mark.placed)
        return seen, await _told(kept, "mark", likeness, log)
    near = await log.near(seen.phashes, bits=NEAR_BITS, most=NEAR_MAX)
    likenesses = await asyncio.to_thread(lambda: [_looks(kept, grey) for kept in near])
    scored = [
        (likeness, kept)
        for likeness, kept in zip(likenesses, near, strict=True)
        if likeness is not None and likeness >= fingerprint.FITS_MIN
    ]
    if found := await asyncio.to_thread(_confirmed, grey, [kept for _, kept in scored], keys):
        at, mark = found
        return replace(seen, mark=mark), await _told(scored[at][1], "mark", scored[at][0], log)
    best = max(scored, key=lambda each: each[0], default=None)
    if best is None or best[0] < LOOKS_MIN:
        return seen, None
    return seen, await _told(best[1], "looks", best[0], log)


def _confirmed(
    grey: NDArray[np.uint8], entries: Sequence[Kept], keys: Sequence[MarkKey]
) -> tuple[int, Mark] | None:
    """Which entry's mark is in the picture after all, and the mark."""
    known = {key.id: key for key in keys}
    at = [number for number, kept in enumerate(entries) if kept.entry.mark_key in known]
    candidates = [
        (known[entry.mark_key], entry.mark, max(grey.shape) / max(entry.height, entry.width))
        for entry in (entries[number].entry for number in at)
    ]
    found = confirm(grey, candidates)
    return found and (at[found[0]], found[1])


async def _told(
    kept: Kept, by: Literal["file", "mark", "looks"], likeness: float | None, log: HashLog
) -> Logged:
    proof = await log.proof(kept.number)
    # Of the entry as it stands, not of the leaf that was kept: so a changed entry shows. A sketch
    # may have been wiped: then the leaf is all there is.
    leaf = leaf_hash(kept.entry) if kept.entry.sketch else kept.leaf
    is_proven = proves(leaf, proof.number, proof.count, proof.path, proof.head)
    return Logged(kept, by, likeness, proof.count, proof.head, is_proven)


def _likeness(kept: Kept, grey: NDArray[np.uint8], placed: Guess) -> float | None:
    if not kept.entry.sketch:
        return None
    drawn, size = fingerprint.from_bytes(kept.entry.sketch), (kept.entry.height, kept.entry.width)
    return fingerprint.likeness(drawn, size, grey, placed)


def _looks(kept: Kept, grey: NDArray[np.uint8]) -> float | None:
    """How alike they look, whether the picture was only made smaller or cut by a little."""
    whole = max(grey.shape) / max(kept.entry.height, kept.entry.width)
    found = []
    for share in (1.0, 0.95, 0.9, 0.85):  # of the entry's picture that is left
        for is_mirrored in (False, True):
            placed = Guess(0.0, whole / share, is_mirrored)
            found.append(_likeness(kept, grey, placed))
    return max((each for each in found if each is not None), default=None)


def _verdict(seen: Seen, logged: Logged | None) -> Verdict:
    claim, mark = seen.claim, seen.mark
    if claim.state == "trusted":
        return "ours"
    if claim.is_signed_here:
        return "ours_changed"
    if mark is not None:
        if logged is not None and logged.by == "mark" and not _fits(logged):
            return "copied_mark"
        return "ours_changed" if claim.state == "invalid" else "ours_by_mark"
    if logged is not None:
        return "ours_by_looks"
    others: Verdict = "signed_by_others" if claim.state == "valid" else "not_ours"
    return "ours_by_decoder" if seen.decoder else others


def _fits(logged: Logged) -> bool:
    """Whether a mark fits its record; what is too plain to tell is given the benefit."""
    return logged.likeness is None or logged.likeness >= fingerprint.FITS_MIN


def body(found: Origin) -> dict[str, Any]:
    """The same as JSON-ready values, for every way to ask."""
    mark, logged = found.mark, found.logged
    level, why = found.confidence
    return {
        "verdict": found.verdict,
        "detail": found.sentence,
        "confidence": level,
        "confidence_detail": why,
        "c2pa": {
            "state": found.claim.state,
            "codes": list(found.claim.codes),
            "signer": found.claim.signer,
            "manifest": found.claim.manifest,
            "ingredients": list(found.claim.ingredients),
        },
        "watermark": mark
        and {
            "payload": None if mark.payload is None else f"{mark.payload:016x}",
            "key": mark.key,
            "statistic": round(mark.statistic, 2),
            "threshold": round(mark.threshold, 2),
            "false_max": mark.false_max,
            "turn": round(mark.placed.turn, 2),
            "scale": round(mark.placed.scale, 4),
            "mirrored": mark.placed.is_mirrored,
        },
        "decoder_mark": found.decoder and asdict(found.decoder),
        "hash_log": logged
        and {
            "image": logged.kept.entry.image,
            "by": logged.by,
            "likeness": logged.likeness,
            "number": logged.kept.number,
            "count": logged.count,
            "head": logged.head.hex(),
            "proven": logged.is_proven,
            "at": logged.kept.entry.at.isoformat(),
        },
    }
