"""Leases that run out, late attempts, many who claim; on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest
from sqlalchemy import select, update

from calotype.core import limits
from calotype.core.errors import IllegalMove, LeaseLost
from calotype.core.nouns import Lease
from calotype.core.states import JobState
from calotype.jobs import tables
from calotype.jobs.leases import DatabaseNow
from calotype.jobs.store import JobStore
from tests.rooms.test_jobs import bring_to, pictures, queue

HOUR_S = 3600.0


async def left_s(store: JobStore, job_id: str) -> float:
    """Seconds until the job's lease runs out."""
    tried = tables.attempts
    query = select(tried.c.expires_at - DatabaseNow()).where(tried.c.job_id == job_id)
    async with store._database.reading() as conn:
        return float((await conn.execute(query)).scalar_one())


async def shift(store: JobStore, by_s: float) -> None:
    """As if the database's clock had jumped the other way."""
    tried = tables.attempts
    async with store._database.writing() as conn:
        await conn.execute(update(tried).values(expires_at=tried.c.expires_at + by_s))


async def test_a_lease_ends_by_the_databases_clock_unless_it_is_renewed(store: JobStore) -> None:
    _, kept = await bring_to(store, JobState.RUNNING)
    _, left = await bring_to(store, JobState.RUNNING)
    assert limits.LEASE_S - 5 < await left_s(store, kept.job_id) <= limits.LEASE_S
    assert await store.leases.lapsed() == []
    await shift(store, -limits.LEASE_S)
    assert await store.leases.lapsed() == [kept.job_id, left.job_id]
    assert await store.leases.renew([kept]) == {kept.job_id}
    assert limits.LEASE_S - 5 < await left_s(store, kept.job_id) <= limits.LEASE_S
    assert await store.leases.lapsed() == [left.job_id]


async def test_only_its_holder_renews_a_lease(store: JobStore) -> None:
    _, late = await bring_to(store, JobState.RUNNING)
    await store.requeue_orphan(late.job_id, "its lease ran out")
    assert await store.leases.renew([late]) == set()
    holder = await store.lease(late.job_id, "cpu-1")
    assert await store.leases.renew([late]) == set()
    assert await store.leases.renew([late, holder]) == {holder.job_id}
    await store.succeed(holder, pictures(holder.job_id))
    assert await store.leases.renew([holder]) == set()
    assert await store.leases.renew([]) == set()


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.RUNNING])
async def test_a_job_that_does_not_run_has_no_lease_to_run_out(
    store: JobStore, state: JobState
) -> None:
    await bring_to(store, state)
    await shift(store, -HOUR_S)
    assert await store.leases.lapsed() == []


async def test_a_lease_that_ran_out_is_good_until_it_is_taken(store: JobStore) -> None:
    _, lease = await bring_to(store, JobState.RUNNING)
    await shift(store, -HOUR_S)
    assert (await store.succeed(lease, pictures(lease.job_id))).state is JobState.SUCCEEDED


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S])
async def test_a_clock_that_jumps_an_hour_costs_no_held_lease_and_hides_no_lost_one(
    store: JobStore, jump_s: float
) -> None:
    _, held = await bring_to(store, JobState.RUNNING)
    _, lost = await bring_to(store, JobState.RUNNING)
    await shift(store, -jump_s)
    assert await store.leases.renew([held]) == {held.job_id}
    assert await store.leases.lapsed() == [lost.job_id]


# R2: a worker that is stopped for longer than its lease.

_WORK = """
import asyncio, sys
from calotype.core.errors import IllegalMove, LeaseLost
from calotype.jobs.store import JobStore
from tests.rooms.test_jobs import pictures

async def main():
    store = await JobStore.open(sys.argv[1])
    lease = await store.lease(sys.argv[2], "late")
    print(lease.token, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    try:
        await store.succeed(lease, pictures(lease.job_id))
        print("written", flush=True)
    except LeaseLost:
        print("refused", flush=True)
    await store.close()

asyncio.run(main())
"""


async def test_a_worker_that_was_stopped_past_its_lease_writes_nothing(
    store: JobStore, database_url: str
) -> None:
    job = await queue(store)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WORK, database_url, job.id,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert await worker.stdout.readline() == b"1\n"
    os.kill(worker.pid, signal.SIGSTOP)
    await shift(store, -limits.LEASE_S)  # so long
    assert await store.leases.lapsed() == [job.id]
    await store.requeue_orphan(job.id, "its lease ran out")
    again = await store.lease(job.id, "cpu-1")
    os.kill(worker.pid, signal.SIGCONT)
    worker.stdin.write(b"\n")
    assert await worker.stdout.readline() == b"refused\n"
    assert await worker.wait() == 0
    assert (await store.get(job.id)).images == ()
    assert (await store.succeed(again, pictures(job.id))).images == tuple(pictures(job.id))


# R10: many workers, one job each.


async def test_no_job_is_claimed_twice(store: JobStore, database_url: str) -> None:
    workers, jobs = 8, 40
    waiting = [(await queue(store)).id for _ in range(jobs)]
    others = [await JobStore.open(database_url) for _ in range(workers)]
    claims = await asyncio.gather(*(claim_all(other, waiting) for other in others))
    leases = [lease for mine in claims for lease in mine]
    assert sorted(lease.job_id for lease in leases) == sorted(waiting)
    assert {(lease.attempt, lease.token) for lease in leases} == {(1, 1)}
    for other in others:
        await other.close()


async def claim_all(store: JobStore, waiting: list[str]) -> list[Lease]:
    """Try to claim every job, in the order in which everybody does."""
    claimed = []
    for job_id in waiting:
        try:
            claimed.append(await store.lease(job_id, "cpu-0"))
        except (IllegalMove, LeaseLost):
            continue
    return claimed
