"""Jobs that begin from pictures, when something on the way goes wrong; and pictures let go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from calotype.core import limits
from calotype.core.errors import NotFound, Refused, TooMany
from calotype.core.kinds import Kind
from calotype.core.messages import RunRow
from calotype.core.nouns import ControlUse, InputPicture, LoraUse
from calotype.core.states import JobState
from calotype.delivery.names import kept_name
from calotype.safety.errors import SafetyUnavailable
from tests.adapters import make_control, make_lora
from tests.flow.dispatch_bench import (
    ALLOWED,
    BLOCKED,
    SPEC,
    WAIT,
    Bench,
    bench_in,
    eventually,
    running_bench,
)
from tests.pictures import file_of, mask, picture

FROM_PICTURE = replace(SPEC, kind=Kind.IMAGE, strength=0.5)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    make_lora(tmp_path, "ink")
    make_control(tmp_path, "edges")
    async with running_bench(tmp_path) as running:
        running.adapters.scan()
        yield running


async def sent(bench: Bench, seed: int = 1) -> InputPicture:
    return await bench.inputs.take_in("ada", file_of(picture(seed=seed)))


async def test_a_row_brings_each_of_its_pictures_once(bench: Bench) -> None:
    source = await sent(bench)
    where = await bench.inputs.take_in("ada", file_of(mask()))
    spec = replace(
        FROM_PICTURE,
        kind=Kind.INPAINT,
        n=2,
        source=source.id,
        mask=where.id,
        loras=(LoraUse("ink", 0.5),),
        controls=(ControlUse("edges", source.id, canny=True),),
    )
    job = await bench.ended(await bench.queue(spec))
    assert job.state is JobState.SUCCEEDED
    assert job.spec == spec  # also out of the store
    rows = [message for _, message in bench.pool.sent if isinstance(message, RunRow)]
    assert [row.seed for row in rows] == [7, 8]
    for row in rows:
        assert [(it.width, it.height, it.channels) for it in row.pictures] == [(8, 8, 3), (8, 8, 1)]
        assert (row.source, row.mask, row.strength) == (0, 1, 0.5)
        assert [(it.name, it.picture, it.canny) for it in row.controls] == [("edges", 0, True)]
        assert [(it.name, it.weight) for it in row.loras] == [("ink", 0.5)]
    assert bench.pool.blobs == [8 * 8 * 4] * 2


async def test_a_picture_that_is_blocked_by_now_is_not_begun_from(bench: Bench) -> None:
    source = await sent(bench)
    bench.finisher.input_verdict = BLOCKED
    job = await bench.ended(await bench.queue(replace(FROM_PICTURE, source=source.id)))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "blocked" in job.error["detail"]
    assert not bench.pool.rows(RunRow)
    assert job.attempt == 1


async def test_a_picture_that_can_not_be_judged_holds_the_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await sent(bench)
    bench.finisher.input_verdict = SafetyUnavailable("no bank")
    job = await bench.queue(replace(FROM_PICTURE, source=source.id))
    await bench.state(job, JobState.PENDING_SAFETY)
    assert not bench.pool.rows(RunRow)


@pytest.mark.parametrize("gone", ["picture", "adapter"])
async def test_what_is_gone_by_now_fails_the_job_with_the_reason(bench: Bench, gone: str) -> None:
    source = await sent(bench)
    spec = replace(FROM_PICTURE, source=source.id, loras=(LoraUse("ink"),))
    if gone == "picture":
        await bench.inputs._kept.delete(kept_name(source.id, "png"))
    else:
        spec = replace(spec, loras=(LoraUse("gone"),))
    job = await bench.ended(await bench.queue(spec))
    assert (job.state, job.attempt) == (JobState.FAILED, 1)
    assert job.error is not None
    assert "no such picture" in job.error["detail"] or "no LoRA named" in job.error["detail"]


async def test_an_engine_that_dies_before_the_row_came_gives_the_job_another_attempt(
    bench: Bench,
) -> None:
    source = await sent(bench)
    bench.pool.down.add("engine-0")
    job = await bench.queue(replace(FROM_PICTURE, source=source.id))
    await bench.state(job, JobState.RUNNING)
    await bench.pool.lose()
    await bench.state(job, JobState.QUEUED)
    await bench.pool.warm()
    assert (await bench.ended(job)).state is JobState.SUCCEEDED


async def test_nothing_is_kept_of_a_picture_that_is_blocked(bench: Bench) -> None:
    bench.finisher.input_verdict = BLOCKED
    with pytest.raises(Refused):
        await sent(bench)
    assert not inputs(bench)


async def test_a_picture_that_is_there_already_is_judged_again_when_it_is_sent_again(
    bench: Bench,
) -> None:
    kept = await sent(bench)
    assert (await sent(bench)).id == kept.id
    bench.finisher.input_verdict = BLOCKED
    with pytest.raises(Refused):
        await sent(bench)


async def test_nothing_is_kept_of_a_picture_there_is_no_room_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PICTURE_BYTES_PER_TENANT_MAX", 10)
    with pytest.raises(TooMany, match="bytes"):
        await sent(bench)
    assert not inputs(bench)


async def test_pictures_are_let_go_after_their_last_use_but_for_those_of_jobs_that_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, used, fresh = [await sent(bench, seed) for seed in (1, 2, 3)]
    await bench.queue(replace(WAIT, kind=Kind.IMAGE, source=used.id))
    await eventually(lambda: bench.pool.waiting)
    long_ago = datetime.now(UTC) - timedelta(seconds=limits.PICTURE_KEPT_S + 1)
    for each in (old, used):
        await bench.store.pictures.add("ada", replace(each, used_at=long_ago))
    assert await bench.inputs.let_go() == [old.id]
    assert inputs(bench) == sorted([f"{used.id}.png", f"{fresh.id}.png"])
    with pytest.raises(NotFound):
        await bench.inputs.find("ada", old.id)


async def test_files_without_a_record_go_with_the_next_start(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.inputs._kept.put(kept_name("pic_01ARZ3NDEKTSV4RRFFQ69G5FAV", "png"), b"lost")
        await bench.inputs.sweep()
        assert len(inputs(bench)) == 1  # no record at all: of another database
        kept = await sent(bench)
        await bench.inputs.sweep()
        assert inputs(bench) == [f"{kept.id}.png"]


def inputs(bench: Bench) -> list[str]:
    return sorted(path.name for path in (bench.folder / "inputs").rglob("*") if path.is_file())


async def test_the_picture_of_another_tenant_is_not_found(bench: Bench) -> None:
    assert bench.finisher.input_verdict == ALLOWED
    source = await sent(bench)
    with pytest.raises(NotFound):
        await bench.inputs.find("bob", source.id)
