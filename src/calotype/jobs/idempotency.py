"""Idempotency keys: which job a request made, so that the same request sent again makes no other.

A key is written in the transaction of its job: there is never one without the other, wherever a
server is killed. Knows nothing of requests; what makes two of them the same is the caller's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core.nouns import IdempotencyKey
from calotype.jobs import tables
from calotype.jobs.database import Database
from calotype.jobs.rows import utc_now


@dataclass(frozen=True)
class Used:
    """A key that made a job."""

    job_id: str
    body_sha256: str  # of the request that made it


class IdempotencyKeys:
    """The keys in one database, by tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant: str, key: str, *, after: datetime) -> Used | None:
        """What this tenant's key was used for, if that was after this time."""
        known = tables.idempotency_keys
        query = select(known.c.job_id, known.c.body_sha256).where(
            known.c.tenant == tenant, known.c.key == key, known.c.created_at > after
        )
        async with self._database.reading() as conn:
            row = (await conn.execute(query)).one_or_none()
        return Used(row.job_id, row.body_sha256) if row else None

    async def forget(self, *, before: datetime) -> int:
        """Forget the keys that were used before this time; return how many there were."""
        old = delete(tables.idempotency_keys).where(tables.idempotency_keys.c.created_at <= before)

        async def write() -> int:
            async with self._database.writing() as conn:
                return (await conn.execute(old)).rowcount

        return await self._database.finish(write())


async def write(conn: AsyncConnection, tenant: str, key: IdempotencyKey, job_id: str) -> None:
    """Write down that this key made this job, in place of what it did when it was last good."""
    known = tables.idempotency_keys
    same = (known.c.tenant == tenant) & (known.c.key == key.key)
    await conn.execute(delete(known).where(same, known.c.created_at <= key.good_after))
    values = {"tenant": tenant, "key": key.key, "body_sha256": key.body_sha256}
    await conn.execute(insert(known).values(**values, job_id=job_id, created_at=utc_now()))
