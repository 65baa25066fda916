"""The audit trail: who did what, appended in the transaction in which it is done.

Each entry's ``chain`` is a hash of the one before and of itself, so that an entry changed or taken
out by whoever owns the database is found by ``verify``. The database's triggers refuse both anyway.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core.errors import InternalError
from calotype.jobs.database import Database
from calotype.jobs.people_tables import audit
from calotype.jobs.rows import utc_now

_FIRST = "0" * 64  # what the first entry follows


@dataclass(frozen=True)
class Entry:
    """One line of the trail."""

    number: int  # 1, 2, 3 ... of the whole trail
    subject: str  # id of what it is about
    kind: str  # what was done, in the past tense
    by: str  # who: a key's id and person, "operator", or a check
    data: dict[str, Any]  # JSON
    at: datetime


async def append(
    conn: AsyncConnection, subject: str, kind: str, by: str, data: Mapping[str, Any]
) -> None:
    """Add an entry, in the transaction that is open."""
    if conn.dialect.name == "postgresql":  # elsewhere whoever writes is alone
        await conn.execute(text("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE"))
    last = select(audit.c.number, audit.c.chain).order_by(audit.c.number.desc()).limit(1)
    row = (await conn.execute(last)).one_or_none()
    number, before = (row.number + 1, row.chain) if row else (1, _FIRST)
    entry = Entry(number, subject, kind, by, dict(data), utc_now())
    await conn.execute(insert(audit).values(**vars(entry), chain=_chained(before, entry)))


class Audit:
    """Reads the trail of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, subject: str) -> list[Entry]:
        """All that was done about this, oldest first."""
        async with self._database.reading() as conn:
            return await entries(conn, subject)

    async def note(self, subject: str, kind: str, by: str, data: Mapping[str, Any]) -> None:
        """Add an entry by itself; once this returns it is there for good."""

        async def write() -> None:
            async with self._database.writing() as conn:
                await append(conn, subject, kind, by, data)

        await self._database.finish(write())

    async def verify(self) -> int:
        """How many entries there are. Raises InternalError, with the first that doesn't fit."""
        before, expected = _FIRST, 1
        async with self._database.reading() as conn:
            for row in await conn.execute(select(audit).order_by(audit.c.number)):
                entry = _entry(row._mapping)
                if entry.number != expected or row.chain != _chained(before, entry):
                    raise InternalError(f"the audit trail is broken at entry {expected}")
                before, expected = row.chain, expected + 1
        return expected - 1


async def entries(conn: AsyncConnection, subject: str) -> list[Entry]:
    """The same as ``Audit.of``, in a transaction that is open."""
    query = select(audit).where(audit.c.subject == subject).order_by(audit.c.number)
    return [_entry(row._mapping) for row in await conn.execute(query)]


def _entry(row: Mapping[Any, Any]) -> Entry:
    return Entry(**{name: row[name] for name in Entry.__dataclass_fields__})


def _chained(before: str, entry: Entry) -> str:
    said = [entry.number, entry.subject, entry.kind, entry.by, entry.data, entry.at.isoformat()]
    whole = before + json.dumps(said, sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()
