"""Engines that are taken away: jobs go on elsewhere where they were, and pay for each step once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core import limits
from calotype.core.errors import Conflict, InvalidInput, NotFound
from calotype.core.messages import ParkRow, RowFailed, RowParked, RunRow
from calotype.core.nouns import Job, Spec
from calotype.core.states import AttemptState, EngineState, JobState
from calotype.flow.handed import Handed
from tests.flow.dispatch_bench import (
    DEVICE_S,
    WAIT,
    Bench,
    bench_in,
    eventually,
    running_bench,
    unavailable,
    virtual_s,
)
from tests.flow.engines_bench import LONG, engines_bench
from tests.flow.faults import Halt

pytestmark = pytest.mark.usefixtures("short_times")

SHORT_S = 10.0  # a notice that leaves no time: rows are handed back at once
PARKED_S = DEVICE_S / 4  # what the stub says of a row it hands back, after one step of four
TWO = replace(WAIT, n=2)


async def waits(bench: Bench, spec: Spec = WAIT) -> Job:
    """A job whose rows wait after their first step."""
    job = await bench.queue(spec)
    await eventually(lambda: len(bench.pool.waiting) == spec.n)
    await eventually(lambda: bench.dispatcher.progress(job.id) == 0.25)
    return job


async def handed_back(bench: Bench, spec: Spec = WAIT) -> Job:
    """A job that ``engine-0`` gave back; no other engine is up yet."""
    job = await waits(bench, spec)
    await bench.dispatcher.give_notice("engine-0", SHORT_S)
    return await bench.state(job, JobState.QUEUED)


async def half_handed_back(bench: Bench) -> Job:
    """The same of two images, of which one was finished."""
    job = await waits(bench, TWO)
    first, (engine, row) = next(iter(bench.pool.waiting.items()))
    del bench.pool.waiting[first]
    await bench.pool._steps(engine, row, 2)
    await eventually(lambda: bench.events(job, "image_finished"))
    await bench.dispatcher.give_notice("engine-0", SHORT_S)
    return await bench.state(job, JobState.QUEUED)


def last_row(bench: Bench) -> RunRow:
    return [message for _, message in bench.pool.sent if isinstance(message, RunRow)][-1]


def kept_files(bench: Bench) -> list[str]:
    return sorted(path.name for path in (bench.folder / "handed").rglob("*") if path.is_file())


async def test_a_job_goes_on_at_the_step_where_its_engine_left_it(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await handed_back(bench)
        [told] = await bench.events(job, "handed_back")
        assert told.data == {
            "attempt": 1,
            "engine": "engine-0",
            "reason": "engine-0 is being taken away",
            "images": [{"image": 0, "step": 1, "steps": 4}],
        }
        assert kept_files(bench) == [f"{job.id}-0.safetensors"]
        await bench.pool.come("engine-1")
        job = await bench.ended(job)
        assert job.state is JobState.SUCCEEDED
        assert last_row(bench).parked_bytes == 1
        assert [one.data["step"] for one in await bench.events(job, "step")] == [1, 2, 3, 4]
        tries = {AttemptState.HANDED_BACK: 1, AttemptState.DONE: 1}
        assert await bench.store.attempts(job.id) == tries
        assert kept_files(bench) == []


async def test_both_engines_are_paid_and_no_step_twice(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        whole_s = bench.dispatcher._line.costs.predict_s(WAIT)
        job = await handed_back(bench)
        assert virtual_s(bench, "ada") == 0.0, "a restart would begin it from nothing"
        assert bench.dispatcher._line.left_s(job) == pytest.approx(0.75 * whole_s)
        await bench.pool.come("engine-1")
        await bench.ended(job)
        await eventually(lambda: bench.gate.ends)
        assert virtual_s(bench, "ada") == pytest.approx(PARKED_S + DEVICE_S)
        assert [paid_s for _, paid_s in bench.gate.ends] == pytest.approx([PARKED_S + DEVICE_S])


async def test_one_that_fails_after_it_was_handed_back_pays_nothing(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await handed_back(bench)
        bench.pool.holds_parked = True
        await bench.pool.come("engine-1")
        await bench.state(job, JobState.RUNNING)
        await eventually(lambda: bench.pool.waiting)
        broken = RowFailed(last_row(bench).row, "no such file", retryable=False)
        await bench.pool.say(broken, "engine-1")
        job = await bench.ended(job)
        assert job.state is JobState.FAILED
        charged = bench.dispatcher._line._line.standing()["tiers"]["fast"]["tenants"]
        assert "ada" not in charged, "as one who never asked"
        assert bench.gate.ends == [(job.id, 0.0)]


async def test_a_picture_that_was_finished_is_not_made_again(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await half_handed_back(bench)
        assert len(bench.files()) == 2, "its picture's two files stay"
        rows_before = len(bench.pool.rows(RunRow))
        await bench.pool.come("engine-1")
        job = await bench.ended(job)
        assert [image.index for image in job.images] == [0, 1]
        assert len(bench.pool.rows(RunRow)) == rows_before + 1
        assert last_row(bench).row.endswith("/1")
        assert len(bench.finisher.finished) == 2
        names = sorted(f"{image.id}.{form}" for image in job.images for form in ("png", "webp"))
        assert bench.files() == names


async def test_what_ends_in_time_ends_there(bench: Bench) -> None:
    job = await waits(bench)
    await bench.dispatcher.give_notice("engine-0", 3_600.0)
    late = await bench.queue()
    await bench.pool.finish_rows()
    assert (await bench.ended(job)).state is JobState.SUCCEEDED
    assert (await bench.store.get(late.id)).state is JobState.QUEUED, "it gets no new work"
    assert bench.pool.rows(ParkRow) == []


async def test_what_cannot_be_kept_begins_again_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PARKED_BYTES_MAX", 0)
    async with running_bench(tmp_path) as bench:
        job = await handed_back(bench)
        [told] = await bench.events(job, "handed_back")
        [image] = told.data["images"]
        assert image == {
            "image": 0, "step": 0, "steps": 4, "not_kept": "more than 0 bytes would be kept",
        }  # fmt: skip
        await bench.pool.come("engine-1")
        await eventually(lambda: bench.pool.waiting)
        assert last_row(bench).parked_bytes == 0
        await bench.pool.finish_rows()
        assert (await bench.ended(job)).state is JobState.SUCCEEDED


async def test_a_kept_row_that_is_too_much_for_one_message_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_bench(tmp_path) as bench:
        await handed_back(bench)
        monkeypatch.setattr(limits, "ENGINE_MESSAGE_BYTES_MAX", 0)
        await bench.pool.come("engine-1")
        await eventually(lambda: bench.pool.waiting)
        assert last_row(bench).parked_bytes == 0


async def test_a_kept_row_whose_file_is_gone_begins_again(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await handed_back(bench)
        (tmp_path / "handed" / f"{job.id}-0.safetensors").unlink()
        await bench.pool.come("engine-1")
        await eventually(lambda: bench.pool.waiting)
        await bench.pool.finish_rows()
        assert (await bench.ended(job)).state is JobState.SUCCEEDED
        assert bench.handed._bytes == 0


async def test_a_job_that_is_cancelled_meanwhile_pays_for_what_was_done_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    async with running_bench(tmp_path) as bench:
        job = await half_handed_back(bench)
        await bench.dispatcher.cancel(job.id, by="caller")
        await eventually(lambda: bench.gate.ends)
        assert [paid_s for _, paid_s in bench.gate.ends] == pytest.approx([DEVICE_S + PARKED_S])
        await eventually(lambda: not bench.files())
        assert kept_files(bench) == []


async def test_an_engine_that_goes_before_it_handed_back_costs_no_attempt(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await waits(bench)
        await bench.dispatcher.give_notice("engine-0", 3_600.0)
        await bench.pool.lose()
        await bench.state(job, JobState.QUEUED)
        assert await bench.store.attempts(job.id) == {AttemptState.HANDED_BACK: 1}
        assert await bench.events(job, "attempt_failed") == []


async def test_a_later_engine_that_dies_loses_only_its_own_part(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await handed_back(bench)
        bench.pool.holds_parked = True
        await bench.pool.come("engine-1")
        await eventually(lambda: bench.pool.waiting)
        await bench.pool.lose("engine-1")
        await bench.state(job, JobState.QUEUED)
        bench.pool.holds_parked = False
        await bench.pool.come("engine-2")
        job = await bench.ended(job)
        assert last_row(bench).parked_bytes == 1, "it begins where engine-0 left it"
        tries = {AttemptState.HANDED_BACK: 1, AttemptState.LOST: 1, AttemptState.DONE: 1}
        assert await bench.store.attempts(job.id) == tries
        await eventually(lambda: bench.gate.ends)
        assert [paid_s for _, paid_s in bench.gate.ends] == pytest.approx([PARKED_S + DEVICE_S])


async def test_an_attempt_that_fails_begins_from_nothing(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        await handed_back(bench)
        bench.pool.holds_parked = True
        await bench.pool.come("engine-1")
        await eventually(lambda: bench.pool.waiting)
        bench.pool.waiting.clear()
        await bench.pool.come("engine-2")
        await bench.pool.say(RowFailed(last_row(bench).row, "it broke", True), "engine-1")
        await eventually(lambda: bench.pool.waiting)
        assert kept_files(bench) == []
        assert last_row(bench).parked_bytes == 0


async def test_a_job_that_cannot_be_judged_begins_from_nothing(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await handed_back(bench)
        bench.finisher.answer = unavailable
        await bench.pool.come("engine-1")
        await bench.state(job, JobState.PENDING_SAFETY)
        assert kept_files(bench) == []


async def test_a_server_that_starts_again_begins_jobs_from_nothing(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await handed_back(bench)
        assert kept_files(bench)
    async with bench_in(tmp_path) as bench:
        assert kept_files(bench) == []
        await bench.dispatcher.start()
        await bench.pool.warm()
        await eventually(lambda: bench.pool.waiting)
        assert last_row(bench).parked_bytes == 0
        await bench.pool.finish_rows()
        assert (await bench.ended(job)).state is JobState.SUCCEEDED


async def test_rows_that_are_still_being_sent_are_handed_back_too(bench: Bench) -> None:
    halt = Halt(bench.dispatcher._tools.larder.gather)
    bench.dispatcher._tools.larder.gather = halt  # type: ignore[method-assign]
    job = await bench.queue(WAIT)
    await halt.reached.wait()
    await bench.dispatcher.give_notice("engine-0", SHORT_S)
    assert bench.pool.rows(ParkRow) == [], "nothing is there yet"
    halt.opened.set()
    await bench.state(job, JobState.QUEUED)
    assert len(bench.pool.rows(RunRow)) == len(bench.pool.rows(ParkRow)) == 1


async def test_a_row_is_handed_on_again_and_again(tmp_path: Path) -> None:
    async with running_bench(tmp_path) as bench:
        job = await handed_back(bench)
        for number in range(1, limits.ATTEMPTS_TOTAL_MAX + 2):
            name = f"engine-{number}"
            bench.pool.holds_parked = True
            await bench.pool.come(name)
            await eventually(lambda: bench.pool.waiting)
            await bench.dispatcher.give_notice(name, SHORT_S)
            await bench.state(job, JobState.QUEUED)
        bench.pool.holds_parked = False
        await bench.pool.come("last")
        assert (await bench.ended(job)).state is JobState.SUCCEEDED


async def test_a_notice_is_refused_where_it_makes_no_sense(bench: Bench) -> None:
    with pytest.raises(NotFound, match="engine-7"):
        await bench.dispatcher.give_notice("engine-7", 120.0)
    for seconds in (0.0, -1.0, float("nan"), limits.NOTICE_S_MAX + 1):
        with pytest.raises(InvalidInput, match="seconds"):
            await bench.dispatcher.give_notice("engine-0", seconds)
    bench.pool.is_drainable = False
    with pytest.raises(Conflict, match="only one that is ready"):
        await bench.dispatcher.give_notice("engine-0", 120.0)


async def test_an_engine_that_ended_early_comes_when_its_notice_is_over(bench: Bench) -> None:
    await bench.dispatcher.give_notice("engine-0", 1.0)
    await bench.pool.lose()
    await bench.pool.warm()
    job = await bench.queue()
    notices = bench.dispatcher._engines.notices
    await eventually(lambda: notices._coming)
    assert (await bench.store.get(job.id)).state is JobState.QUEUED
    await bench.pool.lose()
    await eventually(lambda: not notices._coming)
    await bench.pool.warm()
    assert (await bench.ended(job)).state is JobState.SUCCEEDED


async def test_what_is_kept_is_bounded_in_bytes_and_its_files_are_private(tmp_path: Path) -> None:
    handed, parked = Handed(tmp_path / "handed"), RowParked("a/1/0", 3, 6, 0.5)
    assert await handed.keep("a", 0, parked, bytes(100)) == ""
    [file] = (tmp_path / "handed").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert await handed.keep("a", 0, parked, bytes(60)) == "", "in place of the one before"
    assert handed._bytes == 60
    assert await handed.keep("a", 0, RowParked("a/1/0", 0, 6, 0.0), b"") == ""
    assert len(await handed.row("a", 0)) == 60, "nothing came: what there was stays"
    handed.forget("a")
    assert (handed._bytes, list((tmp_path / "handed").iterdir())) == (0, [])


async def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    handed = Handed(tmp_path / "handed")
    (tmp_path / "handed").write_text("a file where the folder should be")
    why = await handed.keep("a", 0, RowParked("a/1/0", 3, 6, 0.5), bytes(10))
    assert why.startswith("it can't be written")
    assert handed._bytes == 0


# On processes.


async def test_between_two_processes_and_the_first_begins_anew(tmp_path: Path) -> None:
    async with engines_bench(tmp_path) as bench:
        job = await bench.queue(LONG)
        engine = await bench.engine_of(job)
        pid = bench.engines[engine].pid
        await bench.dispatcher.give_notice(engine, 1.0)
        assert bench.engines[engine].state is EngineState.DRAINING
        job = await bench.delivered_once(job)
        other = str((await bench.events(job, "started"))[-1].data["engine"])
        assert other != engine
        steps = [one.data["step"] for one in await bench.events(job, "step")]
        assert steps == list(range(1, LONG.steps + 1)), "each step once"
        await bench.is_in(engine, EngineState.READY)
        assert bench.engines[engine].pid != pid


async def test_an_engine_killed_while_it_hands_back_loses_no_job(tmp_path: Path) -> None:
    async with engines_bench(tmp_path) as bench:
        jobs = [await bench.queue(replace(LONG, steps=30, seed=seed, n=3)) for seed in range(3)]
        engine = await bench.engine_of(jobs[0])
        await bench.dispatcher.give_notice(engine, 2.0)
        bench.signal(engine, 9)
        for job in jobs:
            done = await bench.ended(job)
            assert done.state is JobState.SUCCEEDED
            assert AttemptState.LOST not in await bench.store.attempts(job.id)
