"""The pool, with the fake engine as real processes: reports, death, silence, backpressure, end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.messages import (
    CancelRow,
    RowDone,
    RowFailed,
    RowStarted,
    RunRow,
    StepDone,
)
from calotype.core.nouns import ModelInfo, Sampler
from calotype.core.states import EngineState
from calotype.pool.launch import Pace
from calotype.pool.pool import DEVICES_VARIABLE, EnginePool
from calotype.pool.registry import embedded_folder
from calotype.pool.reports import EngineDown, EngineLost, EngineWarm, Measured, Report
from calotype.pool.testing import CRASH_CODE, PREVIEW_BYTES

FAKE = (sys.executable, "-m", "calotype.pool.testing")
QUICK = Pace(start_s_max=20.0, heartbeat_s=0.4, stop_s_max=2.0, backoff_s_min=0.01)


def model(name: str = "m", path: Path | None = None) -> ModelInfo:
    return ModelInfo(
        name=name,
        family="sdxl",
        path=str(path or embedded_folder()),
        build="0" * 16,
        title=name,
        licence="unknown",
        parameter_bytes=1,
        width=128,
        height=128,
        size_px_min=64,
        size_px_max=256,
        steps=4,
        guidance=3.0,
        sampler=Sampler.DDIM,
    )


def row(prompt: str = "a house", *, name: str = "job/1/0", steps: int = 4) -> RunRow:
    return RunRow(name, "m", prompt, "", 64, 72, steps, 3.0, "ddim", 7, "fast")


@asynccontextmanager
async def pool_of(engines: int = 1, **options: Any) -> AsyncIterator[EnginePool]:
    defaults: dict[str, Any] = {"models": [model()], "command": FAKE, "pace": QUICK}
    pool = EnginePool(engines=engines, **(defaults | options))
    await pool.start()
    try:
        yield pool
    finally:
        await pool.stop()


async def take(reports: AsyncIterator[Report], *kinds: type) -> list[Report]:
    """Reports up to the first of the given kinds, with it last."""
    taken = []
    async with asyncio.timeout(30):
        async for report in reports:
            taken.append(report)
            if isinstance(report.message, kinds):
                return taken
    raise AssertionError("the reports ended")


def is_alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def environment(pid: int | None) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
    return dict(line.split("=", 1) for line in lines)


async def test_engine_gets_warm_and_makes_a_picture() -> None:
    async with pool_of() as pool:
        reports = pool.reports()
        (warm,) = await take(reports, EngineWarm)
        rows = limits.ENGINE_ROWS_MAX, limits.ENGINE_ROWS_SPARE
        measured = (Measured("m", 0.0, 0, 0),)
        assert warm == Report("engine-0", EngineWarm(("m",), *rows, measured=measured))
        await pool.send("engine-0", row())
        *steps, done = await take(reports, RowDone)
        assert [report.message for report in steps] == [
            RowStarted("job/1/0"),
            *(StepDone("job/1/0", step, 4) for step in (1, 2, 3, 4)),
        ]
        assert done.blob == bytes([7]) * (64 * 72 * 3)
        (health,) = pool.health()
        assert (health.state, health.models, health.device) == (EngineState.READY, ("m",), "cpu")


@pytest.mark.parametrize(
    ("env", "seen"),
    [({}, ["0", "1"]), ({DEVICES_VARIABLE: "3,5"}, ["3", "5"]), ({DEVICES_VARIABLE: ""}, ["", ""])],
)
async def test_each_engine_sees_a_gpu_of_its_own(
    env: dict[str, str], seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DEVICES_VARIABLE, raising=False)
    async with pool_of(2, env=env) as pool:
        reports = pool.reports()
        names = {(await take(reports, EngineWarm))[-1].engine for _ in range(2)}
        assert names == {"engine-0", "engine-1"}
        assert [environment(one.pid)[DEVICES_VARIABLE] for one in pool.health()] == seen


async def test_killed_in_mid_row_the_engine_is_lost_and_comes_back_warm() -> None:
    async with pool_of() as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        await pool.send("engine-0", row(steps=100_000))
        await take(reports, StepDone)
        (before,) = pool.health()
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        lost = (await take(reports, EngineLost))[-1].message
        assert isinstance(lost, EngineLost)
        assert lost.exit_code == -signal.SIGKILL
        with pytest.raises(EngineDown):
            await pool.send("engine-0", row())
        await take(reports, EngineWarm)
        await pool.send("engine-0", row())
        await take(reports, RowDone)
        assert pool.health()[0].pid != before.pid


async def test_crash_is_reported_with_its_exit_code_and_printed_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "engine-0.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * (limits.ENGINE_LOG_BYTES_MAX + 1))
    async with pool_of(log_folder=log.parent) as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        await pool.send("engine-0", row("crash"))
        lost = (await take(reports, EngineLost))[-1].message
        assert isinstance(lost, EngineLost)
        assert lost.exit_code == CRASH_CODE
        await take(reports, EngineWarm)
    assert log.read_text() == "crashing as told\n"  # and the overlong past is gone


async def reason_of_loss(pool: EnginePool, word: str) -> str:
    """Why an engine that was told this word was given up; another has taken its place."""
    reports = pool.reports()
    await take(reports, EngineWarm)
    (before,) = pool.health()
    await pool.send("engine-0", row(word))
    lost = (await take(reports, EngineLost))[-1].message
    assert isinstance(lost, EngineLost)
    assert not is_alive(before.pid)
    await take(reports, EngineWarm)
    return lost.reason


@pytest.mark.parametrize(
    ("word", "reason"), [("hang", "no sign of life"), ("garbage", "not a message")]
)
async def test_engine_that_falls_silent_or_talks_nonsense_is_replaced(
    word: str, reason: str
) -> None:
    async with pool_of() as pool:
        assert reason in await reason_of_loss(pool, word)


@pytest.mark.parametrize("word", ["stick", "forget"])
async def test_engine_that_lives_but_makes_no_step_is_replaced(word: str) -> None:
    async with pool_of(pace=replace(QUICK, stuck_s_max=1.5)) as pool:
        reason = await reason_of_loss(pool, word)
        assert "made no step with rows to run for 1.5 s" in reason


async def test_engine_that_never_speaks_is_killed_and_tried_again() -> None:
    mute = (sys.executable, "-c", "import time; time.sleep(1000)")
    pace = Pace(start_s_max=0.3, heartbeat_s=0.05, backoff_s_min=0.01)
    async with pool_of(command=mute, pace=pace) as pool:
        reports = pool.reports()
        for _ in range(2):
            (lost,) = await take(reports, EngineLost)
            assert isinstance(lost.message, EngineLost)
            assert "no sign of life for 0.3 s" in lost.message.reason


async def test_engine_that_cant_be_started_is_tried_with_growing_pauses() -> None:
    pace = Pace(backoff_s_min=0.05, backoff_s_max=0.2)
    loop = asyncio.get_running_loop()
    async with pool_of(command=("/no/such/program",), pace=pace) as pool:
        reports, times = pool.reports(), []
        for _ in range(9):
            (lost,) = await take(reports, EngineLost)
            assert isinstance(lost.message, EngineLost)
            assert lost.message.exit_code is None
            times.append(loop.time())
        pauses = [after - before for before, after in pairwise(times)]
        assert all(got >= least for got, least in zip(pauses, (0.05, 0.1, 0.2, 0.2), strict=False))
        assert max(pauses) < 6.4, "it would be 6.4 if there were no longest"
        (health,) = pool.health()
        assert health.state is EngineState.DEAD
        assert "/no/such/program" in health.reason


async def test_pause_is_short_again_after_a_healthy_time() -> None:
    pace = Pace(backoff_s_min=0.3, backoff_s_max=90.0, healthy_s=0.0)
    async with pool_of(pace=pace) as pool, asyncio.timeout(70):
        reports = pool.reports()
        for _ in range(9):  # doubling, the pauses alone would be 76 s
            await take(reports, EngineWarm)
            await pool.send("engine-0", row("crash"))
            await take(reports, EngineLost)


async def test_model_that_cant_be_loaded_is_left_out_with_its_reason(tmp_path: Path) -> None:
    async with pool_of(models=[model(), model("gone", tmp_path)]) as pool:
        (warm,) = await take(pool.reports(), EngineWarm)
        assert isinstance(warm.message, EngineWarm)
        assert warm.message.models == ("m",)
        (health,) = pool.health()
        assert "model_index.json" in health.models_failed["gone"]
        assert health.reason.startswith("gone: ")


async def test_slow_reader_makes_the_engine_wait_but_not_die(tmp_path: Path) -> None:
    steps = 3 * limits.ENGINE_REPORTS_HELD_MAX
    async with pool_of(log_folder=tmp_path) as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        (before,) = pool.health()
        await pool.send("engine-0", row("preview", steps=steps))
        await asyncio.sleep(3 * QUICK.dead_s)  # real time: the lease is what must not run out
        log = tmp_path / "engine-0.log"
        assert "done" not in log.read_text(), "the engine wasn't made to wait"
        *taken, done = await take(reports, RowDone, EngineLost)
        assert isinstance(done.message, RowDone)
        assert [r.message.step for r in taken if isinstance(r.message, StepDone)] == list(
            range(1, steps + 1)
        )
        assert all(len(r.blob) == PREVIEW_BYTES for r in taken if isinstance(r.message, StepDone))
        assert pool.health()[0].pid == before.pid


async def test_what_is_too_large_for_a_message_costs_its_row_and_not_the_engine() -> None:
    async with pool_of() as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        with pytest.raises(InternalError, match="67,108,865 bytes is over the limit"):
            await pool.send("engine-0", row(), bytes(limits.ENGINE_MESSAGE_BYTES_MAX + 1))
        assert not pool._keepers["engine-0"]._life.rows_owed
        await pool.send("engine-0", row(name="job/2/0"))
        done = (await take(reports, RowDone))[-1].message
        assert isinstance(done, RowDone)
        assert done.row == "job/2/0"


async def test_failed_and_cancelled_rows_are_told_and_not_finished() -> None:
    async with pool_of() as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        await pool.send("engine-0", row("fail", name="again"))
        await pool.send("engine-0", row("fail-for-good", name="never"))
        await pool.send("engine-0", row(name="dropped", steps=100_000))
        failed = [(await take(reports, RowFailed))[-1].message for _ in range(2)]
        assert [getattr(one, "retryable", None) for one in failed] == [True, False]
        await pool.send("engine-0", CancelRow("dropped"))
        await pool.send("engine-0", row(name="after"))
        done = (await take(reports, RowDone))[-1].message
        assert isinstance(done, RowDone)
        assert done.row == "after"


@pytest.mark.parametrize("prompt", ["a long one", "hang", "preview"])
async def test_stop_leaves_no_process_whatever_the_engine_does(prompt: str) -> None:
    pool = EnginePool(engines=2, models=[model()], command=FAKE, pace=QUICK)
    await pool.start()
    reports = pool.reports()
    await take(reports, EngineWarm)
    await take(reports, EngineWarm)
    pids = [health.pid for health in pool.health()]
    for name in ("engine-0", "engine-1"):
        await pool.send(name, row(prompt, steps=100_000))
    await take(reports, StepDone)
    if prompt == "preview":  # nobody reads: the reports fill up, and the engines wait
        await asyncio.sleep(0.5)
    await pool.stop()
    assert [health.state for health in pool.health()] == [EngineState.DEAD] * 2
    assert not any(is_alive(pid) for pid in pids)
    assert [report async for report in reports] == []
    with pytest.raises(EngineDown):
        await pool.send("engine-0", row())
    await pool.stop()


async def test_stop_at_once_after_start_leaves_no_process() -> None:
    pool = EnginePool(engines=2, models=[model()], command=FAKE, pace=QUICK)
    await pool.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await pool.stop()
    assert [health.pid for health in pool.health()] == [None, None]


async def test_unknown_engine_is_down() -> None:
    async with pool_of() as pool:
        with pytest.raises(EngineDown, match="engine-7"):
            await pool.send("engine-7", row())


SERVER = """
import asyncio, os, signal, sys
sys.path.insert(0, {folder!r})
from test_pool import FAKE, EnginePool, EngineWarm, model, take

async def main():
    pool = EnginePool(engines=1, models=[model()], command=FAKE)
    await pool.start()
    await take(pool.reports(), EngineWarm)
    print(pool.health()[0].pid, flush=True)
    if os.fork() == 0:  # a worker that outlives the server
        os.kill(os.getpid(), signal.SIGSTOP)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_engine_ends_with_a_killed_server_even_if_a_forked_child_lives_on() -> None:
    code = SERVER.format(folder=str(Path(__file__).parent))
    command = (sys.executable, "-c", code)
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as server:
        assert server.stdout is not None
        engine = int(server.stdout.readline())
        try:
            assert not has_ended(engine)
            child = Path(f"/proc/{server.pid}/task/{server.pid}/children")
            until(lambda: len(child.read_text().split()) == 2)
            server.kill()
            until(lambda: has_ended(engine))
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # the stopped child


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not is_so():
        assert time.monotonic() < end, "it didn't come about"
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Gone, or a zombie that nobody here reaps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
