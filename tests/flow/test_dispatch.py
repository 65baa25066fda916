"""From the line to a stored picture, and what a job is charged for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core.errors import IllegalMove, TooMany
from calotype.core.nouns import Tier
from calotype.core.states import JobState
from calotype.flow.attempt import Attempt
from calotype.policy.admit import AdmitRules
from tests.flow.dispatch_bench import (
    DEVICE_S,
    SPEC,
    WAIT,
    Bench,
    bench_in,
    eventually,
    unavailable,
    virtual_s,
)

pytestmark = pytest.mark.usefixtures("short_times")


async def test_a_job_becomes_a_stored_picture(bench: Bench) -> None:
    job = await bench.ended(await bench.queue())
    assert job.state is JobState.SUCCEEDED
    assert bench.files() == [f"{job.images[0].id}.png", f"{job.images[0].id}.webp"]
    assert await bench.previews(job) == 1
    [told] = await bench.events(job, "image_finished")
    judged = {"verdict": "allow", "check": "stub", "version": "1", "policy": ""}
    assert told.data == {"image": 0, "id": job.images[0].id, **judged}


async def test_a_prompt_that_was_cut_is_told_with_the_first_step(bench: Bench) -> None:
    bench.pool.tokens_cut = 12
    job = await bench.ended(await bench.queue())
    steps = await bench.events(job, "step")
    assert [step.data.get("tokens_cut") for step in steps] == [12, None, None, None]


# What is charged.


async def test_a_cancelled_job_pays_for_what_was_done_of_it(bench: Bench) -> None:
    job = await bench.queue(WAIT)
    await eventually(lambda: bench.dispatcher.progress(job.id) == 0.25)
    await bench.dispatcher.cancel(job.id, by="caller")
    paid = virtual_s(bench, "ada")
    cost_s = bench.dispatcher._line.costs.predict_s(WAIT)
    assert paid == pytest.approx(cost_s / 4, abs=1e-5)


async def test_a_held_job_pays_nothing_and_teaches_nothing(bench: Bench) -> None:
    bench.finisher.answer = unavailable
    before = bench.dispatcher._line.costs.kept()
    await bench.state(await bench.queue(), JobState.PENDING_SAFETY)
    assert bench.dispatcher._line.costs.kept() == before
    assert virtual_s(bench, "ada") == pytest.approx(0.0, abs=1e-5)


async def test_a_job_that_is_done_pays_what_was_measured(bench: Bench) -> None:
    await bench.ended(await bench.queue(replace(SPEC, n=2)))
    assert virtual_s(bench, "ada") == pytest.approx(2 * DEVICE_S)


# Room in the line, and requests that go away.


async def test_of_many_at_once_no_more_are_let_in_than_there_is_room_for(tmp_path: Path) -> None:
    async with bench_in(tmp_path, rules=AdmitRules(queued_max=5)) as bench:
        await bench.dispatcher.start()
        asks = [bench.dispatcher.queue("ada", Tier.FAST, SPEC) for _ in range(30)]
        answers = await asyncio.gather(*asks, return_exceptions=True)
        assert sum(isinstance(answer, TooMany) for answer in answers) == 25
        assert await bench.store.count_queued() == 5


async def test_a_request_that_goes_away_leaves_its_job_whole(bench: Bench) -> None:
    asking = asyncio.create_task(bench.queue())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    [job] = await eventually(lambda: bench.store.list_jobs("ada", limit=5, before=None))
    assert (await bench.ended(job)).state is JobState.SUCCEEDED


# Ends.


async def test_a_lost_engines_reason_is_in_the_jobs_log(bench: Bench) -> None:
    job = await bench.queue(WAIT)
    await eventually(lambda: bench.pool.waiting)
    await bench.pool.lose()
    await bench.state(job, JobState.QUEUED)
    [failed] = await bench.events(job, "attempt_failed")
    assert "it was killed" in failed.data["reason"]


async def test_an_ended_attempt_takes_no_turn(bench: Bench, tmp_path: Path) -> None:
    job = await bench.queue(WAIT)
    attempt: Attempt = await eventually(lambda: bench.dispatcher._line.attempts.get(job.id))
    await bench.dispatcher.cancel(job.id, by="caller")
    async with bench.dispatcher._turns.take(), asyncio.timeout(60):
        await bench.dispatcher._endings._complete(attempt, [])
    with pytest.raises(IllegalMove):
        await bench.dispatcher.cancel(job.id, by="caller")
