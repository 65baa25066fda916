"""The gate is asked for each job, and told once of each end, whatever the end is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from calotype.core.states import JobState
from tests.flow.dispatch_bench import (
    BLOCKED,
    DEVICE_S,
    SPEC,
    WAIT,
    Bench,
    bench_in,
    eventually,
    running_bench,
    unavailable,
)
from tests.flow.faults import failing

pytestmark = pytest.mark.usefixtures("short_times")


async def told(bench: Bench) -> list[tuple[str, float]]:
    """Of which ends the gate was told, once it was of one: the store is written before that."""
    ends: list[tuple[str, float]] = await eventually(lambda: bench.gate.ends)
    return ends


async def test_a_job_that_succeeds_ends_with_what_was_measured(bench: Bench) -> None:
    job = await bench.ended(await bench.queue(replace(SPEC, n=2)))
    assert bench.gate.let[job.id] > 0
    assert await told(bench) == [(job.id, 2 * DEVICE_S)]


async def test_one_whose_pictures_are_refused_costs_nothing(bench: Bench) -> None:
    bench.finisher.answer = lambda raw: BLOCKED
    job = await bench.ended(await bench.queue())
    assert (job.state, await told(bench)) == (JobState.FAILED, [(job.id, 0.0)])


async def test_a_job_whose_attempts_are_lost_ends_once_and_free(bench: Bench) -> None:
    job = await bench.queue(WAIT)
    while (await bench.store.get(job.id)).state is not JobState.FAILED:
        await eventually(lambda: bench.pool.waiting)
        assert bench.gate.ends == []
        bench.pool.waiting.clear()
        await bench.pool.lose()
        await bench.state(job, JobState.QUEUED, JobState.FAILED)
        await bench.pool.warm()
    assert await told(bench) == [(job.id, 0.0)]


async def test_a_cancelled_job_ends_with_the_share_that_was_made(bench: Bench) -> None:
    waiting = await bench.queue(WAIT)
    await eventually(lambda: bench.dispatcher.progress(waiting.id) == 0.25)
    await bench.dispatcher.cancel(waiting.id, by="caller")
    [(ended, device_s)] = await told(bench)
    assert ended == waiting.id
    assert device_s == pytest.approx(bench.gate.let[waiting.id] / 4)


async def test_a_held_job_has_not_ended(bench: Bench) -> None:
    bench.finisher.answer = unavailable
    job = await bench.state(await bench.queue(), JobState.PENDING_SAFETY)
    assert bench.gate.ends == []
    await bench.dispatcher.cancel(job.id, by="caller")
    assert await told(bench) == [(job.id, 0.0)]


async def test_a_job_that_could_not_be_written_ends_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.store, "insert", failing(bench.store.insert, 999))
    with pytest.raises(OperationalError):
        await bench.queue()
    assert bench.gate.ends == [(job_id, 0.0) for job_id in bench.gate.let]


async def test_after_a_restart_the_unfinished_are_resumed_and_then_end(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await bench.queue(WAIT)
        done = await bench.ended(await bench.queue())
        await eventually(lambda: bench.pool.waiting)
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        assert list(bench.gate.resumed) == [job.id]
        assert done.id not in bench.gate.resumed
        bench.registry.models.clear()
    async with bench_in(tmp_path) as bench:
        bench.registry.models.clear()
        await bench.dispatcher.start()
        assert bench.gate.ends == [(job.id, 0.0)], "given up at the start, since its model is gone"
