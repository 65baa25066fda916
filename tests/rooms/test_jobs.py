"""The job store: states, leases, fencing, listings, restarts. On SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from calotype.core import limits
from calotype.core.errors import IllegalMove, LeaseLost, NotFound
from calotype.core.nouns import (
    EVENT_KINDS,
    Image,
    Job,
    Lease,
    Sampler,
    Spec,
    Tier,
    Verdict,
    VerdictKind,
)
from calotype.core.reviews import Withheld
from calotype.core.states import JOB_MOVES, AttemptState, JobState, move
from calotype.jobs import tables
from calotype.jobs.store import JobStore

SPEC = Spec(
    prompt="a red tent by the sea at night",
    negative_prompt="",
    model="vignette",
    width=64,
    height=128,
    steps=4,
    guidance=3.5,
    sampler=Sampler.DPMPP_2M,
    seed=limits.SEED_MAX,
    n=2,
)
ERROR = {"type": "urn:calotype:problem:internal", "status": 500, "detail": "the engine is gone"}


ALLOWED = Verdict(VerdictKind.ALLOW, "looks", "1", score=0.1, policy="pg13-1-abcd")


def pictures(job: str) -> list[Image]:
    hashes, formats = ("a" * 64, "b" * 64), ("png", "webp")
    return [
        Image(f"img_{job}_{i}", i, SPEC.image_seed(i), 64, 128, *hashes, formats, verdict=ALLOWED)
        for i in range(SPEC.n)
    ]


async def queue(store: JobStore, tenant: str = "ada") -> Job:
    return await store.insert(tenant, Tier.FAST, SPEC)


async def bring_to(store: JobStore, state: JobState) -> tuple[Job, Lease]:
    """A job in this state, and the newest lease it was ever given."""
    job = await queue(store)
    lease = await store.lease(job.id, "cpu-0")
    if state is JobState.QUEUED:
        job = await store.requeue(lease, "the engine died")
    elif state is JobState.PENDING_SAFETY:
        job = await store.hold(lease, "the check can't run")
    elif state is JobState.SUCCEEDED:
        job = await store.succeed(lease, pictures(job.id))
    elif state is JobState.FAILED:
        job = await store.fail(job.id, ERROR, lease=lease)
    elif state is JobState.CANCELLED:
        job = await store.cancel(job.id, by="caller")
    elif state is JobState.IN_REVIEW:
        unsure = replace(ALLOWED, kind=VerdictKind.REVIEW, category="violence")
        kept = Withheld(0, "img_0", unsure, "c" * 64, is_severe=False, sealed="img_0")
        job = await store.people.reviews.end(lease, [], [kept])
    return await store.get(job.id), lease


async def attempts(store: JobStore, job_id: str) -> list[tuple[int, str, str | None]]:
    query = select(tables.attempts).where(tables.attempts.c.job_id == job_id)
    async with store._database.reading() as conn:
        rows = await conn.execute(query.order_by(tables.attempts.c.number))
        return [(row.number, row.state, row.reason) for row in rows]


async def kinds(store: JobStore, job_id: str) -> list[str]:
    return [event.kind for event in await store.events(job_id)]


Change = Callable[[JobStore, Lease], Awaitable[object]]
CHANGES: dict[str, tuple[JobState, Change]] = {
    "lease": (JobState.RUNNING, lambda s, held: s.lease(held.job_id, "cpu-1")),
    "requeue": (JobState.QUEUED, lambda s, held: s.requeue(held, "lost")),
    "requeue_orphan": (
        JobState.QUEUED,
        lambda s, held: s.requeue_orphan(held.job_id, "restart"),
    ),
    "hold": (JobState.PENDING_SAFETY, lambda s, held: s.hold(held, "no check")),
    "succeed": (JobState.SUCCEEDED, lambda s, held: s.succeed(held, pictures(held.job_id))),
    "fail": (JobState.FAILED, lambda s, held: s.fail(held.job_id, ERROR)),
    "fail_leased": (JobState.FAILED, lambda s, held: s.fail(held.job_id, ERROR, lease=held)),
    "cancel": (JobState.CANCELLED, lambda s, held: s.cancel(held.job_id, by="operator")),
}
# Moves of the table that people make, and no attempt (tests/rooms/test_jobs_reviews.py).
BY_PEOPLE = {("succeed", JobState.IN_REVIEW), ("succeed", JobState.FAILED)}
FENCED = {"requeue", "hold", "succeed", "fail_leased"}


# A job's way through the states.


async def test_a_job_is_stored_whole_and_its_log_begins_with_queued(store: JobStore) -> None:
    job = await store.insert("ada", Tier.TURBO, SPEC)
    assert job.id.startswith("job_")
    assert (job.tenant, job.tier, job.spec, job.state) == ("ada", Tier.TURBO, SPEC, "queued")
    assert job.created_at.utcoffset() is not None
    assert (job.attempt, job.token, job.images, job.error, job.started_at) == (0, 0, (), None, None)
    assert await store.get(job.id) == job
    [event] = await store.events(job.id)
    assert (event.seq, event.kind, event.at) == (1, "queued", job.created_at)
    assert event.data == {"tier": "turbo"}


async def test_a_job_runs_and_succeeds_with_its_pictures(store: JobStore) -> None:
    job = await queue(store)
    lease = await store.lease(job.id, "cpu-0")
    assert lease == Lease(job.id, attempt=1, token=1, engine="cpu-0")
    running = await store.get(job.id)
    assert running.state is JobState.RUNNING
    assert running.started_at is not None
    done = await store.succeed(lease, pictures(job.id)[::-1])
    assert done == await store.get(job.id)
    assert done.images == tuple(pictures(job.id)), "images come in order, whole"
    assert done.finished_at is not None
    assert done.finished_at >= running.started_at >= job.created_at
    events = await store.events(job.id)
    assert [(event.seq, event.kind) for event in events] == [
        (1, "queued"),
        (2, "started"),
        (3, "succeeded"),
    ]
    assert events[1].data == {"attempt": 1, "engine": "cpu-0"}
    assert events[2].data == {"images": 2}
    assert await attempts(store, job.id) == [(1, "done", None)]


async def test_a_lost_attempt_puts_the_job_back_and_the_next_one_counts_on(store: JobStore) -> None:
    job = await queue(store)
    first = await store.lease(job.id, "cpu-0")
    started_at = (await store.get(job.id)).started_at
    again = await store.requeue(first, "the engine died", outcome=AttemptState.LOST)
    assert again.state is JobState.QUEUED
    events = await store.events(job.id, after=2)
    assert [(event.kind, event.data) for event in events] == [
        ("attempt_failed", {"attempt": 1, "engine": "cpu-0", "reason": "the engine died"}),
        ("queued", {"tier": "fast", "reason": "the engine died", "attempt": 1}),
    ]
    second = await store.lease(job.id, "cpu-1")
    assert second.attempt == 2
    assert second.token > first.token
    assert (await store.get(job.id)).started_at == started_at, "the first attempt's start stays"
    assert await attempts(store, job.id) == [(1, "lost", "the engine died"), (2, "running", None)]


async def test_a_held_job_does_not_succeed_unjudged(store: JobStore) -> None:
    job, lease = await bring_to(store, JobState.PENDING_SAFETY)
    with pytest.raises(IllegalMove):
        await store.succeed(lease, pictures(lease.job_id))
    assert (await store.get(job.id)).state is JobState.PENDING_SAFETY


async def test_a_failed_job_keeps_its_problem_body(store: JobStore) -> None:
    job, lease = await bring_to(store, JobState.FAILED)
    assert job.error == ERROR
    assert (await store.events(job.id))[-1].data == {"error": ERROR}
    assert await attempts(store, job.id) == [(1, "failed", "the engine is gone")]
    with pytest.raises(LeaseLost):
        await store.append(lease, "step", {"image": 0})


async def test_a_waiting_job_fails_or_is_cancelled_without_an_attempt(store: JobStore) -> None:
    failed, cancelled = await queue(store), await queue(store)
    assert (await store.fail(failed.id, ERROR)).state is JobState.FAILED
    assert (await store.cancel(cancelled.id, by="caller")).state is JobState.CANCELLED
    assert (await store.events(cancelled.id))[-1].data == {"by": "caller"}
    assert await attempts(store, failed.id) + await attempts(store, cancelled.id) == []


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("name", CHANGES)
async def test_every_move_does_what_the_table_says_or_changes_nothing(
    store: JobStore, state: JobState, name: str
) -> None:
    job, lease = await bring_to(store, state)
    if job.token != lease.token:  # a lease as a caller with the right token would hold it
        lease = Lease(job.id, lease.attempt, job.token, lease.engine)
    log, tried = await store.events(job.id), await attempts(store, job.id)
    after, change = CHANGES[name]
    if after in JOB_MOVES[state] and (name, state) not in BY_PEOPLE:
        await change(store, lease)
        moved = await store.get(job.id)
        assert moved.state is after
        assert (moved.finished_at is not None) is after.is_final
        assert len(await store.events(job.id)) > len(log)
    else:
        with pytest.raises(IllegalMove):
            await change(store, lease)
        assert await store.get(job.id) == job
        assert await store.events(job.id) == log
        assert await attempts(store, job.id) == tried


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_of_an_unknown_job_says_that_it_is_not_there(
    store: JobStore, name: str
) -> None:
    with pytest.raises(NotFound):
        await CHANGES[name][1](store, Lease("job_unknown", 1, 1, "cpu-0"))


# Fencing.


@pytest.mark.parametrize("name", sorted(FENCED))
@pytest.mark.parametrize("taken_by", ["the next attempt", "a restart", "cancelling"])
async def test_a_late_attempt_can_write_nothing(store: JobStore, name: str, taken_by: str) -> None:
    _, late = await bring_to(store, JobState.RUNNING)
    if taken_by == "cancelling":
        await store.cancel(late.job_id, by="caller")
    else:
        await store.requeue_orphan(late.job_id, "restart")
        if taken_by == "the next attempt":
            await store.lease(late.job_id, "cpu-1")
    job, log = await store.get(late.job_id), await store.events(late.job_id)
    assert job.token > late.token
    with pytest.raises(LeaseLost):
        await CHANGES[name][1](store, late)
    with pytest.raises(LeaseLost):
        await store.append(late, "step", {"image": 0, "step": 1, "steps": 4})
    assert await store.get(late.job_id) == job
    assert await store.events(late.job_id) == log


async def test_of_many_who_want_the_same_job_one_gets_it(
    store: JobStore, database_url: str
) -> None:
    other = await JobStore.open(database_url)  # as another process would have it
    for _ in range(5):
        job = await queue(store)
        wishes = [s.lease(job.id, f"cpu-{i}") for i in range(4) for s in (store, other)]
        outcomes = await asyncio.gather(*wishes, return_exceptions=True)
        assert sum(isinstance(outcome, Lease) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, IllegalMove) for outcome in outcomes) == 7
        assert await kinds(store, job.id) == ["queued", "started"]
    await other.close()


async def test_success_and_cancelling_can_not_both_win(store: JobStore) -> None:
    for _ in range(10):
        job, lease = await bring_to(store, JobState.RUNNING)
        outcomes = await asyncio.gather(
            store.succeed(lease, pictures(job.id)),
            store.cancel(job.id, by="caller"),
            return_exceptions=True,
        )
        [winner] = [outcome for outcome in outcomes if isinstance(outcome, Job)]
        [loser] = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert isinstance(loser, IllegalMove | LeaseLost)
        assert (await store.get(job.id)).state is winner.state
        assert await kinds(store, job.id) == ["queued", "started", winner.state.value]


async def test_a_change_is_finished_though_its_caller_gave_up(store: JobStore) -> None:
    job = await queue(store)
    follower = asyncio.create_task(anext(store.subscribe(job.id, after=1)))
    request = asyncio.create_task(store.cancel(job.id, by="caller"))
    await asyncio.sleep(0)  # it has begun
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (await asyncio.wait_for(follower, 60)).kind == "cancelled"
    assert (await store.get(job.id)).state is JobState.CANCELLED


ONE_DATABASE = [HealthCheck.function_scoped_fixture]  # for all examples: each has its own job


@settings(max_examples=15, deadline=None, suppress_health_check=ONE_DATABASE)
@given(names=st.lists(st.sampled_from([*CHANGES, "append"]), max_size=12))
def test_whatever_is_tried_the_log_tells_the_state(database_url: str, names: list[str]) -> None:
    asyncio.run(_try_in_turn(database_url, names))


async def _try_in_turn(url: str, names: list[str]) -> None:
    store = await JobStore.open(url)
    try:
        job = await queue(store)
        lease = Lease(job.id, 0, 0, "none")
        for name in names:
            try:
                if name == "append":
                    await store.append(lease, "step", {"image": 0, "step": 1, "steps": 4})
                    continue
                outcome = await CHANGES[name][1](store, lease)
                lease = outcome if isinstance(outcome, Lease) else lease
            except (IllegalMove, LeaseLost):
                continue
        await check_log(store, await store.get(job.id))
    finally:
        await store.close()


STATES = {"started": JobState.RUNNING} | {state.value: state for state in JobState}  # by event


async def check_log(store: JobStore, job: Job) -> None:
    """Its log is a legal path through the states that ends where the job is."""
    events = await store.events(job.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {event.kind for event in events} <= EVENT_KINDS.keys()
    told = [STATES[event.kind] for event in events if event.kind in STATES]
    assert told[0] is JobState.QUEUED
    for before, after in pairwise(told):
        move(JOB_MOVES, before, after)
    assert told[-1] is job.state
    tried = [state for _, state, _ in await attempts(store, job.id)]
    assert len(tried) == job.attempt == [event.kind for event in events].count("started")
    is_active = job.state in {JobState.RUNNING, JobState.PENDING_SAFETY}
    assert tried.count("running") == (1 if is_active else 0)
    assert len(job.images) == (SPEC.n if job.state is JobState.SUCCEEDED else 0)


# Restarts.


async def test_after_a_restart_the_unfinished_jobs_are_there_and_the_late_are_fenced(
    database_url: str,
) -> None:
    store = await JobStore.open(database_url)
    made = {state: await bring_to(store, state) for state in JobState}
    await store.close()
    store = await JobStore.open(database_url)
    unfinished = await store.unfinished()
    expected = [each for each in JobState if not each.is_final]
    assert [job.state for job in unfinished] == expected
    assert unfinished == [made[state][0] for state in expected]
    assert (await store.get(made[JobState.SUCCEEDED][0].id)) == made[JobState.SUCCEEDED][0]
    for state, outcome in ((JobState.RUNNING, "lost"), (JobState.PENDING_SAFETY, "held")):
        job, lease = made[state]
        assert (await store.requeue_orphan(job.id, "restart")).state is JobState.QUEUED
        assert await attempts(store, job.id) == [(1, outcome, "restart")]
        with pytest.raises(LeaseLost):
            await store.succeed(lease, pictures(job.id))
    await store.close()
