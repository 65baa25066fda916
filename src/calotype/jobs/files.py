"""Which files delivered pictures have, and which pictures were taken away.

What has no record here is served to nobody. Taking a picture away takes its records first, so that
from then on nobody is given it, whatever becomes of the files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core.errors import Conflict, NotFound, OnHold
from calotype.core.nouns import Image, ImageFile
from calotype.jobs import previews, tables
from calotype.jobs.cases import on_hold
from calotype.jobs.database import Database
from calotype.jobs.rows import utc_now


@dataclass(frozen=True)
class Delivered:
    """A delivered picture, and whose it is."""

    image_id: str
    tenant: str
    tier: str
    width: int  # pixels
    height: int  # pixels
    is_removed: bool
    files: tuple[ImageFile, ...]

    def file(self, form: str, side: int) -> ImageFile | None:
        """The stored file in this form and size, if there is one."""
        return next((it for it in self.files if (it.form, it.side) == (form, side)), None)


class RemovalKind(StrEnum):
    """Why a picture isn't there any more."""

    DELETED = "deleted"  # somebody asked for it; for good
    EXPIRED = "expired"  # its tier keeps pictures so long; for good
    WITHDRAWN = "withdrawn"  # kept apart, until it is released or deleted


@dataclass(frozen=True)
class Removal:
    """A picture that was taken away."""

    image_id: str
    tenant: str
    kind: RemovalKind
    by: str
    reason: str
    at: datetime
    files: tuple[ImageFile, ...]  # that it had
    ended_at: datetime | None  # when its files were where they belong: gone, or kept apart
    purged_at: datetime | None  # when caches were told
    receipt: dict[str, Any] | None


