"""What the job store keeps beside states: notes, refusals; and what it takes away: previews."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from sqlalchemy import JSON, bindparam, make_url, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from calotype.core import limits
from calotype.core.errors import IllegalMove, LeaseLost
from calotype.core.nouns import Lease, Refusal, Tier
from calotype.core.states import AttemptState, JobState
from calotype.flow.standing import standing_of
from calotype.jobs import reading, tables
from calotype.jobs.database import migrate
from calotype.jobs.patience import patiently
from calotype.jobs.postgresql import with_driver
from calotype.jobs.store import JobStore
from calotype.policy import admit
from calotype.policy.line import Line
from tests.rooms.test_jobs import ERROR, SPEC, bring_to, pictures, queue

PREVIEW = "data:image/webp;base64,AAAA"


async def running_with_previews(store: JobStore, pool: str = "") -> Lease:
    job = await store.insert("ada", Tier.FAST, replace(SPEC, pool=pool))
    lease = await store.lease(job.id, "cpu-0")
    for image in (0, 1):
        for step in (1, 2):
            data = {"image": image, "step": step, "steps": 4}
            await store.append(lease, "step", data | ({"preview": PREVIEW} if step == 1 else {}))
    return lease


async def previewed(store: JobStore, job_id: str) -> list[int]:
    events = await store.events(job_id)
    return [event.data["image"] for event in events if "preview" in event.data]


# Previews.


async def test_a_withheld_image_keeps_its_steps_and_loses_its_previews(store: JobStore) -> None:
    lease = await running_with_previews(store)
    before = await store.events(lease.job_id)
    await store.withhold(lease, 1)
    assert await previewed(store, lease.job_id) == [0]
    after = await store.events(lease.job_id)
    assert [event.seq for event in after] == [event.seq for event in before]
    assert after[-1].data == {"image": 1, "step": 2, "steps": 4}


async def test_previews_of_earlier_attempts_go_too_and_a_late_attempt_takes_none(
    store: JobStore,
) -> None:
    late = await running_with_previews(store)
    await store.requeue(late, "the engine died")
    with pytest.raises(LeaseLost):
        await store.withhold(late, 0)
    assert await previewed(store, late.job_id) == [0, 1]
    await store.withhold(await store.lease(late.job_id, "cpu-1"), 0)
    assert await previewed(store, late.job_id) == [1]


@pytest.mark.parametrize("end", ["fail", "cancel", "hold"])
async def test_a_job_without_a_verdict_that_allows_it_keeps_no_preview(
    store: JobStore, end: str
) -> None:
    lease = await running_with_previews(store)
    if end == "fail":
        await store.fail(lease.job_id, ERROR, lease=lease)
    elif end == "hold":
        await store.hold(lease, "the check can't run")
    else:
        await store.cancel(lease.job_id, by="caller")
    assert await previewed(store, lease.job_id) == []


async def test_a_job_that_succeeds_keeps_its_previews(store: JobStore) -> None:
    lease = await running_with_previews(store)
    await store.succeed(lease, pictures(lease.job_id))
    assert await previewed(store, lease.job_id) == [0, 1]


@pytest.mark.parametrize("end", ["succeed", "requeue"])
async def test_a_pools_job_has_previews_only_while_it_runs(store: JobStore, end: str) -> None:
    lease = await running_with_previews(store, pool="mature")
    assert await previewed(store, lease.job_id) == [0, 1]
    if end == "succeed":
        await store.succeed(lease, pictures(lease.job_id))
    else:
        await store.requeue(lease, "the engine died")
    assert await previewed(store, lease.job_id) == []


# Refusals, and attempts.


async def test_a_job_says_which_of_its_images_were_refused(store: JobStore) -> None:
    refused = [Refusal(1, "known", "The picture is one that is blocked.")]
    _, lease = await bring_to(store, JobState.RUNNING)
    job = await store.succeed(lease, pictures(lease.job_id)[:1], refused)
    assert job.refused == tuple(refused)
    _, lease = await bring_to(store, JobState.RUNNING)
    await store.fail(lease.job_id, ERROR, lease=lease, refused=refused)
    assert (await store.get(lease.job_id)).refused == tuple(refused)
    assert (await queue(store)).refused == ()


async def test_a_held_attempt_is_counted_apart_and_is_not_called_failed(store: JobStore) -> None:
    job, lease = await bring_to(store, JobState.PENDING_SAFETY)
    assert await store.attempts(job.id) == {AttemptState.RUNNING: 1}
    again = await store.requeue_orphan(job.id, "judged again")
    assert again.state is JobState.QUEUED
    assert again.token > lease.token
    assert await store.attempts(job.id) == {AttemptState.HELD: 1}
    events = await store.events(job.id)
    assert [event.kind for event in events[-2:]] == ["pending_safety", "queued"]
    assert events[-1].data["reason"] == "judged again"


# Notes.


async def test_a_note_is_written_with_the_next_change_and_outlives_a_restart(
    database_url: str,
) -> None:
    store = await JobStore.open(database_url)
    job = await queue(store)
    store.keep("line", lambda: {"clock": 1})
    assert await store.note("line") is None, "it waits for a change"
    await store.lease(job.id, "cpu-0")
    store.keep("line", lambda: {"clock": 2})
    await queue(store)
    await store.close()
    store = await JobStore.open(database_url)
    assert await store.note("line") == {"clock": 2}
    assert await store.note("nothing") is None
    await store.close()


async def test_a_note_waits_on_when_the_change_is_refused(store: JobStore) -> None:
    job, _ = await bring_to(store, JobState.SUCCEEDED)
    store.keep("line", lambda: {"clock": 1})
    with pytest.raises(IllegalMove):
        await store.cancel(job.id, by="caller")
    assert await store.note("line") is None
    await queue(store)
    assert await store.note("line") == {"clock": 1}


async def test_of_a_note_only_the_entries_that_changed_are_written(store: JobStore) -> None:
    notes = tables.notes

    async def note(said: dict[str, Any]) -> None:
        store.keep("line", lambda: said)
        await queue(store)

    async def mark() -> None:
        """So that it shows what is written anew."""
        async with store._database.writing() as conn:
            await conn.execute(update(notes).values(data="unwritten"))

    await note({"ada": [1, {}], "bob": [2, {}], "eve": [3, {}]})
    await mark()
    await note({"ada": [1, {}], "bob": [2, {"x": 1}], "new": 4})
    found = {"ada": "unwritten", "bob": [2, {"x": 1}], "new": 4}
    assert await store.note("line") == found, "and eve is gone"
    await mark()
    await note({"ada": [1, {}], "bob": [2, {"x": 1}], "new": 4})
    assert set((await store.note("line") or {}).values()) == {"unwritten"}


async def test_after_a_write_of_which_nobody_knows_whether_it_was_done_a_note_is_written_whole(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.keep("line", lambda: {"ada": 1, "bob": 2})
    await queue(store)
    store.keep("line", lambda: {"ada": 1, "bob": 3})

    async def gone(*_: object) -> None:
        raise RuntimeError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(reading, "job", gone)
        with pytest.raises(RuntimeError):
            await queue(store)  # it fails once its note is written
    async with store._database.writing() as conn:
        await conn.execute(update(tables.notes).values(data="unwritten"))
    await queue(store)
    assert await store.note("line") == {"ada": 1, "bob": 3}


async def test_a_large_note_that_changed_everywhere_is_written(store: JobStore) -> None:
    for turn in range(2):
        many = {f"tenant {at}": turn for at in range(2_500)}
        store.keep("line", many.copy)
        await queue(store)
        assert await store.note("line") == many


async def test_a_database_of_the_first_version_is_brought_up_to_date(database_url: str) -> None:
    engine = create_async_engine(with_driver(make_url(database_url)))
    async with engine.begin() as conn:
        await conn.run_sync(migrate, "0001")
        spec = json.dumps(asdict(SPEC))
        await conn.exec_driver_sql(
            "INSERT INTO jobs (id, tenant, tier, spec, state, created_at, attempt, token, "
            f"log_length) VALUES ('job_old', 'ada', 'fast', '{spec}', 'queued', "
            "'2026-05-01 12:00:00.000000', 0, 0, 0)"
        )
    await engine.dispose()
    store = await JobStore.open(database_url)
    old = await store.get("job_old")
    assert (old.spec, old.refused, old.user) == (SPEC, (), "")
    await store.lease(old.id, "cpu-0")
    store.keep("line", lambda: {"clock": 1})
    await queue(store)
    assert await store.note("line") == {"clock": 1}
    await store.close()


async def test_notes_of_an_older_version_are_read_entry_by_entry(database_url: str) -> None:
    standing = Line().standing()
    account = {**standing["tiers"]["fast"], "virtual": 5, "tenants": {"a/b": [7, True, 0, {}]}}
    standing["tiers"]["fast"] = account
    before = {
        "line": standing,
        "gate": {"used": [["a/b", 1.0, 2.0]], "even_at": [["ada", "turbo", 3.0]]},
        "costs": {"tiny": {"fixed_s": 1.0}},
        "eta": {"start_s": 4.0, "ranges": {"fast runs tiny": [0.1, 0.2, 3]}},
    }
    engine = create_async_engine(with_driver(make_url(database_url)))
    async with engine.begin() as conn:
        await conn.run_sync(migrate, "0011")
        for name, data in before.items():
            add = text("INSERT INTO notes (name, data) VALUES (:name, :data)")
            add = add.bindparams(bindparam("data", type_=JSON))
            await conn.execute(add, {"name": name, "data": data})
    await engine.dispose()
    store = await JobStore.open(database_url)
    assert standing_of(await store.note("line")) == standing
    gate = admit.Gate(standing=await store.note("gate"))
    assert gate.standing() == {"used/a/b": [1.0, 2.0], "rate/turbo/ada": 3.0}
    assert await store.note("costs") == before["costs"]
    assert await store.note("eta") == {"start_s": 4.0, "fast runs tiny": [0.1, 0.2, 3]}
    await store.close()


# Patience.


def failing(times: int, error: Exception) -> Any:
    tries: list[int] = []

    async def write() -> int:
        tries.append(1)
        if len(tries) <= times:
            raise error
        return len(tries)

    return write


async def test_a_write_is_tried_again_and_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "STORE_RETRY_S", 0.001)
    locked = OperationalError("INSERT", {}, Exception("database is locked"))
    most = limits.STORE_TRIES_MAX
    assert await patiently(failing(most - 1, locked)) == most
    with pytest.raises(OperationalError):
        await patiently(failing(most, locked))
    with pytest.raises(LeaseLost):
        await patiently(failing(1, LeaseLost("not the database's failure")))
