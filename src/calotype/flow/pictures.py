"""The pictures that jobs begin from: taken in from people, judged, kept for a while, brought.

A picture's id is made of its tenant and its pixels: the same one sent twice is one picture, and
nobody learns from an id what another tenant has. A finished image can be begun from as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from calotype.core import limits
from calotype.core.errors import CalotypeError, NotFound, Refused
from calotype.core.ids import content_id
from calotype.core.nouns import InputPicture, Verdict, VerdictKind
from calotype.delivery.names import id_of, kept_name
from calotype.delivery.store import PictureStore
from calotype.flow.delivery import Delivery, gone
from calotype.flow.finish import Brought, Finisher, Wanted
from calotype.jobs.store import JobStore

log = structlog.get_logger("calotype.pictures")

SENT = "pic"  # how ids of pictures begin that people sent; others are finished images
FORM = "png"  # the one form in which they are kept


Told = Callable[[str, str, Verdict, bytes], Awaitable[None]]


class InputPictures:
    """Takes pictures in, finds them again, and lets them go some days after their last use."""

    def __init__(
        self, store: JobStore, finisher: Finisher, kept: PictureStore, images: Delivery
    ) -> None:
        self._store, self._finisher = store, finisher
        self._kept, self._images = kept, images
        self._writing = asyncio.Lock()  # a file and its record come and go together
        self.refused: Told | None = None  # told of what isn't taken: tenant, user, why, file

    async def take_in(self, tenant: str, data: bytes, user: str = "") -> InputPicture:
        """Read, judge and keep the file of a picture.

        Raises InvalidInput (``delivery.inputs``), Refused by the safety policy, SafetyUnavailable,
        or TooMany. Nothing is kept before its verdict.
        """
        taken = await self._finisher.take_in(data)
        if taken.verdict.kind is not VerdictKind.ALLOW and self.refused is not None:
            await self.refused(tenant, user, taken.verdict, data)
        _check(taken.verdict)
        size = f"{taken.width}x{taken.height}"
        picture = InputPicture(
            id=content_id(SENT, tenant.encode(), size.encode(), taken.pixels_sha256.encode()),
            width=taken.width,
            height=taken.height,
            bytes=len(taken.png),
            sha256=taken.pixels_sha256,
            used_at=datetime.now(UTC),
        )
        async with self._writing:
            await self._kept.put(kept_name(picture.id, FORM), taken.png)
            try:
                await self._store.pictures.add(tenant, picture, taken.ingredient)
            except CalotypeError:
                await self._kept.delete(kept_name(picture.id, FORM))
                raise
        return picture

    async def find(self, tenant: str, picture_id: str, *, pool: str = "") -> InputPicture:
        """A picture that this tenant sent, or an image that was made for it. Raises NotFound.

        Of images only those that were made in ``pool``, or in none.
        """
        if picture_id.startswith(f"{SENT}_"):
            return await self._store.pictures.get(picture_id, tenant=tenant)
        image, job = await self._store.pictures.image(picture_id, tenant=tenant)
        if image.removed_at is not None:
            raise gone()
        if job.spec.pool not in ("", pool):
            raise NotFound(
                f"there is no picture {picture_id} that this job may begin from",
                field="image_id",
                limit="one that was made under its own policy, or under everybody's",
            )
        assert job.finished_at is not None
        return InputPicture(
            image.id, image.width, image.height, 0, image.pixels_sha256, job.finished_at
        )

    async def owner(self, picture_id: str) -> str | None:
        """The tenant that sent it; None if nobody did, or it was let go."""
        sent = await self._store.pictures.sent(picture_id)
        return sent.tenant if sent else None

    async def file(self, picture_id: str) -> bytes:
        """The PNG that is kept of it; raises NotFound. Whose it is was asked before."""
        if picture_id.startswith(f"{SENT}_"):
            return await self._kept.get(kept_name(picture_id, FORM))
        return await self._images.png(picture_id)

    async def bring(self, picture_id: str, width: int, height: int, channels: int) -> Brought:
        """The picture as a row wants it. Raises NotFound, and Refused by what is known now."""
        file = await self.file(picture_id)
        sent = await self._store.pictures.sent(picture_id)
        claim = sent.ingredient if sent else None
        wanted = Wanted(file, width, height, channels, picture_id, claim)
        brought = await self._finisher.bring(wanted)
        _check(brought.verdict)
        return brought

    async def sweep(self) -> None:
        """Delete files that have no record; before anything is taken in.

        A database without any leaves them alone: they are of another one, which may come back.
        """
        await self._kept.delete_drafts()
        if not await self._store.pictures.count():
            return
        async for page in self._kept.names():
            ids = {name: id_of(name) or "" for name in page}
            known = await self._store.pictures.known(set(ids.values()))
            for name in sorted(name for name in page if ids[name] not in known):
                await self._kept.delete(name)

    async def let_go(self) -> list[str]:
        """Delete the pictures that are of no use any more, and return their ids."""
        before = datetime.now(UTC) - timedelta(seconds=limits.PICTURE_KEPT_S)
        async with self._writing:
            waiting = await self._store.unfinished()
            keep = {each for job in waiting for each in job.spec.picture_ids}
            keep |= await self._store.people.cases.held_pictures()
            gone = await self._store.pictures.drop_unused(before=before, keep=keep)
            for picture_id in gone:
                await self._kept.delete(kept_name(picture_id, FORM))
        return gone

    async def let_go_for_ever(self) -> None:
        """Do so every PICTURE_SWEEP_S."""
        while True:
            try:
                if gone := await self.let_go():
                    log.info("pictures_let_go", count=len(gone))
            except Exception:  # what can't be deleted now is looked at again in an hour
                log.exception("pictures_not_let_go")
            await asyncio.sleep(limits.PICTURE_SWEEP_S)


def _check(verdict: Verdict) -> None:
    if verdict.kind is not VerdictKind.ALLOW:
        raise Refused(
            verdict.detail,
            field="picture",
            category=verdict.category,
            check=verdict.check,
            version=verdict.version,
        )
