"""Takes previews out of a job's log: the one change that the database allows there."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.jobs import tables


async def strip(conn: AsyncConnection, job_id: str, image: int | None = None) -> None:
    """Without a picture that may be shown nothing of it is, and so no preview of it either.

    Those of image ``image`` (its index in the job), or all.
    """
    events = tables.events
    steps = select(events.c.seq, events.c.data).where(
        events.c.job_id == job_id, events.c.kind == "step"
    )
    for seq, data in (await conn.execute(steps)).all():
        if "preview" in data and image in (None, data["image"]):
            del data["preview"]
            one = (events.c.job_id == job_id) & (events.c.seq == seq)
            await conn.execute(update(events).where(one).values(data=data))