class PictureFiles:
    """The records of pictures' files, in the job store's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, image_id: str) -> Delivered | None:
        """A delivered picture, also one that was taken away; None if there never was one."""
        images, jobs, files = tables.images, tables.jobs, tables.picture_files
        found = (
            select(images, jobs.c.tenant, jobs.c.tier)
            .join(jobs, jobs.c.id == images.c.job_id)
            .where(images.c.id == image_id)
        )
        async with self._database.reading() as conn:
            row = (await conn.execute(found)).one_or_none()
            if row is None:
                return None
            rows = await conn.execute(select(files).where(files.c.image_id == image_id))
            return Delivered(
                image_id=image_id,
                tenant=row.tenant,
                tier=row.tier,
                width=row.width,
                height=row.height,
                is_removed=row.removed_at is not None,
                files=tuple(_file_of(each) for each in rows),
            )

    async def add(self, image_id: str, file: ImageFile) -> ImageFile:
        """Record another file of a picture; return the one that has its place.

        That is another if it was made twice at one time. Raises NotFound if the picture was taken
        away meanwhile.
        """
        images, files = tables.images, tables.picture_files
        mine = (files.c.image_id == image_id) & (files.c.form == file.form)
        mine &= files.c.side == file.side

        async def write() -> ImageFile:
            async with self._database.writing() as conn:
                there = select(images.c.id).where(images.c.id == image_id)
                there = there.where(images.c.removed_at.is_(None)).with_for_update()
                if (await conn.execute(there)).one_or_none() is None:
                    raise _gone()
                if row := (await conn.execute(select(files).where(mine))).one_or_none():
                    return _file_of(row)
                await conn.execute(insert(files).values(image_id=image_id, **asdict(file)))
                return file

        return await self._database.finish(write())

    async def named(self, names: Collection[str]) -> set[str]:
        """Those of these names in the store that are of a picture."""
        query = select(tables.picture_files.c.name).where(tables.picture_files.c.name.in_(names))
        async with self._database.reading() as conn:
            return set((await conn.execute(query)).scalars())

    async def known(self, image_ids: Collection[str]) -> set[str]:
        """Those of these pictures that this database has ever heard of, delivered or not."""
        images, log = tables.images.c.id, tables.hash_log.c.image
        made = select(images).where(images.in_(image_ids))
        logged = select(log).where(log.in_(image_ids))
        async with self._database.reading() as conn:
            return set((await conn.execute(made.union(logged))).scalars())

    async def sha256s(self, image_id: str) -> set[str]:
        """Of every file that was signed of a picture, also of one taken away; none if unknown."""
        files, removals = tables.picture_files, tables.removals
        now = select(files.c.sha256).where(files.c.image_id == image_id)
        before = select(removals.c.files).where(removals.c.image_id == image_id)
        async with self._database.reading() as conn:
            found = set((await conn.execute(now)).scalars())
            for taken in (await conn.execute(before)).scalars():
                found |= {each["sha256"] for each in taken}
        return found

    async def state_of(self, image_ids: Collection[str]) -> dict[str, RemovalKind | None]:
        """How each of these pictures was taken away (None: it is there); unknown ones left out."""
        images, removals = tables.images, tables.removals
        joined = images.outerjoin(removals, removals.c.image_id == images.c.id)
        query = select(images.c.id, removals.c.kind).select_from(joined)
        query = query.where(images.c.id.in_(image_ids))
        async with self._database.reading() as conn:
            rows = (await conn.execute(query)).all()
        return {row.id: RemovalKind(row.kind) if row.kind else None for row in rows}

    async def withdrawn(self) -> set[str]:
        """Names in the store of all that lies apart."""
        removals = tables.removals
        query = select(removals.c.files).where(removals.c.kind == RemovalKind.WITHDRAWN.value)
        async with self._database.reading() as conn:
            return {it["name"] for files in (await conn.execute(query)).scalars() for it in files}

    async def due(self, tier: str, *, before: datetime, most: int) -> list[str]:
        """Pictures of a tier that were finished before then and are still there, oldest first."""
        images, jobs = tables.images, tables.jobs
        query = select(images.c.id).join(jobs, jobs.c.id == images.c.job_id)
        query = query.where(jobs.c.tier == tier, jobs.c.finished_at < before)
        query = query.where(images.c.removed_at.is_(None), ~on_hold(jobs.c.id))
        query = query.order_by(jobs.c.number).limit(most)
        async with self._database.reading() as conn:
            return list((await conn.execute(query)).scalars())

    # Taking away.

    async def take_away(
        self, image_id: str, kind: RemovalKind, *, by: str, reason: str, tenant: str | None = None
    ) -> Removal:
        """From now on nobody is given this picture (of this tenant, if one is named).

        Its previews leave the log, and but for one that is withdrawn its sketch the hash log. One
        that was withdrawn can be deleted, but not by its tenant; else doing it again changes
        nothing. Raises NotFound, Conflict; OnHold if it has to be kept, for whoever asks.
        """

        async def write() -> Removal:
            async with self._database.writing() as conn:
                image = await _locked(conn, image_id, tenant)
                known = await _removal(conn, image_id)
                is_again = known is not None and known.kind is RemovalKind.WITHDRAWN
                is_for_good = kind is not RemovalKind.WITHDRAWN
                if is_again and tenant is not None:
                    raise Conflict(f"the operator has withdrawn {image_id}", field="image_id")
                if known is not None and not (is_again and is_for_good):
                    return known
                if is_for_good and (await conn.execute(select(on_hold(image.job_id)))).scalar():
                    raise OnHold(f"{image_id} has to be kept for now", field="image_id")
                files = known.files if known else await _files(conn, image_id)
                values: dict[str, Any] = {
                    "kind": kind.value,
                    "by": by,
                    "reason": reason,
                    "at": utc_now(),
                }
                values |= {"files": [asdict(each) for each in files], "ended_at": None}
                await _put(conn, image_id, values, is_there=known is not None)
                await _forget(conn, image, is_for_good=is_for_good)
                removal = await _removal(conn, image_id)
                assert removal is not None
                return removal

        return await self._database.finish(write())

    async def bring_back(self, image_id: str) -> Removal:
        """Let a withdrawn picture be given out again. Raises NotFound, Conflict."""

        async def write() -> Removal:
            async with self._database.writing() as conn:
                await _locked(conn, image_id, None)
                removal = await _removal(conn, image_id)
                if removal is None or removal.kind is not RemovalKind.WITHDRAWN:
                    raise Conflict(f"{image_id} isn't withdrawn", field="image_id")
                rows = [{"image_id": image_id, **asdict(each)} for each in removal.files]
                if rows:
                    await conn.execute(insert(tables.picture_files), rows)
                ours = tables.removals.c.image_id == image_id
                await conn.execute(delete(tables.removals).where(ours))
                there = update(tables.images).where(tables.images.c.id == image_id)
                await conn.execute(there.values(removed_at=None))
                return removal

        return await self._database.finish(write())

    async def removal(self, image_id: str, *, tenant: str | None = None) -> Removal:
        """How a picture was taken away. Raises NotFound."""
        async with self._database.reading() as conn:
            found = await _removal(conn, image_id)
        if found is None or tenant not in (None, found.tenant):
            raise _gone()
        return found

    async def unended(self) -> list[Removal]:
        """Pictures taken away whose files aren't where they belong yet."""
        return await self._removals(tables.removals.c.ended_at.is_(None))

    async def unpurged(self, most: int) -> list[Removal]:
        """Pictures taken away of which caches weren't told yet, oldest first."""
        return (await self._removals(tables.removals.c.purged_at.is_(None)))[:most]

    async def end(self, image_id: str, receipt: dict[str, Any] | None) -> None:
        """Note that the files of a picture that was taken away are where they belong."""
        await self._note(image_id, ended_at=utc_now(), receipt=receipt)

    async def purged(self, image_id: str) -> None:
        """Note that caches were told."""
        await self._note(image_id, purged_at=utc_now())

    # Links.

    async def links_revoked(self) -> dict[str, int]:
        """How often the links of each tenant were revoked; one that isn't there, never."""
        async with self._database.reading() as conn:
            rows = await conn.execute(select(tables.link_revocations))
            return {row.tenant: row[1] for row in rows}

    async def revoke_links(self, tenant: str) -> int:
        """End every address that the tenant was given so far; return how often that was done."""
        revoked = tables.link_revocations
        mine = revoked.c.tenant == tenant

        async def write() -> int:
            async with self._database.writing() as conn:
                query = select(revoked.c.count).where(mine).with_for_update()
                count = ((await conn.execute(query)).scalar() or 0) + 1
                if count == 1:
                    await conn.execute(insert(revoked).values(tenant=tenant, count=1))
                else:
                    await conn.execute(update(revoked).where(mine).values(count=count))
                return count

        return await self._database.finish(write())

    async def _removals(self, where: Any) -> list[Removal]:
        async with self._database.reading() as conn:
            rows = await conn.execute(_removal_query().where(where).order_by(tables.removals.c.at))
            return [_removal_of(row) for row in rows]

    async def _note(self, image_id: str, **values: Any) -> None:
        ours = tables.removals.c.image_id == image_id

        async def write() -> None:
            async with self._database.writing() as conn:
                await conn.execute(update(tables.removals).where(ours).values(values))

        await self._database.finish(write())


