"""Webhooks: where tenants want to be told of their jobs, and the outbox of what is to be told.

A message is a row that is written in the transaction that writes its event, so there is none
without the other. Its id is made of webhook, job and event: sent again it is the same. What is
tried when is said by who sends; here it is only kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, delete, exists, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core import limits
from calotype.core.errors import InvalidInput, NotFound, TooMany
from calotype.core.ids import content_id, new_id
from calotype.jobs import tables, webhook_tries
from calotype.jobs.database import Database
from calotype.jobs.rows import utc_now
from calotype.jobs.webhook_tries import Try

# Of a job's log, what can be told.
KINDS = (
    *("queued", "started", "pending_safety", "in_review"),
    *("succeeded", "failed", "cancelled"),
)
KINDS_FIRST = ("succeeded", "failed", "cancelled")  # where a webhook doesn't say


class MessageState(StrEnum):
    """What became of a message."""

    WAITING = "waiting"  # for its first or next try
    SENT = "sent"
    GIVEN_UP = "given_up"  # after the last try, or with its webhook


@dataclass(frozen=True)
class Webhook:
    """Where a tenant wants to be told."""

    id: str
    tenant: str
    url: str
    kinds: tuple[str, ...]
    changed: int  # how often its secret was
    changed_at: datetime | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str


@dataclass(frozen=True)
class Message:
    """What is to be told of one event to one webhook."""

    webhook_id: str
    job_id: str
    seq: int  # of the event in the job's log
    kind: str
    at: datetime  # of the event
    state: MessageState
    tries: int
    due_at: float  # Unix seconds: not before
    status: int | None  # of the last answer
    reason: str  # why the last try failed
    ended_at: datetime | None

    @property
    def id(self) -> str:
        """The same whenever it is sent."""
        parts = (self.webhook_id, self.job_id, str(self.seq))
        return content_id("msg", *(part.encode() for part in parts))


class Webhooks:
    """The webhooks of one database, and their outbox."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant: str, url: str, kinds: Sequence[str]) -> Webhook:
        """Set one up. Raises InvalidInput, TooMany."""
        kinds = checked(kinds)
        hook = Webhook(new_id("whk"), tenant, url, kinds, 0, None, utc_now(), None, "")

        async def write() -> Webhook:
            async with self._database.writing() as conn:
                await _check_room(conn, tenant)
                values = {**vars(hook)}
                del values["kinds"]
                await conn.execute(insert(tables.webhooks).values(values))
                await _put_kinds(conn, hook)
            return hook

        return await self._database.finish(write())

    async def check_room(self, tenant: str) -> None:
        """Raise TooMany unless a tenant can have one more."""
        async with self._database.reading() as conn:
            await _check_room(conn, tenant)

    async def get(self, webhook_id: str, *, tenant: str | None = None) -> Webhook:
        """One webhook (of this tenant). Raises NotFound."""
        async with self._database.reading() as conn:
            return await _one(conn, webhook_id, tenant)

    async def every(self, tenant: str | None = None) -> list[Webhook]:
        """A tenant's webhooks, or all, oldest first."""
        hooks = tables.webhooks
        query = select(hooks).order_by(hooks.c.created_at, hooks.c.id)
        if tenant is not None:
            query = query.where(hooks.c.tenant == tenant)
        async with self._database.reading() as conn:
            return [await _with_kinds(conn, row) for row in (await conn.execute(query)).all()]

    async def remove(self, webhook_id: str, *, tenant: str | None = None) -> None:
        """End a webhook, and forget what was to be told to it. Raises NotFound."""

        async def write() -> None:
            async with self._database.writing() as conn:
                await _one(conn, webhook_id, tenant)
                ours = (tables.webhook_tries, tables.webhook_messages, tables.webhook_kinds)
                for table in ours:
                    await conn.execute(delete(table).where(table.c.webhook_id == webhook_id))
                hooks = tables.webhooks
                await conn.execute(delete(hooks).where(hooks.c.id == webhook_id))

        await self._database.finish(write())

    async def change_secret(self, webhook_id: str, *, tenant: str | None = None) -> Webhook:
        """Give it another secret; the one before goes on signing for a while. Raises NotFound."""

        async def write() -> Webhook:
            async with self._database.writing() as conn:
                hook = await _one(conn, webhook_id, tenant)
                changed = replace(hook, changed=hook.changed + 1, changed_at=utc_now())
                values = {"changed": changed.changed, "changed_at": changed.changed_at}
                ours = tables.webhooks.c.id == webhook_id
                await conn.execute(update(tables.webhooks).where(ours).values(values))
                return changed

        return await self._database.finish(write())

    async def enable(
        self, webhook_id: str, *, is_on: bool, reason: str = "", tenant: str | None = None
    ) -> Webhook:
        """Switch a webhook off, or on again. While it is off nothing is written for it."""

        async def write() -> Webhook:
            async with self._database.writing() as conn:
                await _one(conn, webhook_id, tenant)
                values = {"disabled_at": None if is_on else utc_now(), "disabled_reason": reason}
                ours = tables.webhooks.c.id == webhook_id
                await conn.execute(update(tables.webhooks).where(ours).values(values))
                return await _one(conn, webhook_id, tenant)

        return await self._database.finish(write())

    # The outbox.

    async def due(
        self, now: float, most: int, *, apart_from: Collection[str] = ()
    ) -> list[tuple[Webhook, Message]]:
        """Messages to be sent now, those of the longest wait first; of each job its next only.

        Of each webhook a few, and none of those named by ``apart_from``: so one with many messages
        is in nobody's way.
        """
        out, earlier = tables.webhook_messages, tables.webhook_messages.alias()
        hooks = tables.webhooks
        waiting = MessageState.WAITING.value
        is_behind = exists().where(
            earlier.c.webhook_id == out.c.webhook_id,
            earlier.c.job_id == out.c.job_id,
            earlier.c.seq < out.c.seq,
            earlier.c.state == waiting,
        )
        order = (out.c.due_at, out.c.at, out.c.seq)
        place = func.row_number().over(partition_by=out.c.webhook_id, order_by=order)
        ranked = (
            select(out, place.label("place"))
            .join(hooks, hooks.c.id == out.c.webhook_id)
            .where(out.c.state == waiting, out.c.due_at <= now, hooks.c.disabled_at.is_(None))
            .where(out.c.webhook_id.not_in(apart_from), ~is_behind)
            .subquery()
        )
        query = (
            select(*(ranked.c[column.name] for column in out.c))
            .where(ranked.c.place <= limits.WEBHOOK_MESSAGES_EACH)
            .order_by(ranked.c.due_at, ranked.c.at, ranked.c.seq)
            .limit(most)
        )
        async with self._database.reading() as conn:
            messages = [_message_of(row) for row in await conn.execute(query)]
            ids = dict.fromkeys(message.webhook_id for message in messages)
            known = {each: await _one(conn, each, None) for each in ids}
        return [(known[message.webhook_id], message) for message in messages]

    async def told(
        self, message: Message, tried: Try, *, state: MessageState, due_at: float
    ) -> None:
        """Note how a try went; nothing, if the message is gone meanwhile."""
        values: dict[str, Any] = {"state": state.value, "due_at": due_at, "status": tried.status}
        values |= {"tries": message.tries + 1, "reason": tried.reason}
        values["ended_at"] = None if state is MessageState.WAITING else utc_now()
        changed = update(tables.webhook_messages).where(_is(message)).values(values)

        async def write() -> None:
            async with self._database.writing() as conn:
                if (await conn.execute(changed)).rowcount:
                    await webhook_tries.write(conn, message, tried)

        await self._database.finish(write())

    async def messages(
        self, webhook_id: str, *, state: MessageState | None, most: int
    ) -> list[Message]:
        """The newest messages of a webhook, in one state or in any."""
        out = tables.webhook_messages
        query = select(out).where(out.c.webhook_id == webhook_id)
        if state is not None:
            query = query.where(out.c.state == state.value)
        query = query.order_by(out.c.at.desc(), out.c.job_id, out.c.seq.desc()).limit(most)
        async with self._database.reading() as conn:
            return [_message_of(row) for row in await conn.execute(query)]

    async def message(self, webhook_id: str, message_id: str) -> Message:
        """One of a webhook's messages. Raises NotFound."""
        most = limits.WEBHOOK_MESSAGES_KEPT_MAX
        for message in await self.messages(webhook_id, state=None, most=most):
            if message.id == message_id:
                return message
        raise NotFound(
            f"there is no message {message_id[:40]}", field="message_id", limit="one of yours"
        )

    async def tries(self, message: Message) -> list[Try]:
        """How it went each time the message was sent, newest first."""
        async with self._database.reading() as conn:
            return await webhook_tries.of_message(conn, message)

    async def replay(self, webhook_id: str, *, message_id: str | None, now: float) -> int:
        """Have a message sent again, or all that were given up; return how many."""
        if message_id is not None:
            found = [await self.message(webhook_id, message_id)]
        else:
            given_up, most = MessageState.GIVEN_UP, limits.WEBHOOK_MESSAGES_KEPT_MAX
            found = await self.messages(webhook_id, state=given_up, most=most)
        values = {"state": MessageState.WAITING.value, "due_at": now, "tries": 0, "ended_at": None}

        async def write() -> int:
            async with self._database.writing() as conn:
                for message in found:
                    await conn.execute(
                        update(tables.webhook_messages).where(_is(message)).values(values)
                    )
            return len(found)

        return await self._database.finish(write())

    async def forget(self, *, before: datetime) -> int:
        """Forget messages that were over before then; return how many."""
        out = tables.webhook_messages

        async def write() -> int:
            async with self._database.writing() as conn:
                await webhook_tries.forget(conn, before=before)
                gone = await conn.execute(delete(out).where(out.c.ended_at < before))
                return int(gone.rowcount)

        return await self._database.finish(write())


