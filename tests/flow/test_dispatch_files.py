"""No file without a job: what cancelling and failing leave behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calotype.core.errors import OperatorError
from calotype.core.ids import new_id
from calotype.core.states import JobState
from calotype.delivery.names import kept_name, stored_name
from calotype.flow.finish import Raw
from calotype.flow.sweep import sweep
from tests.flow.dispatch_bench import (
    SPEC,
    WAIT,
    Bench,
    bench_in,
    eventually,
)
from tests.flow.faults import Halt, failing, let_through

pytestmark = pytest.mark.usefixtures("short_times")


async def test_cancelling_while_a_picture_is_written_leaves_no_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    halt = Halt(bench.pictures._write)
    monkeypatch.setattr(bench.pictures, "_write", halt)
    job = await bench.queue()
    await halt.reached.wait()
    cancelling = asyncio.create_task(bench.dispatcher.cancel(job.id, by="caller"))
    await let_through(halt, cancelling)
    assert bench.files() == []


async def test_cancelling_while_an_attempt_waits_for_its_turn_leaves_no_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await bench.queue(WAIT)
    await eventually(lambda: bench.pool.waiting)
    halt = Halt(bench.store.cancel)
    monkeypatch.setattr(bench.store, "cancel", halt)
    cancelling = asyncio.create_task(bench.dispatcher.cancel(job.id, by="caller"))
    await halt.reached.wait()  # the turn is taken; now the pictures come in
    await bench.pool.finish_rows()
    await eventually(lambda: len(bench.files()) == 2)
    await let_through(halt, cancelling)
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
    other = new_id("img")
    async with bench_in(tmp_path) as bench:
        await bench.pictures.put(kept_name(other, "png"), b"of another database")
        assert await sweep(bench.store, bench.pictures) == 0, "a database without a job"
        await bench.dispatcher.start()
        await bench.pool.warm()
        job = await bench.ended(await bench.queue())
        mine = bench.files()
        entry = await bench.store.hash_log.of_image(job.images[0].id)
        assert entry is not None
        left = new_id("img")  # of a picture that was on its way when its server was killed
        await bench.store.hash_log.append([replace(entry.entry, image=left)])
        for form in ("png", "webp"):
            await bench.pictures.put(stored_name("fast", left, "0" * 64, form), b"x")
        draft = stored_name("fast", left, "1" * 64, "png")
        (bench.pictures_folder / f"{draft}#1").write_bytes(b"half")
        assert await sweep(bench.store, bench.pictures) == 2
        assert bench.files() == mine
        assert f"{other}.png" in mine
        assert f"{job.images[0].id}.png" in mine
