"""Every change of a job's state, each as SQL inside a transaction that the caller opened.

Which moves are legal is said in ``core.states``; when to make one is for others to decide. The rule
here is that a state, its attempt and its events change together or not at all, and that of two
writers only one can win: the row is locked where the database can, and the UPDATE says which token
and state it expects. An attempt lasts until its job leaves ``running`` and ``pending_safety``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core.errors import IllegalMove, InternalError, LeaseLost, NotFound
from calotype.core.nouns import Image, Lease, Refusal, Spec, Tier, Verdict
from calotype.core.states import (
    ATTEMPT_MOVES,
    JOB_MOVES,
    AttemptState,
    JobState,
    ReviewState,
    move,
)
from calotype.jobs import files, previews, quarantine, tables, verdicts, webhooks
from calotype.jobs.leases import fresh_end
from calotype.jobs.people_tables import reviews
from calotype.jobs.rows import refused_json, spec_json, utc_now

Entry = tuple[str, dict[str, Any]]  # an event's kind and data


async def insert_job(
    conn: AsyncConnection,
    job_id: str,
    tenant: str,
    tier: Tier,
    spec: Spec,
    *,
    user: str,
    fell_from: Tier | None,
    charged_s: float | None,
) -> None:
    """Write the job and its "queued" event."""
    at = utc_now()
    await conn.execute(
        insert(tables.jobs).values(
            id=job_id,
            tenant=tenant,
            user=user,
            tier=tier.value,
            spec=spec_json(spec),
            state=JobState.QUEUED.value,
            created_at=at,
            attempt=0,
            token=0,
            log_length=1,
            fell_from=fell_from,
            charged_s=charged_s,
        )
    )
    first: dict[str, Any] = {"tier": tier.value}
    if fell_from is not None:
        first["fell_from"] = fell_from.value
    await conn.execute(
        insert(tables.events).values(job_id=job_id, seq=1, kind="queued", at=at, data=first)
    )
    await webhooks.write(conn, job_id, tenant, [(1, "queued")], at)


async def lease(conn: AsyncConnection, job_id: str, engine: str, why: str = "") -> Lease:
    """Queued -> running, as the next attempt, under the next token; ``why`` if out of turn."""
    job = await _locked(conn, job_id)
    granted = Lease(job_id, job.attempt + 1, job.token + 1, engine)
    at = utc_now()
    started = {"attempt": granted.attempt, "engine": engine} | ({"why": why} if why else {})
    await _change(
        conn,
        job,
        JobState.RUNNING,
        [("started", started)],
        attempt=granted.attempt,
        token=granted.token,
        started_at=job.started_at or at,
    )
    await conn.execute(
        insert(tables.attempts).values(
            job_id=job_id,
            number=granted.attempt,
            token=granted.token,
            engine=engine,
            state=AttemptState.RUNNING.value,
            started_at=at,
            expires_at=fresh_end(),
        )
    )
    return granted


async def promote(conn: AsyncConnection, job_id: str, waited_s: float, why: str) -> None:
    """Log that a queued job goes before others from now on; its state stays."""
    job = await _locked(conn, job_id)
    if job.state != JobState.QUEUED:
        raise IllegalMove(f"{job_id} is {job.state}: only a queued job is promoted")
    entries: list[Entry] = [("promoted", {"waited_s": round(waited_s, 1), "why": why})]
    length = await write_events(conn, job_id, job.log_length, entries)
    ours = tables.jobs.c.id == job_id
    await conn.execute(update(tables.jobs).where(ours).values(log_length=length))


async def tell_queued(conn: AsyncConnection, job_id: str, kind: str, data: dict[str, Any]) -> None:
    """Log something of a job that waits; nothing if it doesn't any more. Its state stays."""
    job = await _locked(conn, job_id)
    if job.state != JobState.QUEUED:
        return
    length = await write_events(conn, job_id, job.log_length, [(kind, data)])
    ours = tables.jobs.c.id == job_id
    await conn.execute(update(tables.jobs).where(ours).values(log_length=length))


