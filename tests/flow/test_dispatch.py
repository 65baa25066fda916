"""From the line to stored pictures: what happens when something on the way goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from calotype.core import limits
from calotype.core.errors import IllegalMove, OperatorError, TooMany
from calotype.core.ids import new_id
from calotype.core.messages import CancelRow, RunRow
from calotype.core.nouns import Tier
from calotype.core.states import JobState
from calotype.flow.attempt import Attempt
from calotype.flow.finish import Raw
from calotype.flow.sweep import sweep
from calotype.provenance.signing import SigningFailed
from calotype.safety.errors import SafetyUnavailable
from tests.flow.dispatch_bench import (
    ALLOWED,
    BLOCKED,
    DEVICE_S,
    SPEC,
    WAIT,
    Bench,
    bench_in,
    eventually,
    running_bench,
)

LOCKED = OperationalError("UPDATE", {}, Exception("database is locked"))


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STORE_RETRY_S", 0.001)
    monkeypatch.setattr(limits, "SAFETY_RETRY_S", 0.02)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running_bench(tmp_path) as running:
        yield running


def failing(act: Callable[..., Awaitable[Any]], times: int, error: Exception = LOCKED) -> Any:
    """``act``, but its first ``times`` calls raise."""
    left = [error] * times

    async def acting(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return await act(*args, **kwargs)

    return acting


async def test_a_job_becomes_a_stored_picture(bench: Bench) -> None:
    job = await bench.ended(await bench.queue())
    assert job.state is JobState.SUCCEEDED
    assert bench.files() == [f"{job.images[0].id}.png", f"{job.images[0].id}.webp"]
    assert await bench.previews(job) == 1
    [told] = await bench.events(job, "image_finished")
    assert told.data == {"image": 0, "id": job.images[0].id, "verdict": "allow"}


async def test_a_prompt_that_was_cut_is_told_with_the_first_step(bench: Bench) -> None:
    bench.pool.tokens_cut = 12
    job = await bench.ended(await bench.queue())
    steps = await bench.events(job, "step")
    assert [step.data.get("tokens_cut") for step in steps] == [12, None, None, None]


# A store that fails.


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
    gate = Gate(bench.pictures.delete)  # what the attempt does after its turn
    monkeypatch.setattr(bench.pictures, "delete", gate)
    await bench.pool.finish_rows()
    async with asyncio.timeout(60):
        await bench.dispatcher.broken()
    with pytest.raises(OperatorError, match="no job is"):
        await bench.dispatcher.cancel(job.id, by="caller")
    gate.opened.set()


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


# No picture without a verdict, none without a signature.


def unavailable(raw: Raw) -> Any:
    raise SafetyUnavailable("the classifier is away")


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


# No file without a job.


class Gate:
    """Stops whoever calls, until it is opened."""

    def __init__(self, act: Callable[..., Awaitable[Any]]) -> None:
        self._act = act
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.reached.set()
        await self.opened.wait()
        return await self._act(*args, **kwargs)


async def let_through(gate: Gate, waiting: asyncio.Task[Any]) -> None:
    """Open the gate once all others have gone as far as they can; return when the task is over."""
    await asyncio.sleep(0.05)
    gate.opened.set()
    async with asyncio.timeout(60):
        await waiting


async def test_cancelling_while_a_picture_is_written_leaves_no_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(bench.pictures._write)
    monkeypatch.setattr(bench.pictures, "_write", gate)
    job = await bench.queue()
    await gate.reached.wait()
    cancelling = asyncio.create_task(bench.dispatcher.cancel(job.id, by="caller"))
    await let_through(gate, cancelling)
    assert bench.files() == []


async def test_cancelling_while_an_attempt_waits_for_its_turn_leaves_no_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bench.queue(WAIT)
    await eventually(lambda: bench.pool.waiting)
    gate = Gate(bench.store.cancel)
    monkeypatch.setattr(bench.store, "cancel", gate)
    cancelling = asyncio.create_task(bench.dispatcher.cancel(job.id, by="caller"))
    await gate.reached.wait()  # the turn is taken; now the pictures come in
    await bench.pool.finish_rows()
    await eventually(lambda: len(bench.files()) == 2)
    await let_through(gate, cancelling)
    assert bench.files() == []


async def test_a_picture_that_can_not_be_deleted_holds_nothing_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = asyncio.Event()

    async def waits(raw: Raw) -> Any:
        done.set()
        await asyncio.Event().wait()

    real = bench.finisher.finish

    async def finish(raw: Raw) -> Any:
        return await (real(raw) if raw.manifest.index == 0 else waits(raw))

    monkeypatch.setattr(bench.finisher, "finish", finish)
    broken = OperatorError("a picture can't be deleted: Input/output error")
    monkeypatch.setattr(bench.pictures, "delete", failing(bench.pictures.delete, 1, broken))
    job = await bench.queue(replace(SPEC, n=2))
    await done.wait()
    await eventually(lambda: len(bench.files()) == 2)
    async with asyncio.timeout(60):
        await bench.dispatcher.cancel(job.id, by="caller")
    assert len(bench.files()) == 1, "the other file is deleted all the same"
    assert (await bench.ended(await bench.queue())).state is JobState.SUCCEEDED


async def test_the_sweep_takes_what_no_job_has_and_nothing_else(tmp_path: Path) -> None:
    older = new_id("img")
    async with bench_in(tmp_path) as bench:
        await bench.pictures.put(older, "png", b"of another database")
        assert await sweep(bench.store, bench.pictures) == 0, "a database without a job"
        await asyncio.sleep(0.002)  # ids tell milliseconds apart
        await bench.dispatcher.start()
        await bench.pool.warm()
        job = await bench.ended(await bench.queue())
        mine = bench.files()
        left = new_id("img")
        await bench.pictures.put(left, "png", b"x")
        await bench.pictures.put(left, "webp", b"x")
        (bench.pictures_folder / left[-2:] / f"{left}.png#1").write_bytes(b"half")
        assert await sweep(bench.store, bench.pictures) == 1
        assert bench.files() == mine
        assert f"{older}.png" in mine
        assert f"{job.images[0].id}.png" in mine


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


def virtual_s(bench: Bench, tenant: str) -> float:
    """Device-seconds that a tenant of the fast tier was charged."""
    standing = bench.dispatcher._line._line.standing()
    return float(standing["tiers"]["fast"]["tenants"][tenant][0]) / 1e6


# Room in the line.


async def test_of_many_at_once_no_more_are_let_in_than_there_is_room_for(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        bench.gate._most = 5
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


# Models that no engine can load.


async def test_a_job_whose_model_no_engine_could_load_fails(tmp_path: Path) -> None:
    async with bench_in(tmp_path, engines=2) as bench:
        await bench.dispatcher.start()
        job = await bench.queue()
        bench.pool.models_failed = {SPEC.model: "its files are damaged"}
        await bench.pool.warm()
        ended = await bench.ended(job)
        assert ended.error is not None
        assert ended.error["field"] == "model"
        assert "damaged" in ended.error["detail"]
        assert bench.dispatcher.position(job.id) is None


async def test_a_job_whose_model_is_gone_after_a_restart_fails(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        job = await bench.queue()
    async with bench_in(tmp_path) as bench:
        bench.registry.models.clear()
        await bench.dispatcher.start()
        ended = await bench.ended(job)
        assert ended.error is not None
        assert ended.error["field"] == "model"


# Restarts.


async def test_a_job_that_takes_the_server_down_each_time_is_given_up(tmp_path: Path) -> None:
    starts = 0
    while True:
        async with running_bench(tmp_path) as bench:  # left in mid-run: as if it were killed
            if starts == 0:
                job = await bench.queue(WAIT)
            if (await bench.store.get(job.id)).state.is_final:
                break
            await eventually(lambda: bench.pool.waiting)
            starts += 1
            assert starts <= limits.ATTEMPTS_TOTAL_MAX
    async with bench_in(tmp_path) as bench:
        ended = await bench.store.get(job.id)
        assert ended.state is JobState.FAILED
        assert starts == limits.ATTEMPTS_TOTAL_MAX
        assert ended.error is not None
        assert "6 attempts were lost" in ended.error["detail"]


async def test_the_rebuilt_line_makes_the_decision_the_old_one_would_have(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        await bench.pool.warm(rows_max=1)
        for _ in range(3):  # ada has had her share
            await bench.ended(await bench.queue(tenant="ada"))
        running = await bench.queue(WAIT, tenant="ada")
        await eventually(lambda: bench.pool.waiting)
        first_come = await bench.queue(WAIT, tenant="ada")
        next_up = await bench.queue(WAIT, tenant="bob")
        await bench.dispatcher.cancel(running.id, by="caller")
        await bench.state(next_up, JobState.RUNNING)
        paid = [virtual_s(bench, tenant) for tenant in ("ada", "bob")]
        costs = bench.dispatcher._line.costs.kept()
        assert costs
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        assert [virtual_s(bench, tenant) for tenant in ("ada", "bob")] == paid
        assert bench.dispatcher._line.costs.kept() == costs
        await bench.pool.warm(rows_max=1)
        await bench.state(next_up, JobState.RUNNING)
        assert (await bench.store.get(first_come.id)).state is JobState.QUEUED


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
    async with bench.dispatcher._turns.take(), asyncio.timeout(10):
        await bench.dispatcher._endings._complete(attempt, [])
    with pytest.raises(IllegalMove):
        await bench.dispatcher.cancel(job.id, by="caller")
