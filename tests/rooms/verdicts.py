"""What a store has kept of verdicts; nothing but tests asks for it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from calotype.jobs import tables
from calotype.jobs.store import JobStore


async def verdicts_of(store: JobStore, pixels_sha256: str) -> list[dict[str, Any]]:
    """All that was said of these pixels, the oldest first."""
    table = tables.verdicts
    query = select(table).where(table.c.pixels_sha256 == pixels_sha256).order_by(table.c.at)
    async with store._database.reading() as conn:
        return [dict(row._mapping) for row in await conn.execute(query)]
