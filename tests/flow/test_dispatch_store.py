"""A job store that can't be written to: for a moment, or for good."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.core.states import JobState
from calotype.flow.sweep import sweep
from tests.flow.dispatch_bench import (
    BLOCKED,
    WAIT,
    Bench,
    eventually,
    running_bench,
    unavailable,
)
from tests.flow.faults import Halt, failing

pytestmark = pytest.mark.usefixtures("short_times")


@pytest.mark.parametrize("write", ["insert", "lease", "succeed", "append"])
async def test_a_write_that_fails_for_a_moment_stops_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    monkeypatch.setattr(bench.store, write, failing(getattr(bench.store, write), 2))
    job = await bench.ended(await bench.queue())
    assert job.state is JobState.SUCCEEDED
    assert (job.attempt, bench.dispatcher.fault) == (1, None)


@pytest.mark.parametrize("write", ["requeue", "fail", "hold"])
async def test_so_does_one_that_ends_an_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    monkeypatch.setattr(bench.store, write, failing(getattr(bench.store, write), 2))
    monkeypatch.setattr(limits, "SAFETY_RETRY_S", 30.0)
    if write == "requeue":
        job = await bench.queue(WAIT)
        await eventually(lambda: bench.pool.waiting)
        await bench.pool.lose()
        await bench.state(job, JobState.QUEUED)
    else:
        bench.finisher.answer = unavailable if write == "hold" else lambda raw: BLOCKED
        after = JobState.PENDING_SAFETY if write == "hold" else JobState.FAILED
        await bench.state(await bench.queue(), after)
    assert bench.dispatcher.fault is None


@pytest.mark.parametrize("write", ["lease", "succeed"])
async def test_a_write_that_goes_on_failing_is_a_fault_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    async with running_bench(tmp_path) as bench:
        with monkeypatch.context() as patched:
            patched.setattr(bench.store, write, failing(getattr(bench.store, write), 999))
            try:
                job = await bench.queue()
            except OperationalError:  # the turn of the request itself could not be carried out
                [job] = await bench.store.unfinished()
            async with asyncio.timeout(60):
                assert "database is locked" in await bench.dispatcher.broken()
        assert "database is locked" in str(bench.dispatcher.fault)
        with pytest.raises(OperatorError, match="no job is taken"):
            await bench.queue()
    async with running_bench(tmp_path) as again:
        await sweep(again.store, again.pictures)
        ended = await again.ended(job)
        assert ended.state is JobState.SUCCEEDED
        assert len(again.files()) == 2


async def test_no_turn_is_taken_after_one_that_broke(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bench.queue(WAIT)
    await eventually(lambda: bench.pool.waiting)
    monkeypatch.setattr(bench.store, "succeed", failing(bench.store.succeed, 999))
    halt = Halt(bench.pictures.delete)  # what the attempt does after its turn
    monkeypatch.setattr(bench.pictures, "delete", halt)
    await bench.pool.finish_rows()
    async with asyncio.timeout(60):
        await bench.dispatcher.broken()
    with pytest.raises(OperatorError, match="no job is"):
        await bench.dispatcher.cancel(job.id, by="caller")
    halt.opened.set()


async def test_a_listener_that_breaks_is_a_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.queue(WAIT)
    await eventually(lambda: bench.pool.waiting)
    monkeypatch.setattr(bench.store, "requeue", failing(bench.store.requeue, 999))
    await bench.pool.lose()
    async with asyncio.timeout(60):
        assert "database is locked" in await bench.dispatcher.broken()


async def test_a_failing_insert_takes_the_job_out_of_the_line_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(bench.store, "insert", failing(bench.store.insert, 999))
        with pytest.raises(OperationalError):
            await bench.queue()
    assert bench.dispatcher.fault is None
    assert (await bench.ended(await bench.queue())).state is JobState.SUCCEEDED
