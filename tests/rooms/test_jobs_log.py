"""The event log: grouped appends, reading on, following live. On SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, event, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from calotype.core import limits
from calotype.core.errors import InternalError, InvalidInput, LeaseLost, NotFound
from calotype.core.nouns import Event, Lease, Sampler, Spec, Tier
from calotype.jobs import log, tables
from calotype.jobs.store import JobStore

SPEC = Spec("a tent", "", "vignette", 64, 64, 4, 3.5, Sampler.EULER, 7, 1)
PATIENCE_S = 60.0  # after this long without an event, a follower is stuck


async def run(store: JobStore, engine: str = "cpu-0") -> Lease:
    job = await store.insert("ada", Tier.FAST, SPEC)
    return await store.lease(job.id, engine)


def a_step(number: int) -> dict[str, Any]:
    preview = "data:image/webp;base64," + "A" * 1_000
    return {"image": 0, "step": number, "steps": 100, "preview": preview}


async def follow(store: JobStore, job_id: str, after: int = 0) -> list[Event]:
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in store.subscribe(job_id, after=after)]


def seqs(events: list[Event]) -> list[int]:
    return [event.seq for event in events]


# Appending.


async def test_an_append_is_in_the_store_once_it_returns(
    store: JobStore, database_url: str
) -> None:
    lease = await run(store)
    assert await store.append(lease, "step", a_step(1))
    other = await JobStore.open(database_url)
    stored = (await other.events(lease.job_id))[-1]
    assert (stored.seq, stored.kind, stored.data) == (3, "step", a_step(1))
    await other.close()


async def test_appends_of_many_jobs_share_transactions_and_keep_their_order(
    store: JobStore,
) -> None:
    leases = [await run(store) for _ in range(10)]
    commits: list[object] = []
    event.listen(store._database._engine.sync_engine, "commit", commits.append)
    wishes = [store.append(lease, "step", a_step(i)) for i in range(1, 21) for lease in leases]
    assert all(await asyncio.gather(*wishes))
    assert 1 <= len(commits) <= 3, "200 appends at once, GROUP_MAX is 256"
    for lease in leases:
        events = await store.events(lease.job_id)
        assert seqs(events) == list(range(1, 23))
        assert [event.data["step"] for event in events[2:]] == list(range(1, 21))


async def test_a_store_that_is_closed_in_mid_write_writes_to_the_end_and_holds_no_lock(
    store: JobStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though whoever appended has given up: half done, the next server would find it locked."""
    lease, write = await run(store), log._write
    is_writing, may_end = asyncio.Event(), asyncio.Event()

    async def slow(*given: Any) -> list[bool | Exception]:
        outcomes = await write(*given)
        is_writing.set()
        await may_end.wait()
        return outcomes

    monkeypatch.setattr(log, "_write", slow)
    append = asyncio.create_task(store.append(lease, "step", a_step(1)))
    await is_writing.wait()
    append.cancel()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0.05)
    may_end.set()
    await closing
    other = await JobStore.open(database_url)
    assert (await other.events(lease.job_id))[-1].kind == "step"
    await other.close()


async def test_more_appends_than_the_queue_holds_are_all_written(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "GROUP_MAX", 3)
    store._log._queue = asyncio.Queue(2)
    await store._log.stop()
    store._log.start()
    lease = await run(store)
    assert all(
        await asyncio.gather(*(store.append(lease, "step", a_step(i)) for i in range(1, 31)))
    )
    assert seqs(await store.events(lease.job_id)) == list(range(1, 33))


async def test_one_lost_lease_does_not_spoil_the_group(store: JobStore) -> None:
    good, late = await run(store), await run(store)
    await store.cancel(late.job_id, by="caller")
    unknown = Lease("job_unknown", 1, 1, "cpu-0")
    wishes = [store.append(lease, "step", a_step(1)) for lease in (good, late, unknown, good)]
    outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [bool, LeaseLost, LeaseLost, bool]
    assert seqs(await store.events(good.job_id)) == [1, 2, 3, 4]
    assert (await store.events(late.job_id))[-1].kind == "cancelled"


