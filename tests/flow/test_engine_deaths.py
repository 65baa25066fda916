"""Engines that die, stop, or slow down under jobs: each job is delivered once, and by another.

R1, R2 and R8 of the reliability tests, for one machine: real processes, real signals.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calotype.core import limits
from calotype.core.messages import RowDone, StepDone
from calotype.core.nouns import Event, Job
from calotype.core.states import AttemptState, EngineState, JobState
from tests.flow.dispatch_bench import (
    DEVICE_S,
    SPEC,
    WAIT,
    Bench,
    eventually,
)
from tests.flow.engines_bench import LONG, QUICK, EnginesBench, engines_bench
from tests.flow.faults import Halt

pytestmark = pytest.mark.usefixtures("short_times")


async def test_a_stopped_engine_is_suspect_then_dead_and_its_job_done_by_another(
    tmp_path: Path,
) -> None:
    async with engines_bench(tmp_path) as bench:
        job = await bench.queue(LONG)
        engine = await bench.engine_of(job)
        other = next(name for name in bench.engines if name != engine)
        pid = bench.signal(engine, signal.SIGSTOP)
        await bench.is_in(engine, EngineState.SUSPECT)
        meanwhile = await bench.delivered_once(await bench.queue())
        [started] = await bench.events(meanwhile, "started")
        assert started.data["engine"] == other, "a suspect engine is given nothing"
        job = await bench.delivered_once(job)
        starts = [event.data["engine"] for event in await bench.events(job, "started")]
        assert starts == [engine, other]
        [failed] = await bench.events(job, "attempt_failed")
        assert "no sign of life" in failed.data["reason"]
        with pytest.raises(ProcessLookupError):  # it can't go on, and so write nothing
            os.kill(pid, signal.SIGCONT)
        await bench.is_in(engine, EngineState.READY)
        assert bench.dispatcher.fault is None


async def test_an_engine_that_goes_on_in_time_keeps_its_job(tmp_path: Path) -> None:
    pace = replace(QUICK, heartbeat_s=1.0)  # between suspect and dead we have a second
    async with engines_bench(tmp_path, pace=pace) as bench:
        job = await bench.queue(LONG)
        engine = await bench.engine_of(job)
        bench.signal(engine, signal.SIGSTOP)
        await bench.is_in(engine, EngineState.SUSPECT)
        bench.signal(engine, signal.SIGCONT)
        job = await bench.delivered_once(job)
        assert job.attempt == 1
        await bench.is_in(engine, EngineState.READY)
        again = await asyncio.gather(*[bench.queue(LONG) for _ in range(2)])
        on = {await bench.engine_of(one) for one in again}
        assert engine in on, "it is given jobs again"


async def test_late_results_of_an_attempt_that_was_given_up_write_nothing(bench: Bench) -> None:
    job = await bench.queue(WAIT)
    await eventually(lambda: bench.pool.waiting)
    [late] = bench.pool.waiting
    bench.pool.waiting.clear()
    await bench.pool.lose()
    await bench.pool.warm()
    await eventually(lambda: bench.dispatcher.progress(job.id) == 0.25)
    before = await eventually(lambda: _with_a_step(bench, job))
    await bench.pool.say(StepDone(late, 2, 4), blob=b"preview")
    await bench.pool.say(RowDone(late, 8, 8, {}, DEVICE_S), blob=bytes(8 * 8 * 3))
    await asyncio.sleep(0.1)
    assert await bench.store.events(job.id) == before
    assert bench.files() == []
    await bench.pool.finish_rows()
    job = await bench.ended(job)
    assert len(job.images) == 1
    assert len(bench.files()) == 2


async def _with_a_step(bench: Bench, job: Job) -> list[Event] | None:
    events = await bench.store.events(job.id)
    return events if events[-1].kind == "step" else None


async def claimed(bench: EnginesBench) -> None:
    """Kill the engine as soon as it is the job's, before any step."""
    await eventually(lambda: bench.dispatcher._line.attempts)


