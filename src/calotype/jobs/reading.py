"""Reads jobs, in a transaction that the caller opened: one, a page, or those that aren't over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core import limits
from calotype.core.errors import InvalidInput, NotFound
from calotype.core.nouns import Image, Job
from calotype.core.states import JobState
from calotype.jobs import tables
from calotype.jobs.rows import image_of, job_of

_UNFINISHED = tuple(state.value for state in JobState if not state.is_final)


async def job(conn: AsyncConnection, job_id: str, tenant: str | None = None) -> Job:
    """One job; with ``tenant``, only that tenant's. Raises NotFound."""
    query = select(tables.jobs).where(tables.jobs.c.id == job_id)
    if tenant is not None:
        query = query.where(tables.jobs.c.tenant == tenant)
    found = await _jobs(conn, query)
    if not found:
        raise NotFound(
            f"there is no job {job_id}", field="job_id", limit="the id of a job of yours"
        )
    return found[0]


async def page(conn: AsyncConnection, tenant: str, limit: int, before: str | None) -> list[Job]:
    """The tenant's jobs, newest first. Raises InvalidInput."""
    if not 1 <= limit <= limits.PAGE_JOBS_MAX:
        raise InvalidInput(
            f"limit must be 1 to {limits.PAGE_JOBS_MAX}", field="limit", limit=limits.PAGE_JOBS_MAX
        )
    jobs = tables.jobs
    query = select(jobs).where(jobs.c.tenant == tenant)
    if before is not None:
        mine = (jobs.c.id == before) & (jobs.c.tenant == tenant)
        number = (await conn.execute(select(jobs.c.number).where(mine))).scalar()
        if number is None:
            raise InvalidInput(
                f"there is no job {before} to page from",
                field="before",
                limit="the id of a job of yours",
            )
        query = query.where(jobs.c.number < number)
    return await _jobs(conn, query.order_by(jobs.c.number.desc()).limit(limit))


async def unfinished(conn: AsyncConnection) -> list[Job]:
    """Every job that isn't over, oldest first."""
    query = select(tables.jobs).where(tables.jobs.c.state.in_(_UNFINISHED))
    return await _jobs(conn, query.order_by(tables.jobs.c.number))


async def _jobs(conn: AsyncConnection, query: Select[Any]) -> list[Job]:
    rows = (await conn.execute(query)).all()
    images = await _images(conn, [row for row in rows if row.state == JobState.SUCCEEDED])
    return [job_of(row, images.get(row.id, ())) for row in rows]


async def _images(conn: AsyncConnection, jobs: Iterable[Row[Any]]) -> dict[str, list[Image]]:
    """The images of these jobs, in order; few, since only pages of jobs have succeeded ones."""
    job_ids = [each.id for each in jobs]
    found: dict[str, list[Image]] = {}
    if job_ids:
        images = tables.images
        query = select(images).where(images.c.job_id.in_(job_ids)).order_by(images.c["index"])
        for row in await conn.execute(query):
            found.setdefault(row.job_id, []).append(image_of(row))
    return found
