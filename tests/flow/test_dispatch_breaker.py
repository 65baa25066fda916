"""A safety check that fails: jobs wait behind its breaker; none is made or delivered in vain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from calotype.core import limits
from calotype.core.messages import RunRow
from calotype.core.states import JobState
from calotype.flow.finish import Raw
from calotype.provenance.signing import SigningFailed
from calotype.safety.errors import SafetyUnavailable
from tests.flow.dispatch_bench import ALLOWED, Bench, eventually, unavailable


@pytest.fixture(autouse=True)
def short_breaks(short_times: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SAFETY_RETRY_S", 30.0)
    monkeypatch.setattr(limits, "BREAKER_OPEN_S_MIN", 30.0)


async def failing_check(bench: Bench) -> None:
    """Have so many pictures fail that the check's breaker opens."""
    bench.finisher.answer = unavailable
    jobs = [await bench.queue() for _ in range(limits.BREAKER_FAILURES_MAX)]
    for job in jobs:
        await bench.state(job, JobState.PENDING_SAFETY)
    await eventually(lambda: bench.dispatcher.checks_failing)


async def test_while_the_breaker_is_open_nothing_is_started_or_judged(bench: Bench) -> None:
    await failing_check(bench)
    rows, judged = len(bench.pool.rows(RunRow)), len(bench.finisher.finished)
    waiting = [await bench.queue() for _ in range(3)]
    await asyncio.sleep(0.1)
    for job in waiting:
        assert (await bench.store.get(job.id)).state is JobState.QUEUED
        assert await bench.store.attempts(job.id) == {}, "no try is spent"
    assert (len(bench.pool.rows(RunRow)), len(bench.finisher.finished)) == (rows, judged)
    assert bench.dispatcher.checks_failing == {"pictures": "the classifier is away"}
    assert bench.files() == []
    cancelled = await bench.dispatcher.cancel(waiting[0].id, by="caller")
    assert cancelled.state is JobState.CANCELLED


async def test_when_its_time_has_come_one_job_tries_and_all_go_on(bench: Bench) -> None:
    await failing_check(bench)
    waiting = [await bench.queue() for _ in range(3)]
    judged = len(bench.finisher.finished)
    bench.finisher.answer = lambda raw: ALLOWED
    until = bench.dispatcher._judging._alarm._at
    assert until is not None
    bench.dispatcher._judging._due(until)
    for job in waiting:
        assert (await bench.ended(job)).state is JobState.SUCCEEDED
    assert len(bench.finisher.finished) == judged + 3
    assert bench.dispatcher.checks_failing == {}


async def test_one_try_that_fails_keeps_the_others_waiting_for_twice_as_long(bench: Bench) -> None:
    await failing_check(bench)
    waiting = [await bench.queue() for _ in range(3)]
    judged = len(bench.finisher.finished)
    alarm = bench.dispatcher._judging._alarm
    first = alarm._at
    assert first is not None
    bench.dispatcher._judging._due(first)
    await bench.state(waiting[0], JobState.PENDING_SAFETY)
    await eventually(lambda: alarm._at not in (None, first))
    await asyncio.sleep(0.05)
    assert len(bench.finisher.finished) == judged + 1, "one picture, and no more"
    assert alarm._at is not None
    assert alarm._at - first == pytest.approx(2 * limits.BREAKER_OPEN_S_MIN, abs=5.0)
    for job in waiting[1:]:
        assert (await bench.store.get(job.id)).state is JobState.QUEUED


async def test_a_try_that_tells_nothing_is_no_reason_to_go_on(bench: Bench) -> None:
    await failing_check(bench)
    job = await bench.queue()

    def unsigned(raw: Raw) -> Any:
        raise SigningFailed("the key is gone")

    bench.finisher.answer = unsigned
    until = bench.dispatcher._judging._alarm._at
    assert until is not None
    bench.dispatcher._judging._due(until)
    await bench.state(job, JobState.QUEUED)
    await eventually(lambda: bench.dispatcher._judging._alarm._at not in (None, until))
    assert bench.dispatcher.checks_failing
    assert bench.files() == []


async def test_each_check_has_a_breaker_of_its_own(bench: Bench) -> None:
    def scoreless(raw: Raw) -> Any:
        raise SafetyUnavailable("the engine sent no score", field="finite")

    for answer in (scoreless, unavailable, scoreless, unavailable):
        bench.finisher.answer = answer
        await bench.state(await bench.queue(), JobState.PENDING_SAFETY)
    assert bench.dispatcher.checks_failing == {}, "two failures of each"
    bench.finisher.answer = scoreless
    await bench.state(await bench.queue(), JobState.PENDING_SAFETY)
    await eventually(lambda: bench.dispatcher.checks_failing)
    assert list(bench.dispatcher.checks_failing) == ["finite"]


async def test_until_a_check_is_well_again_pictures_are_judged_more_strictly(bench: Bench) -> None:
    told: list[dict[str, str]] = []

    def allowed(raw: Raw) -> Any:
        told.append(dict(raw.degraded))
        return ALLOWED

    bench.finisher.answer = unavailable
    await bench.state(await bench.queue(), JobState.PENDING_SAFETY)
    bench.finisher.answer = allowed
    for _ in range(2):
        await bench.ended(await bench.queue())
    assert told == [{"pictures": "the classifier is away"}, {}]


async def test_the_one_try_is_judged_more_strictly(bench: Bench) -> None:
    await failing_check(bench)
    told: list[dict[str, str]] = []

    def allowed(raw: Raw) -> Any:
        told.append(dict(raw.degraded))
        return ALLOWED

    bench.finisher.answer = allowed
    jobs = [await bench.queue() for _ in range(2)]
    until = bench.dispatcher._judging._alarm._at
    assert until is not None
    bench.dispatcher._judging._due(until)
    for job in jobs:
        await bench.ended(job)
    assert told[0] == {"pictures": "the classifier is away"}
    assert told[-1] == {}


async def test_no_new_jobs_are_taken_while_a_check_stays_down_and_again_when_it_is_up(
    bench: Bench,
) -> None:
    bench.dispatcher.check_judged(0.0)
    await failing_check(bench)
    bench.dispatcher.check_judged(3600.0)  # it isn't down for so long yet
    with pytest.raises(SafetyUnavailable, match="no new jobs") as refused:
        bench.dispatcher.check_judged(0.0)
    assert refused.value.status == 503
    assert refused.value.field == "pictures"
    job = await bench.queue()  # it was let in before, and is the try
    bench.finisher.answer = lambda raw: ALLOWED
    until = bench.dispatcher._judging._alarm._at
    assert until is not None
    bench.dispatcher._judging._due(until)
    await bench.ended(job)
    bench.dispatcher.check_judged(0.0)


async def test_a_try_that_fails_does_not_begin_the_time_anew(bench: Bench) -> None:
    await failing_check(bench)
    judging = bench.dispatcher._judging
    judging._now += 1000.0
    job = await bench.queue()
    until = judging._alarm._at
    assert until is not None
    judging._due(until + 1000.0)
    await bench.state(job, JobState.PENDING_SAFETY)
    assert judging.down_s >= 1000.0


async def test_where_no_job_waits_that_could_try_one_is_taken(bench: Bench) -> None:
    """Or nobody would ever find out that the check works again."""
    bench.finisher.answer = unavailable
    await failing_check(bench)
    with pytest.raises(SafetyUnavailable):
        bench.dispatcher.check_judged(0.0)
    for job in await bench.store.unfinished():
        await bench.dispatcher.cancel(job.id, by="caller")
    bench.dispatcher.check_judged(0.0)
