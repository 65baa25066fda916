"""Engines of unlike memory: who goes where, by what a job's adapters take there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calotype.core.nouns import Job, LoraUse
from calotype.core.states import JobState
from calotype.pool.reports import EngineWarm
from tests.adapters import make_lora
from tests.flow.dispatch_bench import MODEL, WAIT, Bench, bench_in, eventually

SMALL, LARGE = "engine-0", "engine-1"
BUDGETS = {SMALL: 5, LARGE: 100}  # bytes; the model takes 1, the LoRA's two numbers 8
LARGE_JOB = replace(WAIT, loras=(LoraUse("wide"),))


async def warm(bench: Bench, engine: str) -> None:
    bench.pool.down.discard(engine)
    await bench.pool.say(EngineWarm((MODEL.name,), 16, budget_bytes=BUDGETS[engine]), engine)


async def placed(bench: Bench, job: Job) -> str:
    """Where a job runs."""
    await bench.state(job, JobState.RUNNING)
    engine: str = await eventually(
        lambda: next((at for at, row in bench.pool.waiting.values() if job.id in row.row), "")
    )
    return engine


async def test_a_job_with_large_adapters_is_tried_on_the_large_engine_alone(
    tmp_path: Path,
) -> None:
    make_lora(tmp_path, "wide", title="Wide")
    async with bench_in(tmp_path, engines=2) as bench:
        bench.adapters.scan()
        await bench.dispatcher.start()
        for engine in BUDGETS:
            await warm(bench, engine)
        large = await bench.queue(LARGE_JOB)
        assert await placed(bench, large) == LARGE
        assert await placed(bench, await bench.queue(WAIT)) == SMALL
        await bench.pool.lose(LARGE)
        await bench.state(large, JobState.QUEUED)
        # Nowhere it fits is up, so it waits, and others go where it may not.
        assert await placed(bench, await bench.queue(WAIT)) == SMALL
        assert (await bench.store.get(large.id)).state is JobState.QUEUED
        await warm(bench, LARGE)
        assert await placed(bench, large) == LARGE
        assert [at for at, _ in bench.pool.waiting.values()].count(SMALL) == 2
