"""``JobStore``: the durable record and the event logs, behind one object.

Each method is one transaction. The methods that change a job's state carry out a function of
``moves`` and then wake the job's followers; they raise NotFound for an unknown job, IllegalMove for
a move that the table of states doesn't have, LeaseLost for a lease that isn't the current one, and
then have changed nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core import limits
from calotype.core.errors import InternalError, NotFound, OperatorError
from calotype.core.ids import new_id
from calotype.core.nouns import (
    Event,
    IdempotencyKey,
    Image,
    Job,
    Key,
    Lease,
    Refusal,
    Spec,
    Tier,
    Verdict,
)
from calotype.core.states import AttemptState, JobState
from calotype.jobs import idempotency, keys, moves, notes, reading, tables
from calotype.jobs.budgets import Budgets
from calotype.jobs.database import Database, open_database
from calotype.jobs.files import PictureFiles
from calotype.jobs.hash_log import HashLog
from calotype.jobs.leases import Leases
from calotype.jobs.log import EventLog
from calotype.jobs.people import People
from calotype.jobs.pictures import Pictures
from calotype.jobs.quarantine import Quarantine
from calotype.jobs.webhooks import Webhooks

T = TypeVar("T")


class JobStore:
    """Jobs, their logs and leases, and keys, in one database. Made by ``open``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = EventLog(database)
        self._notes = notes.Notes()
        self.budgets = Budgets(database)
        self.leases = Leases(database)
        self.quarantine = Quarantine(database)
        self.idempotency_keys = idempotency.IdempotencyKeys(database)
        self.hash_log = HashLog(database)
        self.files = PictureFiles(database)
        self.pictures = Pictures(database)
        self.webhooks = Webhooks(database)
        self.people = People(database, self._change)
        self._log.start()

    @classmethod
    async def open(cls, url: str) -> JobStore:
        """Connect (``sqlite+aiosqlite:///FILE``) and migrate to the newest schema.

        Raises OperatorError, with a sentence, when the database can't be opened.
        """
        return cls(await open_database(url))

    async def serve_alone(self) -> None:
        """Keep other servers off this database until it is closed.

        Raises OperatorError if there is one, and is closed then.
        """
        try:
            await self._database.serve_alone()
        except OperatorError:
            await self.close()
            raise

    @property
    def is_away(self) -> bool:
        """Whether this server, which has the database to itself, can't reach it now."""
        return self._database.is_away

    async def stay_alone(self) -> None:
        """See to it that no other server comes, until this is cancelled; nothing to do with SQLite.

        Raises OperatorError once another has, or had, the database: what this server knows of it is
        then worth nothing.
        """
        await self._database.stay_alone()

    async def close(self) -> None:
        """Commit what waits, end every subscription, let go of the database."""
        await self._log.stop()
        await self._database.close()

    # Reading jobs.

    async def get(self, job_id: str, *, tenant: str | None = None) -> Job:
        """One job; with ``tenant``, only that tenant's. Raises NotFound."""
        async with self._database.reading() as conn:
            return await reading.job(conn, job_id, tenant)

    async def list_jobs(self, tenant: str, *, limit: int, before: str | None) -> list[Job]:
        """The tenant's jobs, newest first: ``limit`` of them, older than the job ``before``."""
        async with self._database.reading() as conn:
            return await reading.page(conn, tenant, limit, before)

    async def unfinished(self) -> list[Job]:
        """Every job that isn't over, oldest first; those in review too, which nobody runs."""
        async with self._database.reading() as conn:
            return await reading.unfinished(conn)

    async def count_queued(self, tenant: str | None = None) -> int:
        """How many jobs wait in the line, of one tenant or of all."""
        query = select(func.count()).where(tables.jobs.c.state == JobState.QUEUED.value)
        if tenant is not None:
            query = query.where(tables.jobs.c.tenant == tenant)
        async with self._database.reading() as conn:
            return (await conn.execute(query)).scalar_one()

    async def attempts(self, job_id: str) -> dict[AttemptState, int]:
        """How many attempts of the job are in each state; a state without any is left out."""
        tried = tables.attempts
        query = select(tried.c.state, func.count()).where(tried.c.job_id == job_id)
        async with self._database.reading() as conn:
            rows = await conn.execute(query.group_by(tried.c.state))
            return {AttemptState(state): count for state, count in rows}

    async def lost_on(self, job_id: str) -> list[tuple[str, AttemptState, str]]:
        """The job's attempts that failed or were lost, oldest first: engine, state, reason."""
        tried = tables.attempts
        ended = tried.c.state.in_([AttemptState.FAILED.value, AttemptState.LOST.value])
        query = select(tried.c.engine, tried.c.state, tried.c.reason)
        query = query.where((tried.c.job_id == job_id) & ended).order_by(tried.c.number)
        async with self._database.reading() as conn:
            rows = (await conn.execute(query)).all()
        return [(engine, AttemptState(state), reason or "") for engine, state, reason in rows]

    # Changing a job's state.

    async def insert(
        self,
        tenant: str,
        tier: Tier,
        spec: Spec,
        *,
        job_id: str | None = None,
        user: str = "",
        fell_from: Tier | None = None,
        charged_s: float | None = None,
        once: IdempotencyKey | None = None,
    ) -> Job:
        """Record a new job as queued.

        ``job_id`` is for a caller that had to know it before (the line is told of it first); then
        a second try, of a write of which nobody knows whether it was done, finds the job that it
        made. ``once`` is the key of the request that makes it.
        """
        new = job_id or new_id("job")

        async def write() -> Job:
            try:
                return await write_once()
            except IntegrityError as error:
                try:
                    return await self.get(new)
                except NotFound:
                    raise error from None

        async def write_once() -> Job:
            async with self._database.writing() as conn:
                await moves.insert_job(
                    conn, new, tenant, tier, spec,
                    user=user, fell_from=fell_from, charged_s=charged_s,
                )  # fmt: skip
                if once is not None:
                    await idempotency.write(conn, tenant, once, new)
                noted = await self._notes.write(conn)
                job = await reading.job(conn, new)
            self._notes.written(noted)
            return job

        return await self._database.finish(write())

    async def lease(self, job_id: str, engine: str, why: str = "") -> Lease:
        """Queued -> running: the next attempt, on this engine, under a new token.

        ``why`` it starts out of turn, if it does, goes into its log.
        """
        return await self._change(job_id, lambda conn: moves.lease(conn, job_id, engine, why))

    async def promote(self, job_id: str, waited_s: float, why: str) -> None:
        """Log that a queued job waited so long that it goes before others from now on."""
        await self._change(job_id, lambda conn: moves.promote(conn, job_id, waited_s, why))

    async def tell_queued(self, job_id: str, kind: str, data: dict[str, Any]) -> None:
        """Log of a job that waits what becomes of its model ("loading" or "load_failed")."""
        await self._change(job_id, lambda conn: moves.tell_queued(conn, job_id, kind, data))

    async def requeue(
        self,
        lease: Lease,
        reason: str,
        *,
        outcome: AttemptState = AttemptState.FAILED,
        images: Sequence[dict[str, Any]] = (),
    ) -> Job:
        """Back to queued. ``outcome`` of the attempt: FAILED, LOST when its engine is gone, or
        HANDED_BACK when that goes; ``images`` tells then what it had done of them."""
        return await self._change_job(
            lease.job_id,
            lambda conn: moves.requeue(conn, lease.job_id, lease, reason, outcome, images=images),
        )

    async def requeue_orphan(self, job_id: str, reason: str) -> Job:
        """Back to queued without its lease: a job found running or held after a restart."""
        return await self._change_job(
            job_id, lambda conn: moves.requeue(conn, job_id, None, reason, AttemptState.LOST)
        )

    async def succeed(
        self, lease: Lease, images: Sequence[Image], refused: Sequence[Refusal] = ()
    ) -> Job:
        """Running -> succeeded, with its pictures and those kept back."""
        return await self._change_job(
            lease.job_id, lambda conn: moves.succeed(conn, lease, images, refused)
        )

    async def hold(self, lease: Lease, reason: str) -> Job:
        """Running -> pending_safety; from there it is queued again, since its pictures are dropped.

        The log keeps no previews of what couldn't be judged.
        """
        return await self._change_job(lease.job_id, lambda conn: moves.hold(conn, lease, reason))

    async def fail(
        self,
        job_id: str,
        error: dict[str, Any],
        *,
        lease: Lease | None = None,
        refused: Sequence[Refusal] = (),
        is_poison: bool = False,
    ) -> Job:
        """Any unfinished state -> failed, with a problem body; fenced when a lease is given.

        What a job asked for that is poison is quarantined with it.
        The log keeps no previews of it.
        """
        if lease is not None and lease.job_id != job_id:
            raise InternalError(f"a lease of {lease.job_id} can't fail {job_id}")
        return await self._change_job(
            job_id,
            lambda conn: moves.fail(conn, job_id, error, lease, refused, is_poison=is_poison),
        )

    async def cancel(self, job_id: str, *, by: str) -> Job:
        """Any unfinished state -> cancelled; ``by`` is "caller" or "operator".

        The log keeps no previews of it.
        """
        return await self._change_job(job_id, lambda conn: moves.cancel(conn, job_id, by))

    # Notes, which outlive a restart.

    def keep(self, name: str, make: notes.Make) -> None:
        """Write what ``make`` then returns, entry by entry, with the next change of a job."""
        self._notes.keep(name, make)

    async def note(self, name: str) -> dict[str, Any] | None:
        """The note of this name as it was last written; None if it never was."""
        async with self._database.reading() as conn:
            return await notes.read(conn, name)

    # The event log.

    async def append(self, lease: Lease, kind: str, data: dict[str, Any]) -> bool:
        """Log a "step" or "image_finished"; returns once committed, False if the log is full.

        Raises LeaseLost, and InternalError for another kind or data that isn't JSON.
        """
        return await self._log.append(lease, kind, data)

    async def withhold(
        self, lease: Lease, image: int, pixels_sha256: str = "", verdict: Verdict | None = None
    ) -> None:
        """Take the previews of image ``image`` out of the job's log, for good; keep its verdict."""
        await self._change(
            lease.job_id,
            lambda conn: moves.withhold(conn, lease, image, pixels_sha256, verdict),
            notes_too=False,
        )

    async def events(
        self, job_id: str, *, after: int = 0, limit: int = limits.EVENTS_PER_JOB_MAX
    ) -> list[Event]:
        """At most ``limit`` stored events above seq ``after``, in order. Raises NotFound."""
        return await self._log.read(job_id, after, limit)

    def subscribe(self, job_id: str, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yield the stored events above seq ``after``, then live ones, each once, in order.

        Ends after the final event (succeeded, failed, cancelled), and when the store is closed. The
        first step raises NotFound for an unknown job. Follows what this process writes.
        """
        return self._log.follow(job_id, after)

    # Keys.

    async def create_key(
        self, *, tenant: str, name: str, scopes: Sequence[str], user: str | None = None
    ) -> tuple[Key, str]:
        """Make a key and its secret, which is stored nowhere. Raises InvalidInput."""
        return await keys.create(self._database, tenant=tenant, user=user, name=name, scopes=scopes)

    async def authenticate(self, secret: str) -> Key:
        """The key of this secret. Raises Unauthorized when it is unknown or revoked."""
        return await keys.authenticate(self._database, secret)

    async def list_keys(self) -> list[Key]:
        """All keys, oldest first, the revoked ones too."""
        return await keys.every(self._database)

    async def revoke_key(self, key_id: str) -> Key:
        """End a key, for good. Raises NotFound."""
        return await keys.revoke(self._database, key_id)

    # Shared parts.

    async def _change_job(
        self, job_id: str, change: Callable[[AsyncConnection], Awaitable[None]]
    ) -> Job:
        async def changed(conn: AsyncConnection) -> Job:
            await change(conn)
            return await reading.job(conn, job_id)

        return await self._change(job_id, changed)

    async def _change(
        self,
        job_id: str,
        change: Callable[[AsyncConnection], Awaitable[T]],
        *,
        notes_too: bool = True,  # not from outside a turn: they would come before their change
    ) -> T:
        async def write() -> T:
            async with self._database.writing() as conn:
                result = await change(conn)
                noted = await self._notes.write(conn) if notes_too else {}
            self._notes.written(noted)
            self._log.ring(job_id)
            return result

        return await self._database.finish(write())