async def requeue(
    conn: AsyncConnection,
    job_id: str,
    held: Lease | None,
    reason: str,
    outcome: AttemptState,
    *,
    images: Sequence[dict[str, Any]] = (),
) -> None:
    """Back to queued; the token moves on, so that whoever ran it can write no more.

    An attempt that was held didn't fail, whatever ``outcome`` says: its log tells why already. Nor
    did one that was handed back; ``images`` tells what had been done of it.
    """
    job = await _locked(conn, job_id, held)
    move(JOB_MOVES, JobState(job.state), JobState.QUEUED)  # before its attempt is looked for
    entries: list[Entry] = []
    if job.state == JobState.PENDING_SAFETY:
        await _end_attempt(conn, job, AttemptState.HELD, reason)
    else:
        engine = await _end_attempt(conn, job, outcome, reason)
        ended: dict[str, Any] = {"attempt": job.attempt, "engine": engine, "reason": reason}
        if outcome is AttemptState.HANDED_BACK:
            entries.append(("handed_back", ended | {"images": [*images]}))
        else:
            entries.append(("attempt_failed", ended))
    queued = {"tier": job.tier, "reason": reason, "attempt": job.attempt}
    entries.append(("queued", queued))
    await _change(conn, job, JobState.QUEUED, entries, token=job.token + 1)


async def succeed(
    conn: AsyncConnection, held: Lease, images: Sequence[Image], refused: Sequence[Refusal]
) -> None:
    """Running -> succeeded, with its pictures, and those that were kept back."""
    job = await _locked(conn, held.job_id, held)
    if job.state != JobState.RUNNING:  # to let out what was refused, or is in review, is people's
        raise IllegalMove(f"{job.id} is {job.state}: no attempt of it can succeed")
    entries: list[Entry] = [("succeeded", {"images": len(images)})]
    await _change(conn, job, JobState.SUCCEEDED, entries, refused=refused_json(refused))
    await _end_attempt(conn, job, AttemptState.DONE)
    for image in images:
        if image.verdict is None:
            raise InternalError(f"{image.id} wasn't judged: it can't be delivered")
        await verdicts.deliver(conn, held.job_id, image, image.verdict)
    if images:
        await files.add(conn, images)


async def hold(conn: AsyncConnection, held: Lease, reason: str) -> None:
    """Running -> pending_safety; the lease stays good, to succeed or fail with later."""
    job = await _locked(conn, held.job_id, held)
    await _change(conn, job, JobState.PENDING_SAFETY, [("pending_safety", {"reason": reason})])
    await previews.strip(conn, held.job_id)


async def review(
    conn: AsyncConnection, held: Lease, refused: Sequence[Refusal], reason: str
) -> None:
    """Running -> in_review: nothing of it may be delivered before people have looked at it."""
    job = await _locked(conn, held.job_id, held)
    entries: list[Entry] = [("in_review", {"reason": reason})]
    values = {"refused": refused_json(refused), "token": job.token + 1}
    await _change(conn, job, JobState.IN_REVIEW, entries, **values)
    await _end_attempt(conn, job, AttemptState.DONE)


async def let_out(conn: AsyncConnection, job_id: str, image: Image) -> None:
    """Deliver a picture that people allow; the job has then succeeded, if it hadn't."""
    job = await _locked(conn, job_id)
    if image.verdict is None:
        raise InternalError(f"{image.id} wasn't judged: it can't be delivered")
    await verdicts.deliver(conn, job_id, image, image.verdict)
    await files.add(conn, [image])
    mine = tables.images.c.job_id == job_id
    count = (await conn.execute(select(func.count()).where(mine))).scalar_one()
    entries: list[Entry] = [("succeeded", {"images": count})]
    others = [each for each in job.refused or () if each["index"] != image.index]
    values: dict[str, Any] = {"refused": others or None, "error": None}
    if job.state != JobState.SUCCEEDED:
        await _change(conn, job, JobState.SUCCEEDED, entries, **values)
        return
    # It was told before, with fewer pictures.
    length = await write_events(conn, job_id, job.log_length, entries)
    ours = update(tables.jobs).where(tables.jobs.c.id == job_id)
    await conn.execute(ours.values(log_length=length, **values))
    await webhooks.write(conn, job_id, job.tenant, [(length, "succeeded")], utc_now())


async def keep_back(
    conn: AsyncConnection, job_id: str, refusal: Refusal, error: dict[str, Any], *, is_last: bool
) -> None:
    """Say of a picture that people refused it; a job in review of which it was the last fails."""
    job = await _locked(conn, job_id)
    others = [each for each in job.refused or () if each["index"] != refusal.index]
    refused = [*others, *(refused_json([refusal]) or ())]
    refused.sort(key=lambda each: int(each["index"]))
    if is_last and job.state == JobState.IN_REVIEW:
        entries: list[Entry] = [("failed", {"error": error})]
        await _change(conn, job, JobState.FAILED, entries, refused=refused, error=error)
    else:
        ours = update(tables.jobs).where(tables.jobs.c.id == job_id)
        await conn.execute(ours.values(refused=refused))


