"""No picture without a verdict, none without a signature."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calotype.core import limits
from calotype.core.messages import CancelRow, RunRow
from calotype.core.states import JobState
from calotype.flow.finish import Raw
from calotype.provenance.signing import SigningFailed
from tests.flow.dispatch_bench import (
    ALLOWED,
    BLOCKED,
    MODEL,
    SPEC,
    Bench,
    eventually,
    running_bench,
    unavailable,
)

pytestmark = pytest.mark.usefixtures("short_times")


async def test_an_unjudged_picture_is_not_stored_and_its_job_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SAFETY_RETRY_S", 30.0)
    bench.finisher.answer = unavailable
    job = await bench.state(await bench.queue(replace(SPEC, n=2)), JobState.PENDING_SAFETY)
    assert bench.files() == []
    assert job.images == ()
    assert await bench.previews(job) == 0
    assert sorted(bench.pool.rows(CancelRow)) == sorted(bench.pool.rows(RunRow)), "none is left"
    cancelled = await bench.dispatcher.cancel(job.id, by="caller")
    assert cancelled.state is JobState.CANCELLED


async def test_previews_of_what_can_draw_anything_are_coarse(bench: Bench) -> None:
    await bench.ended(await bench.queue())
    bench.registry.models[MODEL.name] = replace(MODEL, domain="closed")
    await bench.ended(await bench.queue())
    rows = [message for _, message in bench.pool.sent if isinstance(message, RunRow)]
    assert [row.is_coarse for row in rows] == [True, False]


async def test_a_held_job_is_run_again_until_it_can_be_judged(bench: Bench) -> None:
    def second_time_lucky(raw: Raw) -> Any:
        return (
            ALLOWED if len(bench.finisher.finished) > limits.ATTEMPTS_MAX + 1 else unavailable(raw)
        )

    bench.finisher.answer = second_time_lucky
    job = await bench.ended(await bench.queue())
    assert job.state is JobState.SUCCEEDED
    assert job.attempt == limits.ATTEMPTS_MAX + 2, "more runs than may fail: none was charged"
    assert await bench.events(job, "attempt_failed") == []
    assert len(bench.files()) == 2


async def test_a_job_that_is_never_judged_fails_in_the_end_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SAFETY_TRIES_MAX", 3)
    async with running_bench(tmp_path) as bench:
        bench.finisher.answer = unavailable
        job = await bench.queue()
        await eventually(lambda: len(bench.finisher.finished) >= 2)
    async with running_bench(tmp_path) as bench:  # a restart doesn't begin to count anew
        bench.finisher.answer = unavailable
        ended = await bench.ended(job)
        assert ended.state is JobState.FAILED
        assert ended.error is not None
        assert ended.error["type"].endswith("safety-unavailable")
        assert "3 times" in ended.error["detail"]
        assert bench.files() == []


async def test_a_held_job_that_is_cancelled_stays_so(bench: Bench) -> None:
    bench.finisher.answer = unavailable
    job = await bench.state(await bench.queue(), JobState.PENDING_SAFETY)
    await bench.dispatcher.cancel(job.id, by="caller")
    await asyncio.sleep(4 * limits.SAFETY_RETRY_S)
    assert (await bench.store.get(job.id)).state is JobState.CANCELLED
    assert bench.dispatcher.fault is None


async def test_a_blocked_picture_is_not_stored_and_leaves_no_preview(bench: Bench) -> None:
    bench.finisher.answer = lambda raw: BLOCKED
    job = await bench.ended(await bench.queue())
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error["category"], job.error["check"]) == ("known", "stub")
    assert bench.files() == []
    assert await bench.previews(job) == 0
    [told] = await bench.events(job, "image_finished")
    assert told.data["verdict"] == "block"
    assert told.data["category"] == "known"
    assert told.data["detail"] == BLOCKED.detail
    assert (told.data["check"], told.data["version"]) == ("stub", "1")


async def test_of_a_job_of_several_the_refused_are_named_and_the_others_delivered(
    bench: Bench,
) -> None:
    bench.finisher.answer = lambda raw: BLOCKED if raw.manifest.index == 1 else ALLOWED
    job = await bench.ended(await bench.queue(replace(SPEC, n=3)))
    assert job.state is JobState.SUCCEEDED
    assert [image.index for image in job.images] == [0, 2]
    [refused] = job.refused
    assert (refused.index, refused.category, refused.detail) == (1, "known", BLOCKED.detail)
    steps = await bench.events(job, "step")
    assert {step.data["image"] for step in steps if "preview" in step.data} == {0, 2}
    assert len(bench.files()) == 4


async def test_an_unsigned_picture_is_not_stored(bench: Bench) -> None:
    def unsigned(raw: Raw) -> Any:
        raise SigningFailed("the key is gone")

    bench.finisher.answer = unsigned
    job = await bench.ended(await bench.queue())
    assert job.state is JobState.FAILED
    assert job.attempt == limits.ATTEMPTS_MAX
    assert "the key is gone" in str(job.error)
    assert bench.files() == []
    assert await bench.previews(job) == 0
