"""Which pictures people sent: whose they are, and when each was last of use.

Their files lie elsewhere. Finished images are looked up here too, since a job can begin from one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from calotype.core import limits
from calotype.core.errors import NotFound, TooMany
from calotype.core.nouns import Image, InputPicture, Job
from calotype.core.states import JobState
from calotype.jobs import tables
from calotype.jobs.database import Database
from calotype.jobs.rows import image_of, job_of, utc_now


@dataclass(frozen=True)
class Sent:
    """What a picture's record says beside the picture."""

    tenant: str
    ingredient: bytes | None  # the archive of the claim that it came with


class Pictures:
    """The records of pictures that jobs can begin from, in the job store's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, tenant: str, picture: InputPicture, ingredient: bytes | None = None
    ) -> None:
        """Record a picture of this tenant, or that it was sent again. Raises TooMany."""
        pictures = tables.pictures
        values = {"used_at": picture.used_at}

        async def write() -> None:
            async with self._database.writing() as conn:
                known = update(pictures).where(pictures.c.id == picture.id).values(values)
                if (await conn.execute(known)).rowcount:
                    return
                held = select(func.count(), func.coalesce(func.sum(pictures.c.bytes), 0))
                count, held_bytes = (
                    await conn.execute(held.where(pictures.c.tenant == tenant))
                ).one()
                _check_room(count, held_bytes + picture.bytes)
                await conn.execute(
                    insert(pictures).values(
                        id=picture.id,
                        tenant=tenant,
                        width=picture.width,
                        height=picture.height,
                        bytes=picture.bytes,
                        sha256=picture.sha256,
                        ingredient=ingredient,
                        **values,
                    )
                )

        await self._database.finish(write())

    async def get(self, picture_id: str, *, tenant: str) -> InputPicture:
        """A picture that this tenant sent. Raises NotFound."""
        pictures = tables.pictures
        mine = (pictures.c.id == picture_id) & (pictures.c.tenant == tenant)
        async with self._database.reading() as conn:
            row = (await conn.execute(select(pictures).where(mine))).one_or_none()
        if row is None:
            raise NotFound(
                f"there is no picture {picture_id[:40]}",
                field="picture_id",
                limit="the id of a picture of yours",
            )
        return _picture_of(row)

    async def sent(self, picture_id: str) -> Sent | None:
        """Who sent a picture, and with what claim; None if nobody did."""
        it = tables.pictures
        query = select(it.c.tenant, it.c.ingredient).where(it.c.id == picture_id)
        async with self._database.reading() as conn:
            row = (await conn.execute(query)).one_or_none()
        return Sent(row.tenant, row.ingredient) if row else None

    async def use(self, picture_ids: Collection[str]) -> None:
        """Note that a job names these, so that they are kept on."""
        pictures = tables.pictures

        async def write() -> None:
            async with self._database.writing() as conn:
                named = update(pictures).where(pictures.c.id.in_(picture_ids))
                await conn.execute(named.values(used_at=utc_now()))

        await self._database.finish(write())

    async def drop_unused(self, *, before: datetime, keep: Collection[str]) -> list[str]:
        """Forget those last of use before then, but for ``keep``; return their ids."""
        pictures = tables.pictures

        async def write() -> list[str]:
            async with self._database.writing() as conn:
                old = select(pictures.c.id).where(pictures.c.used_at < before)
                gone = sorted(set((await conn.execute(old)).scalars()) - set(keep))
                if gone:
                    await conn.execute(delete(pictures).where(pictures.c.id.in_(gone)))
                return gone

        return await self._database.finish(write())

    async def known(self, picture_ids: Collection[str]) -> set[str]:
        """Those of these ids that somebody sent."""
        query = select(tables.pictures.c.id).where(tables.pictures.c.id.in_(picture_ids))
        async with self._database.reading() as conn:
            return set((await conn.execute(query)).scalars())

    async def count(self) -> int:
        """How many there are."""
        async with self._database.reading() as conn:
            return (
                await conn.execute(select(func.count()).select_from(tables.pictures))
            ).scalar_one()

    async def image(self, image_id: str, *, tenant: str) -> tuple[Image, Job]:
        """A delivered image of this tenant, and the job it is of. Raises NotFound."""
        images, jobs = tables.images, tables.jobs
        done = jobs.c.state == JobState.SUCCEEDED.value
        async with self._database.reading() as conn:
            found = (
                await conn.execute(select(images).where(images.c.id == image_id))
            ).one_or_none()
            job = None
            if found is not None:
                mine = (jobs.c.id == found.job_id) & (jobs.c.tenant == tenant) & done
                job = (await conn.execute(select(jobs).where(mine))).one_or_none()
        if found is None or job is None:
            raise NotFound(
                f"there is no image {image_id[:40]}",
                field="image_id",
                limit="the id of an image of yours",
            )
        return image_of(found), job_of(job, ())


def _check_room(held: int, bytes_then: int) -> None:
    most = limits.PICTURES_PER_TENANT_MAX
    if held >= most:
        raise TooMany(
            f"{most:,} of your pictures are kept already; each goes some days after its last use",
            limit=most,
        )
    most = limits.PICTURE_BYTES_PER_TENANT_MAX
    if bytes_then > most:
        raise TooMany(
            f"your pictures would take {bytes_then:,} bytes; {most:,} are allowed at one time",
            limit=most,
        )


def _picture_of(row: Row[Any]) -> InputPicture:
    values = dict(row._mapping)
    del values["tenant"], values["ingredient"]
    return InputPicture(**values)
