"""Pictures that people have decided on, given out as labelled folders for a check to learn from.

Only what people decided, and what may still be kept: never a severe category's, never a pool's,
nothing that was let go or taken away. Who takes it stands in the audit trail before a byte is
written, for the export and for each picture of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calotype.core import limits
from calotype.core.errors import Conflict, Forbidden, InternalError, InvalidInput, NotFound
from calotype.core.ids import new_id
from calotype.core.nouns import Key
from calotype.core.reviews import Review
from calotype.core.states import ReviewState
from calotype.delivery import inputs
from calotype.delivery.store import PictureStore
from calotype.files.private import write_private_bytes
from calotype.flow.cases import person_of
from calotype.flow.review import SCOPE
from calotype.flow.sealed import Sealed, png_of
from calotype.jobs.store import JobStore
from calotype.safety.conduct import Conduct

KEPT, DELIVERED = "kept", "delivered"  # whence a picture comes: the folder in its label's


@dataclass(frozen=True)
class Exported:
    """What was given out."""

    id: str  # of its entry in the audit trail
    labels: dict[str, int]  # pictures by label
    left_out: dict[str, int]  # decided pictures that weren't given out, by why


class Export:
    """Gives out decided pictures of one installation."""

    def __init__(
        self, store: JobStore, sealed: Sealed, pictures: PictureStore, conduct: Conduct
    ) -> None:
        """``sealed`` is where those that people refused are kept, ``pictures`` delivered ones."""
        self._store, self._sealed = store, sealed
        self._pictures, self._conduct = pictures, conduct

    async def to(
        self,
        folder: Path,
        key: Key,
        *,
        reason: str,
        harmless: str = "harmless",
        most: int = limits.EXPORT_PICTURES_MAX,
    ) -> Exported:
        """Write ``folder/<label>/<whence>/<review>.png``, of the ``most`` that were decided last.

        The label of what people let out is ``harmless``, of what they refused its category.
        Raises Forbidden (the key is no reviewer's), InvalidInput, Conflict (the folder isn't
        empty), and OperatorError.
        """
        _check(key, reason, most)
        await asyncio.to_thread(_make, folder)
        export, person = new_id("exp"), person_of(key)
        by = f"{person.who} ({person.key})"
        decided = await self._store.people.reviews.decided(most)
        said = {"reviews": len(decided), "reason": reason, "folder": str(folder)}
        await self._store.people.audit.note(export, "exported", by, said)
        labels, left_out = Counter[str](), Counter[str]()
        for review in decided:
            label = harmless if review.state is ReviewState.ALLOWED else review.category or ""
            why = await self._why_not(review, label, harmless)
            found = None if why else await self._picture(review)
            if found is None:
                left_out[why or "kept no longer"] += 1
                continue
            whence, png = found
            told = {"export": export, "label": label}
            await self._store.people.audit.note(review.id, "exported", by, told)
            file = folder / label / whence / f"{review.id}.png"
            await asyncio.to_thread(_write, file, png)
            labels[label] += 1
        return Exported(export, dict(labels), dict(left_out))

    async def _why_not(self, review: Review, label: str, harmless: str) -> str:
        conduct, category = self._conduct, review.category  # as they are now, and as it was then
        if review.is_severe or conduct.is_severe(category) or conduct.is_case(category):
            return "severe"
        if not label or (label == harmless and review.state is not ReviewState.ALLOWED):
            return "without a label"
        if (await self._store.get(review.job_id)).spec.pool:
            return "of a pool"
        return ""

    async def _picture(self, review: Review) -> tuple[str, bytes] | None:
        """The picture as it was judged, or as it is delivered; None if neither is there."""
        if review.sealed:
            try:
                png = png_of(await self._sealed.open(review.sealed))
            except NotFound:  # let go since
                return None
            if await asyncio.to_thread(_pixels_sha256, png) != review.pixels_sha256:
                raise InternalError(f"what is sealed for {review.image} isn't what was judged")
            return KEPT, png
        delivered = await self._store.files.of(review.image)
        if delivered is None or delivered.is_removed:
            return None
        file = delivered.file("png", 0)
        return (DELIVERED, await self._pictures.get(file.name)) if file else None


def _check(key: Key, reason: str, most: int) -> None:
    if SCOPE not in key.scopes:
        raise Forbidden(
            f"the key has no scope {SCOPE!r}", field="key", limit=f"a key with the scope {SCOPE}"
        )
    if not reason.strip() or len(reason) > limits.REASON_CHARS_MAX:
        raise InvalidInput(
            f"a reason has 1 to {limits.REASON_CHARS_MAX:,} characters",
            field="reason",
            limit={"max_chars": limits.REASON_CHARS_MAX},
        )
    if not 1 <= most <= limits.EXPORT_PICTURES_MAX:
        raise InvalidInput(
            f"1 to {limits.EXPORT_PICTURES_MAX:,} pictures are given out at once",
            field="most",
            limit=limits.EXPORT_PICTURES_MAX,
        )


def _make(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Conflict(f"{folder} isn't empty", field="output", limit="a new folder")


def _write(file: Path, png: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private_bytes(file, png)


def _pixels_sha256(png: bytes) -> str:
    pixels = np.ascontiguousarray(inputs.read(png, is_kept=True))
    return hashlib.sha256(pixels.tobytes()).hexdigest()
