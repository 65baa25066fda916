"""Signs of life, suspicion, draining, and models that can't be loaded, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core.errors import IllegalMove
from calotype.core.messages import CancelRow, Heartbeat, RowDone, StepDone
from calotype.core.states import ENGINE_MOVES, EngineState, move
from calotype.pool.launch import Life, Pace
from calotype.pool.loading import Loading
from calotype.pool.pool import EnginePool
from calotype.pool.reports import (
    EngineBack,
    EngineLost,
    EngineSuspect,
    EngineWarm,
    Measured,
    ModelWarm,
)
from tests.rooms.test_pool import QUICK, is_alive, model, pool_of, row, take


def pid_of(pool: EnginePool) -> int:
    (health,) = pool.health()
    assert health.pid is not None
    return health.pid


async def test_stopped_engine_is_suspect_then_dead_by_its_process_id() -> None:
    async with pool_of() as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        pid = pid_of(pool)
        await pool.send("engine-0", row(steps=100_000))
        await take(reports, StepDone)
        os.kill(pid, signal.SIGSTOP)
        suspect = (await take(reports, EngineSuspect))[-1].message
        assert isinstance(suspect, EngineSuspect)
        assert "no sign of life for 0.8 s" in suspect.reason
        (health,) = pool.health()
        assert (health.state, health.reason) == (EngineState.SUSPECT, suspect.reason)
        async with asyncio.timeout(30):  # it reads nothing, and holds nobody up
            for at in range(50):
                await pool.send("engine-0", row(name="x" * 10_000 + str(at)))
                await pool.send("engine-0", CancelRow(str(at)))
        lost = (await take(reports, EngineLost))[-1].message
        assert isinstance(lost, EngineLost)
        assert lost.exit_code == -signal.SIGKILL
        assert "no sign of life for 1.2 s" in lost.reason
        assert not is_alive(pid), "there is nothing left to go on"
        await take(reports, EngineWarm)


async def test_suspect_engine_that_goes_on_is_back_with_its_rows() -> None:
    async with pool_of(pace=replace(QUICK, heartbeat_s=0.8)) as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        pid = pid_of(pool)
        await pool.send("engine-0", row(steps=300))
        await take(reports, StepDone)
        os.kill(pid, signal.SIGSTOP)
        await take(reports, EngineSuspect)
        os.kill(pid, signal.SIGCONT)
        *_, back = await take(reports, EngineBack, EngineLost)
        assert isinstance(back.message, EngineBack)
        assert pool.health()[0].state is EngineState.READY
        await take(reports, RowDone)
        assert pid_of(pool) == pid


async def test_idle_engine_gives_signs_of_life_and_is_never_suspect() -> None:
    pace = replace(QUICK, heartbeat_s=1.0)
    async with pool_of(pace=pace) as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        await asyncio.sleep(1.5 * pace.dead_s)
        assert pool.health()[0].state is EngineState.READY
        await pool.send("engine-0", row())
        taken = await take(reports, RowDone)
        assert not any(isinstance(one.message, EngineSuspect) for one in taken)


@pytest.mark.parametrize("silent_s", [0.0, 19.9, 20.1, 29.9, 30.1])
def test_two_heartbeats_missed_are_suspect_and_three_are_death(silent_s: float) -> None:
    life = Life(ready_at=0.0)
    life.heard(Heartbeat(0, 0), 0.0)
    assert life.is_silent(silent_s, Pace()) is (silent_s > 20)
    assert bool(life.overdue(silent_s, Pace())) is (silent_s > 30)


def test_engine_in_suspicion_is_not_drained_and_one_that_drains_never_ready_again() -> None:
    for before, after in (
        (EngineState.SUSPECT, EngineState.DRAINING),
        (EngineState.DRAINING, EngineState.READY),
    ):
        with pytest.raises(IllegalMove):
            move(ENGINE_MOVES, before, after)


async def test_drained_engine_finishes_its_rows_and_is_begun_anew_when_told() -> None:
    async with pool_of() as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        pid = pid_of(pool)
        await pool.send("engine-0", row(steps=50))
        assert pool.drain("engine-0", "it is slow")
        assert not pool.drain("engine-0", "twice")
        assert pool.health()[0].state is EngineState.DRAINING
        *_, done = await take(reports, RowDone, EngineLost)
        assert isinstance(done.message, RowDone)
        assert pid_of(pool) == pid
        pool.restart("engine-0")
        lost = (await take(reports, EngineLost))[-1].message
        assert isinstance(lost, EngineLost)
        assert lost.exit_code == 0, "it was told to stop"
        assert "begun anew: it is slow" in lost.reason
        await take(reports, EngineWarm)
        assert pid_of(pool) != pid
        pool.restart("engine-0")  # not draining: left alone
        await pool.send("engine-0", row())
        await take(reports, RowDone)


# Loading.


def folder(at: Path, *files: str) -> Path:
    at.mkdir()
    for file in files:
        (at / file).write_text("{}")
    return at


async def test_model_that_kills_its_engine_is_left_out_before_long(tmp_path: Path) -> None:
    killer = model("killer", folder(tmp_path / "killer", "model_index.json", "crash"))
    async with pool_of(models=[killer, model()]) as pool:
        taken = await take(pool.reports(), EngineWarm)
        assert [type(one.message) for one in taken] == [EngineLost] * 3 + [EngineWarm]
        warm = taken[-1].message
        assert isinstance(warm, EngineWarm)
        assert warm.models == ("m",)
        (health,) = pool.health()
        assert "the engine ended while it loaded it" in health.models_failed["killer"]
        assert "not tried again for a while" in health.models_failed["killer"]
        assert "killer" in health.reason


async def test_model_that_can_be_loaded_later_becomes_warm_beside_running_rows(
    tmp_path: Path,
) -> None:
    place = folder(tmp_path / "late")
    async with pool_of(models=[model(), model("late", place)]) as pool:
        reports = pool.reports()
        await take(reports, EngineWarm)
        assert "late" in pool.health()[0].models_failed
        (place / "model_index.json").write_text("{}")
        warmed = (await take(reports, ModelWarm))[-1].message
        assert warmed == ModelWarm("late", None, Measured("late", 0.0, 0, 0))
        (health,) = pool.health()
        assert (health.models, dict(health.models_failed)) == (("m", "late"), {})


def tried(loading: Loading, now: float, *, again: bool = False) -> str | None:
    found = loading.next(now, again=again)
    return found.model.name if found else None


def test_loads_go_one_at_a_time_and_rest_after_three_failures() -> None:
    loading = Loading("engine-0", [model("a"), model("b")])
    assert tried(loading, 0.0) == "a"
    assert tried(loading, 0.0) is None, "it isn't answered yet"
    loading.refused("a", "damaged", 0.0)
    assert tried(loading, 0.0) == "b"
    loading.loaded("b")
    assert loading.is_over
    assert tried(loading, 1.0) is None
    for at in (1.0, 2.0):
        assert tried(loading, at, again=True) == "a"
        loading.refused("a", "damaged", at)
    assert tried(loading, 3.0, again=True) is None
    assert "not tried again for a while" in loading.failed["a"]
    loading.begin()  # another process: the breaker is still open
    assert tried(loading, 4.0) == "b"
    assert loading.failed["a"].startswith("damaged")
    loading.loaded("b")
    assert tried(loading, 33.0, again=True) == "a", "half open: one try"
    loading.refused("a", "damaged", 33.0)
    assert tried(loading, 70.0, again=True) is None, "twice as long this time"
    assert tried(loading, 94.0, again=True) == "a"
    loading.loaded("a")
    assert loading.failed == {}
