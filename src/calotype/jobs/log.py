"""The event logs: appended to in groups, read back, and followed as they grow.

A step of every row of every engine is an event, and a commit costs far more than a row: what
arrives within a few milliseconds shares one transaction. Followers in this process are rung by a
bell, which carries nothing: what they yield is always read from the store, so that none is missed
or repeated. Knows nothing of what the events mean, but for the end of a job.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core import limits
from calotype.core.errors import InternalError, InvalidInput, LeaseLost, NotFound
from calotype.core.nouns import Event, Lease
from calotype.core.states import JobState
from calotype.jobs import tables
from calotype.jobs.database import Database
from calotype.jobs.moves import write_events
from calotype.jobs.rows import event_of

PROGRESS_KINDS = frozenset({"step", "image_finished"})  # the others come with a change of state
GATHER_S = 0.003  # how long the first append of a group waits for others
GROUP_MAX = 256  # appends in one transaction
QUEUE_MAX = 1_024  # appends that wait for the writer; more wait in their callers
PAGE_EVENTS = 200  # events a follower reads at a time

_HAS_LEASE = frozenset({JobState.RUNNING, JobState.PENDING_SAFETY})


@dataclass(frozen=True)
class _Append:
    lease: Lease
    kind: str
    data: dict[str, Any]
    written: asyncio.Future[bool]  # False when the log is full


class EventLog:
    """The logs of all jobs of one store; start() before the first append, stop() at the end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: asyncio.Queue[_Append] = asyncio.Queue(QUEUE_MAX)
        self._waiting: set[asyncio.Future[bool]] = set()
        self._bells: dict[str, set[asyncio.Event]] = {}
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write what is appended."""
        self._writer = asyncio.create_task(self._write_groups(), name="calotype-event-log")

    async def stop(self) -> None:
        """Write what is waiting, end the writer, and let every follower's iterator end."""
        writer, self._writer = self._writer, None
        while self._waiting:
            await asyncio.wait(set(self._waiting))
        if writer is not None:
            writer.cancel()
            await asyncio.wait([writer])
        self.ring(*self._bells)

    async def append(self, lease: Lease, kind: str, data: dict[str, Any]) -> bool:
        """Add progress to the log of a leased job; return once it is committed.

        Returns False, having written nothing, once the log has EVENTS_PER_JOB_MAX entries. Raises
        LeaseLost when the lease isn't the job's current one, and InternalError for a kind that
        only a change of state may write, or data that isn't JSON.
        """
        if kind not in PROGRESS_KINDS:
            raise InternalError(f"{kind!r} can't be appended (limit: {sorted(PROGRESS_KINDS)})")
        _check_json(data)  # here: later, it would spoil the group for other jobs
        if self._writer is None:
            raise InternalError("the job store is closed")
        written = asyncio.get_running_loop().create_future()
        self._waiting.add(written)
        written.add_done_callback(self._waiting.discard)
        try:
            await self._queue.put(_Append(lease, kind, data, written))
            return bool(await written)
        finally:
            written.cancel()  # nobody waits any more; no effect when it is done

    async def read(self, job_id: str, after: int, limit: int) -> list[Event]:
        """At most ``limit`` events with a seq above ``after``, in order."""
        if not 1 <= limit <= limits.EVENTS_PER_JOB_MAX:
            raise InvalidInput(
                f"limit must be 1 to {limits.EVENTS_PER_JOB_MAX}",
                field="limit",
                limit=limits.EVENTS_PER_JOB_MAX,
            )
        return (await self._read(job_id, after, limit))[1]

    async def follow(self, job_id: str, after: int) -> AsyncGenerator[Event, None]:
        """Yield the events above ``after``, then new ones; end after the last, or on stop()."""
        bell = asyncio.Event()
        self._bells.setdefault(job_id, set()).add(bell)
        try:
            while self._writer is not None:
                bell.clear()  # before reading: what is committed from here on rings it again
                read = self._read(job_id, after, PAGE_EVENTS)
                is_over, page = await self._database.finish(read)
                for event in page:
                    yield event
                    after = event.seq
                if len(page) == PAGE_EVENTS:
                    continue
                if is_over:
                    return
                if self._writer is not None:  # stop() rings once, maybe before we wait
                    await bell.wait()
        finally:
            self._bells[job_id].discard(bell)
            if not self._bells[job_id]:
                del self._bells[job_id]

    def ring(self, *job_ids: str) -> None:
        """Wake the followers of these jobs, after a commit."""
        for job_id in job_ids:
            for bell in self._bells.get(job_id, ()):
                bell.set()

    async def _read(self, job_id: str, after: int, limit: int) -> tuple[bool, list[Event]]:
        """Whether the job is over, and a page of its log; in this order, so that a job that is
        over has its last event in the log that is read."""
        events = tables.events
        async with self._database.reading() as conn:
            query = select(tables.jobs.c.state).where(tables.jobs.c.id == job_id)
            state = (await conn.execute(query)).scalar_one_or_none()
            if state is None:
                raise NotFound(
                    f"there is no job {job_id}", field="job_id", limit="the id of a job of yours"
                )
            page = await conn.execute(
                select(events)
                .where(events.c.job_id == job_id, events.c.seq > after)
                .order_by(events.c.seq)
                .limit(limit)
            )
            return JobState(state).is_final, [event_of(row) for row in page]

    async def _write_groups(self) -> None:
        while True:
            group = [await self._queue.get()]
            await asyncio.sleep(GATHER_S)
            while len(group) < GROUP_MAX and not self._queue.empty():
                group.append(self._queue.get_nowait())
            group = [append for append in group if not append.written.done()]
            if group:  # to its end, though the writer be stopped: half done it would hold the lock
                await self._database.finish(self._write_group(group))

    async def _write_group(self, group: Sequence[_Append]) -> None:
        outcomes: Sequence[bool | Exception]
        try:
            async with self._database.writing() as conn:
                outcomes = await _write(conn, group)
        except Exception as error:  # noqa: BLE001 - each waiting caller gets it; the writer lives
            outcomes = [error] * len(group)
        self.ring(*{append.lease.job_id for append in group})
        for append, outcome in zip(group, outcomes, strict=True):
            if append.written.done():
                continue
            if isinstance(outcome, Exception):
                append.written.set_exception(outcome)
            else:
                append.written.set_result(outcome)