async def stepped(bench: EnginesBench) -> None:
    attempts = bench.dispatcher._line.attempts
    await eventually(lambda: any(one.progress > 0.2 for one in attempts.values()))


@pytest.mark.parametrize("reached", [claimed, stepped])
async def test_an_engine_killed_after_the_claim_or_in_mid_step(
    tmp_path: Path, reached: Any
) -> None:
    async with engines_bench(tmp_path) as bench:
        job = await bench.queue(LONG)
        await reached(bench)
        [attempt] = bench.dispatcher._line.attempts.values()
        bench.signal(attempt.lease.engine, signal.SIGKILL)
        job = await bench.delivered_once(job)
        assert job.attempt == 2
        assert await bench.store.attempts(job.id) == {AttemptState.LOST: 1, AttemptState.DONE: 1}


@pytest.mark.parametrize("point", ["decoded", "stored", "recorded"])
async def test_an_engine_killed_after_its_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Between the pictures and the judge, the judge and the store, the store and the record."""
    async with engines_bench(tmp_path) as bench:
        where: tuple[Any, str] = {
            "decoded": (bench.finisher, "finish"),
            "stored": (bench.pictures, "_write"),
            "recorded": (bench.store, "succeed"),
        }[point]
        act = getattr(*where)
        halt = Halt(act)
        monkeypatch.setattr(*where, halt)
        job = await bench.queue()
        async with asyncio.timeout(60):
            await halt.reached.wait()
        [attempt] = bench.dispatcher._line.attempts.values()
        monkeypatch.setattr(*where, act)
        pid = bench.signal(attempt.lease.engine, signal.SIGKILL)
        await eventually(lambda: bench.engines[attempt.lease.engine].pid != pid)
        halt.opened.set()
        job = await bench.delivered_once(job)
        assert len(job.images) == 1
        await eventually(lambda: len(bench.files()) == 2)  # what the lost attempt stored is gone
        assert len(bench.gate.ends) == 1


async def test_a_job_that_kills_every_engine_is_quarantined_and_the_pool_goes_on(
    tmp_path: Path,
) -> None:
    async with engines_bench(tmp_path) as bench:
        poison = await bench.queue(replace(SPEC, prompt="crash"), tenant="eve")
        others = [await bench.queue(tenant="ada") for _ in range(4)]
        ended = await bench.ended(poison)
        assert ended.state is JobState.FAILED
        assert ended.attempt == limits.ATTEMPTS_MAX
        starts = [event.data["engine"] for event in await bench.events(poison, "started")]
        assert starts[0] != starts[1], "another device first"
        assert ended.error is not None
        assert ended.error["type"].endswith("poison-job")
        assert "is gone" in ended.error["detail"]
        for job in others:
            await bench.delivered_once(job)
        for name in bench.engines:
            await bench.is_in(name, EngineState.READY)
        await bench.delivered_once(await bench.queue(tenant="eve"))


async def test_a_slow_engine_finishes_what_it_has_and_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SLOW_JOBS", 2)
    monkeypatch.setattr(limits, "SLOW_S_MIN", 0.0)  # a fake engine's jobs are short
    async with engines_bench(tmp_path, engines=1) as bench:
        await bench.ended(await bench.queue())  # what such a job costs is known now
        pid = bench.engines["engine-0"].pid
        await bench.ended(await bench.queue(replace(SPEC, prompt="slow")))
        jobs = [await bench.queue(replace(SPEC, steps=steps)) for steps in (4, 4, 4, 6)]
        await bench.is_in("engine-0", EngineState.DRAINING)
        assert "it is slow" in bench.engines["engine-0"].reason
        waits = await bench.queue()
        assert (await bench.store.get(waits.id)).state is JobState.QUEUED
        for job in [*jobs, waits]:
            assert (await bench.delivered_once(job)).attempt == 1, "none was lost"
        assert bench.engines["engine-0"].pid != pid