async def add(conn: AsyncConnection, images: Sequence[Image]) -> None:
    """Write the files that these images bring, in the transaction that writes the images."""
    rows = [{"image_id": image.id, **asdict(file)} for image in images for file in image.files]
    if rows:
        await conn.execute(insert(tables.picture_files), rows)


async def _locked(conn: AsyncConnection, image_id: str, tenant: str | None) -> Row[Any]:
    images, jobs = tables.images, tables.jobs
    query = select(images, jobs.c.tenant).join(jobs, jobs.c.id == images.c.job_id)
    found = (await conn.execute(query.where(images.c.id == image_id).with_for_update())).first()
    if found is None or tenant not in (None, found.tenant):
        raise _gone()
    return found


async def _files(conn: AsyncConnection, image_id: str) -> tuple[ImageFile, ...]:
    files = tables.picture_files
    query = select(files).where(files.c.image_id == image_id).order_by(files.c.name)
    return tuple(_file_of(row) for row in await conn.execute(query))


async def _put(
    conn: AsyncConnection, image_id: str, values: dict[str, Any], *, is_there: bool
) -> None:
    ours = tables.removals.c.image_id == image_id
    if is_there:
        await conn.execute(update(tables.removals).where(ours).values(values))
    else:
        await conn.execute(insert(tables.removals).values(image_id=image_id, **values))


async def _forget(conn: AsyncConnection, image: Row[Any], *, is_for_good: bool) -> None:
    """Take away what shows the picture: the records of its files, previews, the sketch."""
    files = tables.picture_files
    await conn.execute(delete(files).where(files.c.image_id == image.id))
    there = update(tables.images).where(tables.images.c.id == image.id)
    await conn.execute(there.values(removed_at=utc_now()))
    await previews.strip(conn, image.job_id, image._mapping["index"])
    if is_for_good:
        entry = update(tables.hash_log).where(tables.hash_log.c.image == image.id)
        await conn.execute(entry.values(sketch=b""))


def _removal_query() -> Any:
    images, jobs, removals = tables.images, tables.jobs, tables.removals
    return (
        select(removals, jobs.c.tenant)
        .join(images, images.c.id == removals.c.image_id)
        .join(jobs, jobs.c.id == images.c.job_id)
    )


async def _removal(conn: AsyncConnection, image_id: str) -> Removal | None:
    query = _removal_query().where(tables.removals.c.image_id == image_id)
    row = (await conn.execute(query)).one_or_none()
    return _removal_of(row) if row else None


def _removal_of(row: Row[Any]) -> Removal:
    values = dict(row._mapping)
    files = tuple(ImageFile(**each) for each in values.pop("files"))
    return Removal(**{**values, "kind": RemovalKind(values["kind"]), "files": files})


def _file_of(row: Row[Any]) -> ImageFile:
    values = dict(row._mapping)
    del values["image_id"]
    return ImageFile(**values)


def _gone() -> NotFound:
    return NotFound("there is no such image", field="image_id", limit="the id of an image of yours")
