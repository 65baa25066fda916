"""The tries of webhooks' messages: when each was made, and what the receiver answered.

For whoever looks why a message doesn't come. Written in the transaction that notes how the try
went; of each message the newest few are kept, for as long as the message is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core import limits
from calotype.jobs import tables

if TYPE_CHECKING:
    from calotype.jobs.webhooks import Message


@dataclass(frozen=True)
class Try:
    """One sending of a message."""

    at: datetime
    took_ms: int
    status: int | None  # of the answer; None: there was none
    reason: str  # why it failed, a sentence
    answer: str  # how the answer's body began, as text


async def write(conn: AsyncConnection, message: Message, tried: Try) -> None:
    """Note a try; the oldest of its message goes when there are too many."""
    kept, mine = tables.webhook_tries, _of(message)
    newest = (await conn.execute(select(func.max(kept.c.number)).where(mine))).scalar()
    number = 1 if newest is None else newest + 1
    values = {"webhook_id": message.webhook_id, "job_id": message.job_id, "seq": message.seq}
    await conn.execute(insert(kept).values(**values, number=number, **vars(tried)))
    too_old = kept.c.number <= number - limits.WEBHOOK_TRIES_KEPT_MAX
    await conn.execute(delete(kept).where(mine, too_old))


async def of_message(conn: AsyncConnection, message: Message) -> list[Try]:
    """The tries of a message, newest first."""
    kept = tables.webhook_tries
    columns = (kept.c.at, kept.c.took_ms, kept.c.status, kept.c.reason, kept.c.answer)
    query = select(*columns).where(_of(message)).order_by(kept.c.number.desc())
    return [Try(**row._mapping) for row in await conn.execute(query)]


async def forget(conn: AsyncConnection, *, before: datetime) -> None:
    """Forget those of messages that were over before then."""
    kept, out = tables.webhook_tries, tables.webhook_messages
    is_over = (
        select(out.c.seq)
        .where(out.c.webhook_id == kept.c.webhook_id, out.c.job_id == kept.c.job_id)
        .where(out.c.seq == kept.c.seq, out.c.ended_at < before)
    )
    await conn.execute(delete(kept).where(is_over.exists()))


def _of(message: Message) -> Any:
    kept = tables.webhook_tries
    mine = (kept.c.webhook_id == message.webhook_id) & (kept.c.job_id == message.job_id)
    return mine & (kept.c.seq == message.seq)