async def test_a_job_that_is_over_takes_no_more_progress(store: JobStore) -> None:
    lease = await run(store)
    await store.succeed(lease, [])
    with pytest.raises(LeaseLost):
        await store.append(lease, "step", a_step(1))


async def test_past_its_limit_a_log_takes_only_changes_of_state(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EVENTS_PER_JOB_MAX", 5)
    lease = await run(store)
    wishes = [store.append(lease, "step", a_step(i)) for i in range(1, 7)]
    assert await asyncio.gather(*wishes) == [True, True, True, False, False, False]
    assert await store.append(lease, "step", a_step(7)) is False
    await store.requeue(lease, "lost")
    again = await store.lease(lease.job_id, "cpu-1")
    assert await store.append(again, "step", a_step(1)) is False
    await store.succeed(again, [])
    events = await follow(store, lease.job_id)
    told = ["queued", "started", "step", "step", "step"]
    assert [event.kind for event in events] == [
        *told,
        "attempt_failed",
        "queued",
        "started",
        "succeeded",
    ]
    assert seqs(events) == list(range(1, 10))


@pytest.mark.parametrize("kind", ["succeeded", "queued", "nonsense"])
async def test_only_progress_can_be_appended(store: JobStore, kind: str) -> None:
    lease = await run(store)
    with pytest.raises(InternalError, match="can't be appended"):
        await store.append(lease, kind, {})
    assert len(await store.events(lease.job_id)) == 2


@pytest.mark.parametrize("data", [{"step": object()}, {"step": math.nan}])
async def test_what_is_not_json_is_refused_before_it_reaches_the_group(
    store: JobStore, data: dict[str, Any]
) -> None:
    lease = await run(store)
    with pytest.raises(InternalError, match="JSON"):
        await store.append(lease, "step", data)
    assert await store.append(lease, "step", a_step(1))


async def test_when_the_database_fails_each_caller_learns_it_and_the_writer_lives(
    store: JobStore,
) -> None:
    lease = await run(store)
    async with store._database.writing() as conn:  # the row says 1, the log has 2: seq collides
        await conn.execute(update(tables.jobs).values(log_length=1))
    wishes = [store.append(lease, "step", a_step(i)) for i in (1, 2)]
    outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [IntegrityError, IntegrityError]
    async with store._database.writing() as conn:
        await conn.execute(update(tables.jobs).values(log_length=2))
    assert await store.append(lease, "step", a_step(3))


async def test_closing_writes_what_waits_and_then_refuses(store: JobStore) -> None:
    lease = await run(store)
    waiting = [asyncio.create_task(store.append(lease, "step", a_step(i))) for i in range(1, 6)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*waiting) == [True] * 5
    with pytest.raises(InternalError, match="closed"):
        await store.append(lease, "step", a_step(9))


# Reading and following.


async def test_reading_goes_on_after_a_seq_in_pages(store: JobStore) -> None:
    lease = await run(store)
    await asyncio.gather(*(store.append(lease, "step", a_step(i)) for i in range(1, 9)))
    assert seqs(await store.events(lease.job_id, after=4, limit=3)) == [5, 6, 7]
    assert seqs(await store.events(lease.job_id, after=7)) == [8, 9, 10]
    assert await store.events(lease.job_id, after=10) == []
    with pytest.raises(InvalidInput, match="limit"):
        await store.events(lease.job_id, limit=limits.EVENTS_PER_JOB_MAX + 1)


async def test_an_unknown_job_has_no_log(store: JobStore) -> None:
    with pytest.raises(NotFound):
        await store.events("job_unknown")
    with pytest.raises(NotFound):
        await follow(store, "job_unknown")
    assert store._log._bells == {}


async def test_followers_miss_nothing_and_see_nothing_twice(store: JobStore) -> None:
    job = await store.insert("ada", Tier.FAST, SPEC)
    followers = [asyncio.create_task(follow(store, job.id)) for _ in range(5)]
    lease = await store.lease(job.id, "cpu-0")
    for number in range(1, 41):
        await store.append(lease, "step", a_step(number))
        if number % 10 == 0:  # some join late, some from the middle
            followers.append(asyncio.create_task(follow(store, job.id)))
    await store.requeue(lease, "lost")
    await store.succeed(await store.lease(job.id, "cpu-1"), [])
    logged = await store.events(job.id)
    assert [seen for seen in await asyncio.gather(*followers) if seen != logged] == []
    assert logged[-1].kind == "succeeded"
    assert store._log._bells == {}, "nothing is kept for a job that nobody follows"


@pytest.mark.parametrize("after", range(8))
async def test_a_subscription_resumes_after_any_seq(store: JobStore, after: int) -> None:
    lease = await run(store)
    await store.append(lease, "step", a_step(1))
    await store.append(lease, "step", a_step(2))
    live = asyncio.create_task(follow(store, lease.job_id, after))
    await store.append(lease, "step", a_step(3))
    await store.cancel(lease.job_id, by="caller")
    whole = list(range(1, 7))
    assert seqs(await live) == whole[after:]
    assert seqs(await follow(store, lease.job_id, after)) == whole[after:], "and when it is over"


async def test_a_long_log_is_followed_page_by_page(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "PAGE_EVENTS", 3)
    lease = await run(store)
    await asyncio.gather(*(store.append(lease, "step", a_step(i)) for i in range(1, 7)))
    await store.succeed(lease, [])  # 9 events: the last page is full
    assert seqs(await follow(store, lease.job_id)) == list(range(1, 10))


@pytest.mark.parametrize("end", ["succeed", "fail", "cancel"])
async def test_a_subscription_ends_with_the_job(store: JobStore, end: str) -> None:
    lease = await run(store)
    live = asyncio.create_task(follow(store, lease.job_id))
    if end == "succeed":
        await store.succeed(lease, [])
    elif end == "fail":
        await store.fail(lease.job_id, {"detail": "no"}, lease=lease)
    else:
        await store.cancel(lease.job_id, by="operator")
    kinds = {"succeed": "succeeded", "fail": "failed", "cancel": "cancelled"}
    assert [event.kind for event in await live] == ["queued", "started", kinds[end]]


async def test_a_follower_that_leaves_is_forgotten(store: JobStore) -> None:
    lease = await run(store)
    stream = store.subscribe(lease.job_id)
    assert (await anext(stream)).kind == "queued"
    assert list(store._log._bells) == [lease.job_id]
    await stream.aclose()
    waiting = asyncio.create_task(follow(store, lease.job_id))
    for _ in range(50):  # at every point of a read a follower can be cancelled
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert store._log._bells == {}
    await store.close()
    assert store._database._engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_closing_ends_the_subscriptions_of_jobs_that_go_on(store: JobStore) -> None:
    lease = await run(store)
    stream = store.subscribe(lease.job_id)
    assert [(await anext(stream)).seq, (await anext(stream)).seq] == [1, 2]
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0.05)  # it waits for a third
    assert not waiting.done()
    await store.close()
    async with asyncio.timeout(PATIENCE_S):
        assert await waiting is None
    with pytest.raises(InternalError, match="closed"):
        await store.get(lease.job_id)


# Append-only, by the database's own word.


CHANGES = {
    "forgotten": delete(tables.events),
    "renumbered": update(tables.events).values(seq=tables.events.c.seq + 10),
    "renamed": update(tables.events).values(kind="succeeded"),
    "antedated": update(tables.events).values(at=datetime(2020, 1, 1, tzinfo=UTC)),
    "reworded": update(tables.events).values(data={"image": 0, "step": 2, "steps": 100}),
    "emptied": update(tables.events).values(data={}),
    "moved": update(tables.events).values(job_id="job_other"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_happened_can_not_be_changed_afterwards(store: JobStore, change: str) -> None:
    lease = await run(store)
    await store.append(lease, "step", a_step(1))
    before = await store.events(lease.job_id)
    with pytest.raises(DBAPIError, match="append-only"):
        async with store._database.writing() as conn:
            await conn.execute(CHANGES[change])
    assert await store.events(lease.job_id) == before
    await store.withhold(lease, 0)
    assert (await store.events(lease.job_id))[-1].data == {"image": 0, "step": 1, "steps": 100}
