"""When an engine that shows life is stuck: by what it holds, and by what came of it."""

from __future__ import annotations

from dataclasses import replace

from calotype.core import limits
from calotype.core.messages import (
    CancelRow,
    EngineReady,
    Heartbeat,
    LoadModel,
    LoadProgress,
    ModelLoaded,
)
from calotype.pool.launch import Life, Pace
from tests.rooms.test_pool import row

LIVES = Life(ready_at=0.0, has_spoken=True)


def test_engine_with_nothing_to_do_or_with_steps_to_show_is_never_stuck() -> None:
    life = replace(LIVES, rows_owed={})
    for now in range(1_000):  # idle
        life.heard(Heartbeat(0, 0), now)
    life.sent(row(name="r"), 1_000)
    for now in range(1_000, 2_000, 100):  # a step now and then
        for beat in range(100):
            life.heard(Heartbeat(1, now // 100), now + beat)
            assert not life.overdue(now + beat, Pace())
    life.sent(CancelRow("r"), 2_000)
    life.heard(Heartbeat(0, 20), 2_000)
    life.heard(Heartbeat(0, 20), 5_000)
    assert not life.overdue(5_000, Pace())


def test_engine_is_stuck_with_a_row_it_holds_or_one_it_never_answered() -> None:
    for held in (1, 0):
        life = replace(LIVES, rows_owed={})
        life.sent(row(), 0.0)
        for now in range(int(limits.ENGINE_STUCK_S_MAX) + 2):
            assert not life.overdue(now - 1.0, Pace())
            life.heard(Heartbeat(held, 0), now)
        assert "stuck" in life.overdue(now, Pace())


def test_engine_that_loads_for_ever_is_stuck_but_a_long_load_is_not() -> None:
    life = Life()
    late_s = limits.ENGINE_LOAD_S_MAX + 1
    life.heard(EngineReady(1, "cpu", "none"), 1.0)
    life.heard(Heartbeat(0, 0), late_s)
    assert not life.overdue(late_s, Pace())
    life.heard(Heartbeat(0, 0), late_s + 1)
    assert "loaded no model" in life.overdue(late_s + 1, Pace())
    life.heard(ModelLoaded("m", 1.0, 1, (2,)), late_s + 2)
    assert not life.overdue(late_s + 2, Pace())


def test_a_load_that_hangs_is_noticed_though_rows_step_beside_it() -> None:
    life = replace(LIVES, rows_owed={})
    life.sent(row(), 0.0)
    life.sent(LoadModel("other", "/nowhere", "build"), 0.0)
    for now in range(0, int(limits.ENGINE_LOAD_S_MAX) + 1, 10):
        life.heard(Heartbeat(1, now), now)
        assert not life.overdue(now, Pace())
    late_s = limits.ENGINE_LOAD_S_MAX + 1
    life.heard(Heartbeat(1, 10_000), late_s)
    assert "loaded no model" in life.overdue(late_s, Pace())
    life.heard(LoadProgress("other", 1, 2), late_s)
    assert not life.overdue(late_s, Pace()), "it gets on"


def test_rows_that_are_stuck_are_noticed_though_a_model_is_being_loaded() -> None:
    life = replace(LIVES, rows_owed={})
    life.sent(LoadModel("other", "/nowhere", "build"), 0.0)
    life.sent(row(), 0.0)
    stuck_s = limits.ENGINE_STUCK_S_MAX + 1
    life.heard(LoadProgress("other", 1, 2), stuck_s)
    life.heard(Heartbeat(1, 0), stuck_s)
    assert "made no step" in life.overdue(stuck_s, Pace())


def test_rows_that_wait_for_a_load_are_not_stuck_meanwhile_but_may_be_afterwards() -> None:
    life = replace(LIVES, rows_owed={})
    life.sent(LoadModel("m", "/nowhere", "build"), 0.0)
    life.sent(row(), 0.0)
    loaded_s = limits.ENGINE_STUCK_S_MAX + 50
    life.heard(Heartbeat(1, 0), loaded_s)
    assert not life.overdue(loaded_s, Pace())
    life.heard(ModelLoaded("m", 1.0, 1, (2,)), loaded_s)
    assert not life.overdue(loaded_s, Pace())
    stuck_s = loaded_s + limits.ENGINE_STUCK_S_MAX + 1
    life.heard(Heartbeat(1, 0), stuck_s)
    assert "made no step" in life.overdue(stuck_s, Pace())


def test_a_load_that_proves_its_sizes_gets_on_where_no_row_steps() -> None:
    life = replace(LIVES, rows_owed={})
    life.sent(LoadModel("other", "/nowhere", "build"), 0.0)
    for now in range(0, 3 * int(limits.ENGINE_LOAD_S_MAX), 100):
        life.heard(Heartbeat(0, now), now)
        assert not life.overdue(now, Pace())