async def _write(conn: AsyncConnection, group: Sequence[_Append]) -> list[bool | Exception]:
    """Write what the group may write; say of each append how it went."""
    jobs = await _rows(conn, {append.lease.job_id for append in group})
    entries: dict[str, list[tuple[str, dict[str, Any]]]] = {job_id: [] for job_id in jobs}
    outcomes: list[bool | Exception] = []
    for append in group:
        job = jobs.get(append.lease.job_id)
        if job is None or job.token != append.lease.token or job.state not in _HAS_LEASE:
            gone = f"attempt {append.lease.attempt} of {append.lease.job_id} has lost its lease"
            outcomes.append(LeaseLost(gone))
            continue
        has_room = job.log_length + len(entries[job.id]) < limits.EVENTS_PER_JOB_MAX
        if has_room:
            entries[job.id].append((append.kind, append.data))
        outcomes.append(has_room)
    lengths = [
        {"job": job_id, "length": await write_events(conn, job_id, jobs[job_id].log_length, mine)}
        for job_id, mine in entries.items()
        if mine
    ]
    if lengths:
        new_length = update(tables.jobs).where(tables.jobs.c.id == bindparam("job"))
        await conn.execute(new_length.values(log_length=bindparam("length")), lengths)
    return outcomes


async def _rows(conn: AsyncConnection, job_ids: Iterable[str]) -> dict[str, Row[Any]]:
    jobs = tables.jobs
    query = (
        select(jobs)
        .where(jobs.c.id.in_(job_ids))
        .order_by(jobs.c.id)  # locks are taken in one order
        .with_for_update()
    )
    return {row.id: row for row in await conn.execute(query)}


def _check_json(data: dict[str, Any]) -> None:
    try:
        json.dumps(data, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InternalError(f"an event's data isn't JSON: {error}") from error