async def write(
    conn: AsyncConnection, job_id: str, tenant: str, events: Sequence[tuple[int, str]], at: datetime
) -> None:
    """Write what is to be told of these events (seq, kind), in their own transaction.

    One statement for each event that can be told; nothing comes of a tenant without webhooks.
    """
    out, hooks, kinds = tables.webhook_messages, tables.webhooks, tables.webhook_kinds
    columns = ("webhook_id", "job_id", "seq", "kind", "at", "state", "tries", "due_at", "reason")
    for seq, kind in events:
        if kind not in KINDS:
            continue
        values = (job_id, seq, kind, at, MessageState.WAITING.value, 0, at.timestamp(), "")
        typed = [
            literal(value, out.c[name].type)
            for name, value in zip(columns[1:], values, strict=True)
        ]
        wanted = select(hooks.c.id, *typed).join(kinds, kinds.c.webhook_id == hooks.c.id)
        wanted = wanted.where(hooks.c.tenant == tenant, hooks.c.disabled_at.is_(None))
        await conn.execute(insert(out).from_select(columns, wanted.where(kinds.c.kind == kind)))


def checked(kinds: Sequence[str]) -> tuple[str, ...]:
    """Kinds of events, each once, in order. Raises InvalidInput."""
    wanted = tuple(kind for kind in KINDS if kind in kinds)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not wanted:
        told = f"there is no event {unknown[0][:40]}" if unknown else "name an event at least"
        raise InvalidInput(told, field="events", limit=list(KINDS))
    return wanted


