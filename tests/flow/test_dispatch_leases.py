"""Leases while a server runs: renewed, and taken back where nobody holds them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import update

from calotype.core import limits
from calotype.core.nouns import Tier
from calotype.core.states import JobState
from calotype.flow import leases
from calotype.jobs import tables
from calotype.jobs.store import JobStore
from tests.flow.dispatch_bench import SPEC, WAIT, Bench, bench_in, eventually

pytestmark = pytest.mark.usefixtures("short_times")


async def run_out(store: JobStore) -> None:
    """As if LEASE_S had gone by without a renewal."""
    ends = tables.attempts.c.expires_at
    async with store._database.writing() as conn:
        await conn.execute(update(tables.attempts).values(expires_at=ends - limits.LEASE_S))


async def test_a_running_attempts_lease_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.02)
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        await bench.pool.warm()
        job = await bench.queue(WAIT)
        await eventually(lambda: bench.pool.waiting)
        for _ in range(3):
            await run_out(bench.store)

            async def is_good() -> bool:
                return await bench.store.leases.lapsed() == []

            await eventually(is_good)
        await bench.pool.finish_rows()
        ended = await bench.ended(job)
        assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 1)


async def test_a_job_that_nobody_runs_goes_back_into_the_line(bench: Bench) -> None:
    lost = await bench.store.insert("ada", Tier.FAST, SPEC)
    late = await bench.store.lease(lost.id, "elsewhere")
    await bench.dispatcher._leases.take_back(await bench.store.leases.lapsed())
    assert (await bench.store.get(lost.id)).state is JobState.RUNNING, "its lease is good"
    await run_out(bench.store)
    await bench.dispatcher._leases.take_back(await bench.store.leases.lapsed())
    ended = await bench.ended(lost)
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)
    [failed] = await bench.events(lost, "attempt_failed")
    assert (failed.data["engine"], failed.data["reason"]) == ("elsewhere", "its lease ran out")
    assert await bench.store.leases.renew([late]) == set()
    assert bench.dispatcher.fault is None


async def test_a_job_that_runs_here_is_not_taken_back(bench: Bench) -> None:
    job = await bench.queue(WAIT)
    await eventually(lambda: bench.pool.waiting)
    await run_out(bench.store)
    await bench.dispatcher._leases.take_back([job.id])
    await bench.pool.finish_rows()
    assert (await bench.ended(job)).attempt == 1


async def test_a_job_whose_lease_runs_out_again_and_again_is_given_up(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()  # no engine is warm: here nobody runs it
        job = await bench.store.insert("ada", Tier.FAST, SPEC)
        for attempt in range(1, limits.ATTEMPTS_TOTAL_MAX + 1):
            await bench.store.lease(job.id, "elsewhere")
            await run_out(bench.store)
            await bench.dispatcher._leases.take_back(await bench.store.leases.lapsed())
            found = await bench.store.get(job.id)
            assert found.attempt == attempt
        assert found.state is JobState.FAILED
        assert found.error is not None
        assert "6 attempts were lost, the last because its lease ran out" in found.error["detail"]
        assert bench.dispatcher.position(job.id) is None
        assert bench.dispatcher.fault is None
