"""Time estimates of the live line: shared, bounded, learnt from, and kept over a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from calotype.cli.making import _say
from calotype.core import limits
from calotype.core.nouns import Job, Tier
from calotype.core.states import EngineState, JobState
from calotype.flow.eta import START_S_PRIOR, Eta
from calotype.policy.ranges import PRIOR
from calotype.pool.reports import EngineHealth, EngineSuspect
from tests.flow.dispatch_bench import (
    SPEC,
    WAIT,
    Bench,
    bench_in,
    eventually,
    running_bench,
    unavailable,
)

ALONE = replace(WAIT, n=4)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_in(tmp_path) as made:
        await made.dispatcher.start()
        await made.pool.warm(rows_max=1)
        yield made


def eta(bench: Bench, job: Job) -> Eta:
    found = bench.dispatcher.eta(job)
    assert found is not None
    return found


def cost_s(bench: Bench, job: Job) -> float:
    return bench.dispatcher._line.costs.predict_s(job.spec)


async def refreshed(bench: Bench) -> None:
    """Have the next question make another forecast."""
    bench.dispatcher._etas._next_at = 0.0
    bench.dispatcher._etas._stale.update(bench.dispatcher._etas._forecasts)


async def test_a_job_that_waits_is_told_what_the_line_will_do(bench: Bench) -> None:
    running = await bench.queue(WAIT)
    await eventually(lambda: bench.pool.waiting)
    first = await bench.queue(WAIT, tenant="bob", tier=Tier.TURBO)
    last = await bench.queue(WAIT, tenant="cid", tier=Tier.RELAX)
    await refreshed(bench)
    each_s = cost_s(bench, running)
    told = eta(bench, last)
    assert told.reason == "1 turbo job ahead"
    assert told.position == 2
    assert told.basis == "prior"
    assert told.p50_s is not None
    assert told.p90_s is not None
    # One step of the first's four is done.
    assert told.p50_s == pytest.approx(2.75 * each_s * PRIOR["waits"][0], abs=0.1)
    assert told.p90_s == pytest.approx(2.75 * each_s * PRIOR["waits"][1], abs=0.1)
    assert eta(bench, first).reason.startswith("it is next")
    runs = eta(bench, running)
    assert (runs.position, runs.reason) == (None, "it is drawn")


async def test_a_job_that_is_over_has_none(bench: Bench) -> None:
    job = await bench.ended(await bench.queue())
    assert bench.dispatcher.eta(job) is None


async def test_what_is_told_is_held_against_what_came_and_kept(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        for _ in range(limits.ETA_SEEN_MIN):
            job = await bench.queue()
            await refreshed(bench)
            bench.dispatcher.eta(job)
            await bench.ended(job)
        learnt = bench.dispatcher._etas._kept()
        assert learnt["fast runs tiny"][2] == limits.ETA_SEEN_MIN
        assert not bench.dispatcher._etas._ranges._open
        job = await bench.queue(WAIT)
        await refreshed(bench)
        assert eta(bench, job).basis == "recipe"
    async with running_bench(tmp_path) as again:
        kept = again.dispatcher._etas._kept()
        assert kept["fast runs tiny"][:2] == learnt["fast runs tiny"][:2]


async def test_a_cancelled_job_teaches_nothing(bench: Bench) -> None:
    job = await bench.queue(WAIT)
    await refreshed(bench)
    eta(bench, job)
    before = bench.dispatcher._etas._ranges.kept()["fast runs"]
    await bench.dispatcher.cancel(job.id, by="caller")
    bench.dispatcher._etas._ranges.pass_to(1e12)
    assert bench.dispatcher._etas._ranges.kept()["fast runs"] == before


async def test_a_forecast_is_shared_and_takes_a_bounded_share_of_the_time(bench: Bench) -> None:
    jobs = [await bench.queue(WAIT) for _ in range(20)]
    await refreshed(bench)
    eta(bench, jobs[0])
    made = bench.dispatcher._etas._forecasts.get("")
    for job in jobs:
        eta(bench, job)
    assert bench.dispatcher._etas._forecasts.get("") is made
    etas = bench.dispatcher._etas
    etas._next_at = float("inf")  # as if one had taken long
    late = await bench.queue(WAIT)
    told = eta(bench, late)
    assert etas._forecasts.get("") is made
    assert told.is_extrapolated
    assert told.position == 20
    assert told.reason == "19 jobs ahead"


async def test_an_engine_that_starts_is_counted_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.pool.lose()
    await eventually(lambda: not bench.dispatcher._line.policy.of("")._fleet.opened)
    starting = EngineHealth("engine-0", EngineState.STARTING, datetime.now(UTC), 1, None, None, ())
    monkeypatch.setattr(bench.pool, "health", lambda: [starting])
    monkeypatch.setattr(bench.registry, "list", lambda: list(bench.registry.models.values()))
    job = await bench.queue(SPEC)
    bench.dispatcher._etas._start_s = START_S_PRIOR
    await refreshed(bench)
    told = eta(bench, job)
    assert told.reason == "an engine is starting, about 15 s left"
    assert told.p50_s is not None
    assert told.p50_s > 14.0
    monkeypatch.setattr(bench.pool, "health", list)
    await refreshed(bench)
    assert eta(bench, job) == Eta(1, None, None, "no engine is up")


def test_the_command_line_says_it_while_it_waits() -> None:
    eta = {"position": 3, "p50_s": 20.2, "p90_s": 34.0, "reason": "2 turbo jobs ahead"}
    said = "in line, place 3; about 20 to 35 s: 2 turbo jobs ahead"
    assert _say("eta", eta) == said
    assert _say("queued", {"position": 3, "eta": eta}) == said
    assert _say("queued", {"position": 3}) == "in line, place 3"


async def test_while_a_safety_check_is_down_it_is_what_a_job_waits_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BREAKER_OPEN_S_MIN", 30.0)
    monkeypatch.setattr(limits, "SAFETY_RETRY_S", 30.0)
    bench.finisher.answer = unavailable
    for _ in range(limits.BREAKER_FAILURES_MAX):
        await bench.state(await bench.queue(), JobState.PENDING_SAFETY)
    await eventually(lambda: bench.dispatcher._line.policy.of("")._starts.running_max == 0)
    job = await bench.queue()
    await refreshed(bench)
    said = "pictures can't be judged now: the classifier is away"
    assert eta(bench, job) == Eta(1, None, None, said)


async def test_a_job_on_an_engine_that_is_paused_is_told_so_and_others_still_have_a_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await bench.queue(ALONE)
    await eventually(lambda: bench.pool.waiting)
    job = await bench.queue(WAIT)
    await bench.pool.say(EngineSuspect("it gave no sign of life for 20 s"))
    await eventually(lambda: not bench.dispatcher._line.policy.of("")._fleet.opened)
    now = datetime.now(UTC)
    for state, said in (
        (EngineState.SUSPECT, "the engine it could run on gives no sign of life"),
        (EngineState.DRAINING, "the engine it could run on takes no more jobs, and is begun anew"),
    ):
        paused = EngineHealth("engine-0", state, now, 1, "cpu", "none", (SPEC.model,))
        monkeypatch.setattr(bench.pool, "health", lambda paused=paused: [paused])
        monkeypatch.setattr(bench.registry, "list", lambda: list(bench.registry.models.values()))
        bench.dispatcher._etas._start_s = 0.001  # sooner than what runs there is done
        await refreshed(bench)
        told = eta(bench, job)
        assert (told.reason, told.position) == (said, 1)
        assert told.p50_s is not None
        forecast = bench.dispatcher._etas._forecasts.get("")
        assert forecast is not None
        ends = [forecast.of(one.id) for one in (running, job)]
        first, second = (one.done_s for one in ends if one)
        assert first is not None
        assert second is not None
        assert second > first > 0.0, "it ends what it has before"
