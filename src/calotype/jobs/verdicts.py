"""What was said of pictures, kept for good, and the one way by which an image can be had.

A verdict is of pixels (their SHA-256, before the mark) by a version of a policy. The database
itself takes an image only if a verdict that allows it is there for both, and changes none.
"""

from __future__ import annotations

from sqlalchemy import insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core.errors import InternalError
from calotype.core.nouns import Image, Verdict, VerdictKind
from calotype.jobs import tables
from calotype.jobs.rows import image_values, utc_now


async def deliver(conn: AsyncConnection, job_id: str, image: Image, verdict: Verdict) -> None:
    """Write an image, by the verdict that allows it; without one nothing makes it an image.

    Raises InternalError if the verdict doesn't allow it.
    """
    if verdict.kind is not VerdictKind.ALLOW:
        raise InternalError(f"{image.id} isn't allowed: {verdict.check} said {verdict.kind}")
    await record(conn, image.pixels_sha256, verdict)
    values = image_values(job_id, image) | {"policy": verdict.policy}
    await conn.execute(insert(tables.images).values(**values))


async def record(conn: AsyncConnection, pixels_sha256: str, verdict: Verdict) -> None:
    """Keep what was said; the first time that it was, if it was said before."""
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    row = dialect.insert(tables.verdicts).values(
        pixels_sha256=pixels_sha256,
        policy=verdict.policy,
        kind=verdict.kind.value,
        check=verdict.check,
        version=verdict.version,
        category=verdict.category,
        score=verdict.score,
        at=utc_now(),
    )
    await conn.execute(row.on_conflict_do_nothing())
