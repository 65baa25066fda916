"""Leases as they run out: kept alive by whoever holds them, and found when nobody does.

A lease is good for LEASE_S from when it was granted or last renewed, by the database's own clock:
one clock for all who ask. A lease that ran out may be taken, not more: its holder can write until
it is, and what is taken has another token. A clock that jumps can do little: no good lease ends
later than LEASE_S from now, so one that seems to has run out as well, and a holder renews before
it looks.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Float, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from calotype.core import limits
from calotype.core.nouns import Lease
from calotype.core.states import AttemptState, JobState
from calotype.jobs import tables
from calotype.jobs.database import Database


class DatabaseNow(FunctionElement[float]):
    """Seconds since 1970 by the database's clock, at the moment it is asked."""

    type = Float()
    inherit_cache = True


@compiles(DatabaseNow, "sqlite")
def _sqlite_now(_element: DatabaseNow, _compiler: SQLCompiler, **_options: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseNow, "postgresql")
def _postgresql_now(_element: DatabaseNow, _compiler: SQLCompiler, **_options: object) -> str:
    return "extract(epoch FROM clock_timestamp())::float8"


def fresh_end() -> object:
    """When a lease ends that is granted or renewed now."""
    return DatabaseNow() + limits.LEASE_S


class Leases:
    """The leases of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def renew(self, leases: Collection[Lease]) -> set[str]:
        """Keep these alive; return the ids of the jobs whose lease this still is."""
        tried = tables.attempts
        held = [(lease.job_id, lease.token) for lease in leases]
        ours = tuple_(tried.c.job_id, tried.c.token).in_(held)
        running = tried.c.state == AttemptState.RUNNING.value

        async def write() -> set[str]:
            async with self._database.writing() as conn:
                kept = update(tried).where(ours, running).values(expires_at=fresh_end())
                return set((await conn.execute(kept.returning(tried.c.job_id))).scalars())

        return await self._database.finish(write()) if held else set()

    async def lapsed(self) -> list[str]:
        """The jobs that run by the store, under a lease that ran out; oldest first."""
        async with self._database.reading() as conn:
            return await _lapsed(conn)


async def _lapsed(conn: AsyncConnection) -> list[str]:
    jobs, tried = tables.jobs, tables.attempts
    now = DatabaseNow()
    mine = (tried.c.job_id == jobs.c.id) & (tried.c.number == jobs.c.attempt)
    ends = tried.c.expires_at
    ran_out = ends.is_(None) | (ends < now) | (ends > now + limits.LEASE_S)
    query = select(jobs.c.id).join(tried, mine).where(jobs.c.state == JobState.RUNNING.value)
    return list((await conn.execute(query.where(ran_out).order_by(jobs.c.number))).scalars())
