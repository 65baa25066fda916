"""Strikes and what they add up to: counted and followed by a suspension in one transaction.

Which refusals count, and the rules, are policy (``safety.conduct``); here they are applied. What a
suspension was for doesn't count again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core import limits
from calotype.core.conduct import Strike, StrikeRule, Suspension
from calotype.core.errors import InvalidInput, NotFound
from calotype.core.ids import new_id
from calotype.jobs import audit
from calotype.jobs.database import Database
from calotype.jobs.people_tables import strikes, suspensions
from calotype.jobs.rows import utc_now


class Strikes:
    """The strikes and suspensions in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, strike: Strike, rule: StrikeRule) -> list[Suspension]:
        """Count a strike, once for each picture; return the suspensions that follow."""

        async def write() -> list[Suspension]:
            async with self._database.writing() as conn:
                return await add(conn, strike, rule)

        return await self._database.finish(write())

    async def suspended(self, tenant: str, user: str) -> Suspension | None:
        """The suspension by which this account may make no pictures now; the longest."""
        mine = suspensions.c.user.is_(None) | (suspensions.c.user == user)
        query = select(suspensions).where(suspensions.c.tenant == tenant, mine, *_active())
        async with self._database.reading() as conn:
            found = [_suspension_of(row) for row in await conn.execute(query)]
        for one in found:
            if one.until is None:
                return one
        return max(found, key=lambda one: one.until or one.at, default=None)

    async def suspensions(self, *, is_active: bool = True) -> list[Suspension]:
        """Those that hold now, or all; the oldest first."""
        query = select(suspensions).order_by(suspensions.c.at, suspensions.c.id)
        async with self._database.reading() as conn:
            rows = await conn.execute(query.where(*_active()) if is_active else query)
            return [_suspension_of(row) for row in rows]

    async def counts(self, tenant: str | None = None) -> list[dict[str, Any]]:
        """Strikes that weren't lifted, by tenant, user and category."""
        columns = (strikes.c.tenant, strikes.c.user, strikes.c.category)
        query = select(*columns, func.count().label("count"), func.max(strikes.c.at).label("last"))
        query = query.where(strikes.c.lifted_at.is_(None)).group_by(*columns).order_by(*columns)
        if tenant is not None:
            query = query.where(strikes.c.tenant == tenant)
        async with self._database.reading() as conn:
            return [dict(row._mapping) for row in await conn.execute(query)]

    async def lift(self, tenant: str, user: str | None, *, by: str, reason: str) -> int:
        """End what holds for a user, or for a tenant and all its users, and forget the strikes.

        Returns how many suspensions ended. Raises NotFound if there was nothing, InvalidInput.
        """
        if not 1 <= len(reason.strip()) <= limits.REASON_CHARS_MAX:
            most = limits.REASON_CHARS_MAX
            raise InvalidInput(f"say why, in 1 to {most:,} characters", field="reason", limit=most)

        async def write() -> int:
            async with self._database.writing() as conn:
                ended, forgotten = 0, 0
                for table in (suspensions, strikes):
                    mine = table.c.tenant == tenant
                    if user is not None:
                        mine &= table.c.user == user
                    there = update(table).where(mine, table.c.lifted_at.is_(None))
                    count = (await conn.execute(there.values(lifted_at=utc_now()))).rowcount
                    if table is suspensions:
                        ended = count
                    else:
                        forgotten = count
                if not ended + forgotten:
                    raise NotFound(
                        "there is nothing to lift", field="tenant", limit="one with strikes"
                    )
                said = {"user": user, "reason": reason, "suspensions": ended, "strikes": forgotten}
                await audit.append(conn, tenant[:40], "lifted", by, said)
                return ended

        return await self._database.finish(write())

    async def forgive(self, job_id: str, index: int, *, severe_rule: str) -> None:
        """Take back the strike of a picture, and what followed if it was a user's one severe."""

        async def write() -> None:
            async with self._database.writing() as conn:
                there = (strikes.c.job_id == job_id) & (strikes.c["index"] == index)
                query = select(strikes).where(there, strikes.c.lifted_at.is_(None))
                one = (await conn.execute(query)).one_or_none()
                if one is None:
                    return
                now = {"lifted_at": utc_now()}
                await conn.execute(update(strikes).where(there).values(now))
                theirs = (strikes.c.tenant == one.tenant) & (strikes.c.user == one.user)
                left = select(func.count()).where(
                    theirs, strikes.c.is_severe, strikes.c.lifted_at.is_(None)
                )
                if not one.is_severe or (await conn.execute(left)).scalar_one():
                    return
                held = (suspensions.c.tenant == one.tenant) & (suspensions.c.user == one.user)
                rule = (suspensions.c.rule == severe_rule) & suspensions.c.lifted_at.is_(None)
                await conn.execute(update(suspensions).where(held, rule).values(now))
                said = {"user": one.user, "reason": f"people allowed {job_id}"}
                await audit.append(conn, one.tenant[:40], "lifted", "people", said)

        await self._database.finish(write())


async def add(conn: AsyncConnection, strike: Strike, rule: StrikeRule) -> list[Suspension]:
    """The same as ``Strikes.add``, in a transaction that is open."""
    if strike.job_id is not None:
        same = (strikes.c.job_id == strike.job_id) & (strikes.c["index"] == strike.index)
        if (await conn.execute(select(strikes.c.number).where(same))).first() is not None:
            return []
    await conn.execute(insert(strikes).values(**vars(strike), at=utc_now()))
    found = []
    for user, most in ((strike.user, rule.strikes), (None, rule.tenant_strikes)):
        begun = await _last(conn, strike.tenant, user, rule)
        if await _count(conn, strike, user, begun) >= most:
            found.append(await _suspend(conn, strike, user, rule))
    return found


async def _last(conn: AsyncConnection, tenant: str, user: str | None, rule: StrikeRule) -> datetime:
    """From when on strikes count."""
    table = suspensions
    query = select(func.max(table.c.at)).where(table.c.tenant == tenant, table.c.rule == rule.name)
    query = query.where(table.c.user.is_(None) if user is None else table.c.user == user)
    last: datetime | None = (await conn.execute(query)).scalar_one_or_none()
    window = utc_now() - timedelta(seconds=rule.window_s)
    return window if last is None else max(last, window)


async def _count(conn: AsyncConnection, strike: Strike, user: str | None, after: datetime) -> int:
    query = select(func.count()).where(
        strikes.c.tenant == strike.tenant,
        strikes.c.is_severe == strike.is_severe,
        strikes.c.at > after,
        strikes.c.lifted_at.is_(None),
    )
    if user is not None:
        query = query.where(strikes.c.user == user)
    return (await conn.execute(query)).scalar_one()


async def _suspend(
    conn: AsyncConnection, strike: Strike, user: str | None, rule: StrikeRule
) -> Suspension:
    at = utc_now()
    until = None if rule.suspended_s is None else at + timedelta(seconds=rule.suspended_s)
    made = Suspension(new_id("sus"), strike.tenant, user, rule.name, at, until)
    await conn.execute(insert(suspensions).values(**vars(made)))
    said = {"user": user, "rule": rule.name, "until": until.isoformat() if until else None}
    await audit.append(conn, made.id, "suspended", "conduct", {"tenant": strike.tenant, **said})
    return made


def _active() -> tuple[ColumnElement[bool], ...]:
    until = suspensions.c.until
    return suspensions.c.lifted_at.is_(None), or_(until.is_(None), until > utc_now())


def _suspension_of(row: Row[Any]) -> Suspension:
    return Suspension(**row._mapping)
