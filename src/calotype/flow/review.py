"""Reviews: people look at pictures that a check didn't allow, and decide.

A picture that is let out is marked, signed and stored only once it is decided that it is, and gets
its record in the transaction that writes the decision. Looking at one is written down.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog
from PIL import Image as Pictures
from PIL import ImageFilter

from calotype.core import limits
from calotype.core.errors import Forbidden, InternalError
from calotype.core.nouns import Image, ImageFile, Job, Key, Verdict, VerdictKind
from calotype.core.reviews import Review, Vote
from calotype.delivery.names import stored_name
from calotype.delivery.store import PictureStore
from calotype.flow.cases import CaseBook, person_of
from calotype.flow.conduct import Conductor
from calotype.flow.finish import Allowed, Finished
from calotype.flow.sealed import Sealed, png_of, unpacked
from calotype.flow.sweep import discard
from calotype.jobs.store import JobStore

log = structlog.get_logger("calotype.review")

SCOPE = "review"  # of keys whose people decide
PEOPLE, RULES = "people", "1"  # the check that people are, and its version
COARSE_PX = 32  # longer side of what is shown before somebody asks for more


class LetsOut(Protocol):
    """What marks, encodes and signs pictures."""

    async def let_out(self, allowed: Allowed) -> Finished:
        """Do so with one that people allow."""


class Reviews:
    """The review queue of an installation."""

    def __init__(
        self,
        store: JobStore,
        finisher: LetsOut,
        pictures: PictureStore,
        sealed: Sealed,
        *,
        conductor: Conductor,
        cases: CaseBook,
    ) -> None:
        """``pictures`` is where delivered ones lie, ``sealed`` where those are that wait."""
        self._store, self._kept = store, store.people.reviews
        self._finisher, self._pictures = finisher, pictures
        self._sealed, self._conductor, self._cases = sealed, conductor, cases

    async def every(self, *, is_open: bool, most: int) -> Sequence[Review]:
        """Pictures that people have to decide on, or all, the oldest first."""
        return await self._kept.list(is_open=is_open, most=most)

    async def get(self, review_id: str) -> tuple[Review, Job, Sequence[Vote]]:
        """One, with its job and what was said of it in this round. Raises NotFound."""
        review = await self._kept.get(review_id)
        return review, await self._store.get(review.job_id), await self._kept.votes(review)

    async def picture(self, review_id: str, key: Key, *, is_coarse: bool) -> bytes:
        """The picture as a PNG; coarse: COARSE_PX and blurred. Looking at it whole is written down.

        Raises NotFound, and Forbidden of a case: that is opened by two people, elsewhere.
        """
        review = await self._kept.get(review_id)
        if not review.sealed:
            raise Forbidden(
                "the picture isn't shown here: it is a case's, or kept no longer",
                field="review_id",
                limit="`calotype reports show` for two people",
            )
        if not is_coarse:
            person = person_of(key)
            said = {"key": person.key}
            await self._store.people.audit.note(review_id, "seen", person.who, said)
        png = png_of(await self._sealed.open(review.sealed))
        return await asyncio.to_thread(_coarse, png) if is_coarse else png

    async def decide(self, review_id: str, key: Key, *, is_allowed: bool, reason: str) -> Review:
        """Write what a person says; let the picture out if that decides it so.

        Raises NotFound, InvalidInput, Conflict, Forbidden, and what ``Finisher.finish`` does.
        """
        person = person_of(key)
        review = await self._kept.get(review_id)
        decided = await self._kept.outlook(review_id, person, is_allowed=is_allowed)
        image, stored = None, list[str]()
        try:
            if decided and review.sealed:
                image = await self._made(review, stored)
            after = await self._kept.decide(
                review_id, person, is_allowed=is_allowed, reason=reason, image=image
            )
        except BaseException:
            for name in sorted(set(stored) - await self._store.files.named(stored)):
                await discard(self._pictures, name)
            raise
        log.info("review_voted", review=review_id, state=after.state.value)
        if not after.is_open:
            job = await self._store.get(review.job_id)
            verdict = _verdict(review, is_allowed=bool(decided))
            await self._conductor.decided(job, review.index, verdict, is_allowed=bool(decided))
        return after

    async def appeal(self, key: Key, job_id: str, reason: str) -> Sequence[Review]:
        """Have people look at a tenant's refused job, once.

        Raises NotFound, InvalidInput, Conflict, TooMany.
        """
        return await self._kept.appeal(job_id, key.tenant, reason)

    async def sweep(self) -> None:
        """Take up what a restored database has lost, and destroy what was sealed in vain, a crash
        having come before its record."""
        await self._conductor.recover()
        before = datetime.now(UTC) - timedelta(seconds=limits.APPEAL_S_MAX)
        await self._sealed.sweep(await self._kept.sealed(), before=before)
        await self._cases.sweep()

    async def let_go_for_ever(self) -> None:
        """Every REVIEW_SWEEP_S, keep no longer what has no reason to be kept."""
        while True:
            try:
                await self.let_go()
            except Exception:  # what can't go now goes in an hour
                log.exception("sealed_not_let_go")
            await asyncio.sleep(limits.REVIEW_SWEEP_S)

    async def let_go(self) -> None:
        """Destroy pictures that can't be appealed any more, and cases whose term is over."""
        before = datetime.now(UTC) - timedelta(seconds=limits.APPEAL_S_MAX)
        await self._sealed.destroy(await self._kept.let_go(before=before))
        await self._cases.let_go()

    async def _made(self, review: Review, stored: list[str]) -> Image:
        """The picture, finished and stored by people's verdict; nobody is given it yet."""
        job = await self._store.get(review.job_id)
        verdict = _verdict(review, is_allowed=True)
        allowed = unpacked(await self._sealed.open(review.sealed), verdict, review.image)
        finished = await self._finisher.let_out(allowed)
        if finished.pixels_sha256 != review.pixels_sha256 or finished.entry is None:
            raise InternalError(f"what is sealed for {review.image} isn't what was judged")
        files = []
        for form, data in finished.files.items():
            sha256 = hashlib.sha256(data).hexdigest()
            tier, pool = job.tier.value, job.spec.pool
            name = stored_name(tier, review.image, sha256, form, pool=pool)
            files.append(ImageFile(form, 0, name, sha256, len(data)))
            stored.append(name)
            await self._pictures.put(name, data)
        await self._store.hash_log.append([finished.entry])
        return Image(
            id=review.image,
            index=review.index,
            seed=job.spec.image_seed(review.index),
            width=finished.entry.width,
            height=finished.entry.height,
            sha256=hashlib.sha256(finished.files["png"]).hexdigest(),
            pixels_sha256=finished.pixels_sha256,
            formats=tuple(finished.files),
            verdict=verdict,
            files=tuple(files),
        )


def _verdict(review: Review, *, is_allowed: bool) -> Verdict:
    return Verdict(
        VerdictKind.ALLOW if is_allowed else VerdictKind.BLOCK,
        PEOPLE,
        RULES,
        review.category,
        review.score,
        policy=review.policy,
    )


def _coarse(png: bytes) -> bytes:
    """What shows colours at most."""
    with Pictures.open(io.BytesIO(png), formats=("PNG",)) as opened:
        small = opened.convert("RGB")
        small.thumbnail((COARSE_PX, COARSE_PX))
        file = io.BytesIO()
        small.filter(ImageFilter.GaussianBlur(2)).save(file, "png")
    return file.getvalue()