async def _check_room(conn: AsyncConnection, tenant: str) -> None:
    held, most = tables.webhooks.c.tenant == tenant, limits.WEBHOOKS_PER_TENANT_MAX
    if (await conn.execute(select(func.count()).where(held))).scalar_one() >= most:
        raise TooMany(f"a tenant can have {most} webhooks", limit=most)


async def _one(conn: AsyncConnection, webhook_id: str, tenant: str | None) -> Webhook:
    query = select(tables.webhooks).where(tables.webhooks.c.id == webhook_id)
    row = (await conn.execute(query)).one_or_none()
    if row is None or tenant not in (None, row.tenant):
        raise NotFound(
            f"there is no webhook {webhook_id[:40]}", field="webhook_id", limit="one of yours"
        )
    return await _with_kinds(conn, row)


async def _with_kinds(conn: AsyncConnection, row: Row[Any]) -> Webhook:
    kinds = tables.webhook_kinds
    rows = await conn.execute(select(kinds.c.kind).where(kinds.c.webhook_id == row.id))
    there = set(rows.scalars())
    return Webhook(**row._mapping, kinds=tuple(kind for kind in KINDS if kind in there))


async def _put_kinds(conn: AsyncConnection, hook: Webhook) -> None:
    rows = [{"webhook_id": hook.id, "kind": kind} for kind in hook.kinds]
    await conn.execute(insert(tables.webhook_kinds), rows)


def _is(message: Message) -> Any:
    out = tables.webhook_messages
    mine = (out.c.webhook_id == message.webhook_id) & (out.c.job_id == message.job_id)
    return mine & (out.c.seq == message.seq)


def _message_of(row: Row[Any]) -> Message:
    return Message(**{**row._mapping, "state": MessageState(row.state)})
