"""Notes: what the dispatcher keeps over a restart beside the jobs, by name, as JSON.

A note is written with the next change of a job, in its transaction: what it says and what the jobs
say is then of one moment. Knows nothing of what a note means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.jobs import tables


class Notes:
    """The notes of one store that aren't written yet; only the newest of a name counts."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[], Any]] = {}

    def keep(self, name: str, make: Callable[[], Any]) -> None:
        """Have what ``make`` returns (JSON) written with the next transaction that calls ``write``.

        It is asked only then: of many changes without a transaction, none costs anything.
        """
        self._waiting[name] = make

    async def write(self, conn: AsyncConnection) -> dict[str, Callable[[], Any]]:
        """Write what waits; give it to ``written`` once it is committed."""
        waiting = dict(self._waiting)
        if waiting:
            await conn.execute(delete(tables.notes).where(tables.notes.c.name.in_(waiting)))
            rows = [{"name": name, "data": make()} for name, make in waiting.items()]
            await conn.execute(insert(tables.notes), rows)
        return waiting

    def written(self, notes: dict[str, Callable[[], Any]]) -> None:
        """These are committed; one that was kept anew meanwhile goes on waiting."""
        for name, make in notes.items():
            if self._waiting.get(name) is make:
                del self._waiting[name]


async def read(conn: AsyncConnection, name: str) -> Any:
    """The note of this name as it was last written, or None."""
    query = select(tables.notes.c.data).where(tables.notes.c.name == name)
    return (await conn.execute(query)).scalar_one_or_none()
