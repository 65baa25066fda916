"""What happens in the line because time passes: promotions, without another event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from calotype.core import limits
from calotype.core.decisions import WHY
from calotype.core.nouns import Job, Tier
from calotype.core.states import JobState
from calotype.flow.alarm import Alarm
from calotype.jobs import tables
from calotype.jobs.rows import utc_now
from tests.flow.dispatch_bench import (
    ALLOWED,
    SPEC,
    WAIT,
    Bench,
    bench_in,
    eventually,
    unavailable,
)

pytestmark = pytest.mark.usefixtures("short_times")


@pytest.fixture
async def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A bench of one row, taken for as long as one likes; relax waits 0.2 s at most."""
    monkeypatch.setattr(limits, "RELAX_WAIT_S_MAX", 0.2)
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        await bench.pool.warm(rows_max=1)
        await bench.queue(WAIT, tenant="eve")
        await eventually(lambda: bench.pool.waiting)
        yield bench


async def test_a_relax_job_is_promoted_when_its_time_has_come_though_nothing_happens(
    busy: Bench,
) -> None:
    others = [await busy.queue(WAIT, tenant="eve", tier=Tier.TURBO) for _ in range(3)]
    job = await busy.queue(tier=Tier.RELAX)
    [promoted] = await eventually(lambda: busy.events(job, "promoted"))
    assert promoted.data["why"] == WHY["promoted"]
    assert 0.2 <= promoted.data["waited_s"] < 60.0
    assert (await busy.store.get(job.id)).state is JobState.QUEUED
    await busy.pool.finish_rows()
    await busy.ended(job)
    [started] = await busy.events(job, "started")
    assert started.data["why"] == WHY["promoted"]
    states = [(await busy.store.get(other.id)).state for other in others]
    assert JobState.QUEUED in states, "it went before turbo jobs that came first"
    assert [event.seq for event in await busy.store.events(job.id)] == list(
        range(1, len(await busy.store.events(job.id)) + 1)
    )


async def test_a_job_that_starts_in_its_turn_says_no_more(busy: Bench) -> None:
    job = await busy.queue()
    await busy.pool.finish_rows()
    await busy.ended(job)
    [started] = await busy.events(job, "started")
    assert started.data == {"attempt": 1, "engine": "engine-0"}


async def age(bench: Bench, job: Job, by_s: float) -> None:
    """Have the job be accepted longer ago."""
    then = utc_now() - timedelta(seconds=by_s)
    async with bench.store._database.writing() as conn:
        await conn.execute(
            update(tables.jobs).where(tables.jobs.c.id == job.id).values(created_at=then)
        )


async def test_what_a_job_waited_before_a_restart_counts(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        old = await bench.queue(SPEC, tier=Tier.RELAX)
        new = await bench.queue(SPEC, tier=Tier.RELAX)
        await age(bench, old, limits.RELAX_WAIT_S_MAX + 1.0)
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        [promoted] = await bench.events(old, "promoted")
        assert promoted.data["waited_s"] == pytest.approx(limits.RELAX_WAIT_S_MAX + 1.0, abs=30.0)
        assert await bench.events(new, "promoted") == []


async def test_a_wall_clock_that_is_set_makes_no_job_older(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        await bench.pool.warm()
        bench.finisher.answer = unavailable
        job = await bench.queue(WAIT, tier=Tier.RELAX)
        await eventually(lambda: bench.pool.waiting)
        await age(bench, job, limits.RELAX_WAIT_S_MAX + 1.0)  # as the wall has it from now on
        await bench.pool.finish_rows()
        await bench.state(job, JobState.PENDING_SAFETY)
        bench.finisher.answer = lambda raw: ALLOWED
        await eventually(lambda: bench.pool.waiting)
        await bench.pool.finish_rows()
        assert (await bench.ended(job)).state is JobState.SUCCEEDED
        assert await bench.events(job, "promoted") == []


async def test_an_alarm_rings_once_at_the_last_time_it_was_set_to() -> None:
    rung: list[float] = []
    alarm = Alarm(rung.append)
    loop_now = asyncio.get_running_loop().time()
    for at in (loop_now + 60.0, loop_now + 0.01, loop_now + 0.02):
        alarm.set(at)
    await eventually(lambda: rung)
    await asyncio.sleep(0.02)
    assert rung == [loop_now + 0.02]
    alarm.set(loop_now)
    alarm.set(None)
    await asyncio.sleep(0.01)
    assert len(rung) == 1
