"""Notes: what the dispatcher keeps over a restart beside the jobs, by name, as JSON.

A note is written with the next change of a job, in its transaction: what it says and what the jobs
say is then of one moment. Knows nothing of what a note means.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.jobs import tables


class Notes:
    """The notes of one store that aren't written yet; only the newest of a name counts."""

    def __init__(self) -> None:
        self._waiting: dict[str, Any] = {}

    def keep(self, name: str, data: Any) -> None:
        """Have ``data`` (JSON) written with the next transaction that calls ``write``."""
        self._waiting[name] = data

    async def write(self, conn: AsyncConnection) -> dict[str, Any]:
        """Write what waits; give it to ``written`` once it is committed."""
        waiting = dict(self._waiting)
        if waiting:
            await conn.execute(delete(tables.notes).where(tables.notes.c.name.in_(waiting)))
            rows = [{"name": name, "data": data} for name, data in waiting.items()]
            await conn.execute(insert(tables.notes), rows)
        return waiting

    def written(self, notes: dict[str, Any]) -> None:
        """These are committed; one that was kept anew meanwhile goes on waiting."""
        for name, data in notes.items():
            if self._waiting.get(name) is data:
                del self._waiting[name]


async def read(conn: AsyncConnection, name: str) -> Any:
    """The note of this name as it was last written, or None."""
    query = select(tables.notes.c.data).where(tables.notes.c.name == name)
    return (await conn.execute(query)).scalar_one_or_none()