async def fail(
    conn: AsyncConnection,
    job_id: str,
    error: dict[str, Any],
    held: Lease | None,
    refused: Sequence[Refusal] = (),
    *,
    is_poison: bool = False,
) -> None:
    """Unfinished -> failed; the token moves on, which matters when no lease is in hand."""
    job = await _locked(conn, job_id, held)
    entries: list[Entry] = [("failed", {"error": error})]
    values = {"error": error, "refused": refused_json(refused), "token": job.token + 1}
    await _change(conn, job, JobState.FAILED, entries, **values)
    await previews.strip(conn, job_id)
    reason = str(error.get("detail", ""))
    await _end_attempt(conn, job, AttemptState.FAILED, reason)
    if is_poison:
        await quarantine.add(conn, job_id, job.spec, reason)


async def cancel(conn: AsyncConnection, job_id: str, by: str) -> None:
    """Unfinished -> cancelled; the token moves on, so that a running attempt can write no more."""
    job = await _locked(conn, job_id)
    entries: list[Entry] = [("cancelled", {"by": by})]
    await _change(conn, job, JobState.CANCELLED, entries, token=job.token + 1)
    await previews.strip(conn, job_id)
    await _end_attempt(conn, job, AttemptState.CANCELLED)
    waits = (reviews.c.job_id == job_id) & (reviews.c.state == ReviewState.HELD.value)
    gone = {"state": ReviewState.WITHDRAWN.value, "closed_at": utc_now()}
    await conn.execute(update(reviews).where(waits).values(gone))


async def withhold(
    conn: AsyncConnection, held: Lease, image: int, pixels_sha256: str, verdict: Verdict | None
) -> None:
    """Keep the verdict of an image that may not be seen, and take its previews out of the log."""
    await _locked(conn, held.job_id, held)
    if verdict is not None:
        await verdicts.record(conn, pixels_sha256, verdict)
    await previews.strip(conn, held.job_id, image)


async def write_events(
    conn: AsyncConnection, job_id: str, length: int, entries: Sequence[Entry]
) -> int:
    """Write events after seq ``length``; return the new length, which the caller stores."""
    at = utc_now()
    rows = [
        {"job_id": job_id, "seq": seq, "kind": kind, "at": at, "data": data}
        for seq, (kind, data) in enumerate(entries, start=length + 1)
    ]
    await conn.execute(insert(tables.events), rows)
    return length + len(rows)


async def _locked(conn: AsyncConnection, job_id: str, held: Lease | None = None) -> Row[Any]:
    """The job's row, locked until the transaction ends (SQLite has locked the whole file)."""
    query = select(tables.jobs).where(tables.jobs.c.id == job_id).with_for_update()
    job = (await conn.execute(query)).one_or_none()
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    if held is not None and held.token != job.token:
        raise LeaseLost(f"attempt {held.attempt} of {job_id} no longer holds its lease")
    return job


async def _change(
    conn: AsyncConnection,
    job: Row[Any],
    after: JobState,
    entries: Sequence[Entry],
    **values: Any,
) -> None:
    """Move the job, if the table allows it, and log that; raise and change nothing otherwise."""
    before = JobState(job.state)
    move(JOB_MOVES, before, after)
    if after.is_final:
        values["finished_at"] = utc_now()
    changed = await conn.execute(
        update(tables.jobs)
        .where(
            tables.jobs.c.id == job.id,
            tables.jobs.c.token == job.token,
            tables.jobs.c.state == before.value,
        )
        .values(state=after.value, log_length=job.log_length + len(entries), **values)
    )
    if changed.rowcount != 1:
        raise LeaseLost(f"{job.id} was changed by another writer at the same time")
    await write_events(conn, job.id, job.log_length, entries)
    told = [(seq, kind) for seq, (kind, _) in enumerate(entries, start=job.log_length + 1)]
    await webhooks.write(conn, job.id, job.tenant, told, utc_now())
    if before is JobState.RUNNING and job.spec.get("pool"):
        await previews.strip(conn, job.id)  # of what a pool makes only its store has pixels


async def _end_attempt(
    conn: AsyncConnection, job: Row[Any], after: AttemptState, reason: str | None = None
) -> str | None:
    """End the attempt that runs; return its engine, or None for a job that none runs of."""
    if job.state in (JobState.QUEUED, JobState.IN_REVIEW):
        return None
    ours = (tables.attempts.c.job_id == job.id) & (tables.attempts.c.number == job.attempt)
    attempt = (await conn.execute(select(tables.attempts).where(ours))).one()
    state = move(ATTEMPT_MOVES, AttemptState(attempt.state), after)
    await conn.execute(
        update(tables.attempts)
        .where(ours)
        .values(state=state.value, ended_at=utc_now(), reason=reason)
    )
    engine: str = attempt.engine
    return engine
