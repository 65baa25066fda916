"""Loads that fail, jobs that failed, and engines that leave: what is loaded elsewhere, and when."""

from __future__ import annotations

import pytest

from calotype.core.decisions import LoadModel
from calotype.core.events import (
    AttemptFailed,
    EngineGone,
    EnginePaused,
    EngineResumed,
    ModelWarmed,
)
from calotype.core.limits import (
    BREAKER_FAILURES_MAX,
    BREAKER_OPEN_S_MIN,
)
from calotype.policy.kinds import Kind
from tests.policy.fleet import queued
from tests.policy.test_loads import M, X, loaded
from tests.policy.warm import Pool, by_engine, needs


def test_a_load_that_failed_is_tried_on_another_engine_and_rests_after_some_failures() -> None:
    pool = Pool(M)
    pool.up("e0")
    pool.failing.add(("e0", "m"))
    pool.tell(queued("a"))
    pool.run(100.0)
    failed_at = BREAKER_FAILURES_MAX * 10.0
    assert len(pool.loads) >= BREAKER_FAILURES_MAX
    assert pool.line.trouble("m") == "no such file"
    pool.up("e1")
    assert pool.loads[-1].engine == "e1"
    pool.run(pool.now + 12.0)
    assert pool.started_at["a"] == pytest.approx(110.0)
    assert pool.line.trouble("m") == ""
    retried = [load for load in pool.loads if load.engine == "e0"]
    assert len(retried) <= BREAKER_FAILURES_MAX + (100.0 - failed_at) / BREAKER_OPEN_S_MIN


def test_a_load_is_tried_again_when_it_has_rested() -> None:
    pool = Pool(M)
    pool.up("e0")
    pool.failing.add(("e0", "m"))
    pool.tell(queued("a"))
    pool.run(40.0)
    pool.failing.clear()
    pool.run()
    assert pool.started_at["a"] == pytest.approx(3 * 10.0 + BREAKER_OPEN_S_MIN + 10.0)


def test_a_job_that_failed_has_its_model_loaded_elsewhere() -> None:
    pool = Pool(M)
    pool.up("e0", models=("m",))
    pool.up("e1")
    pool.tell(queued("a"))
    del pool.running["a"]
    decisions = pool.tell(AttemptFailed("a", "no memory", is_retryable=True))
    assert decisions[1:] == [LoadModel("e1", "m", load_s=10.0)]
    pool.run()
    assert by_engine(pool.loads) == {"e1": ["m"]}
    assert not pool.jobs


def failed_on_the_only_one_that_can_load_it() -> Pool:
    """Two engines: a job failed on the first, and the second couldn't load its model."""
    pool = Pool(needs("m"))
    pool.up("e0", models=("m",))
    pool.failing.add(("e1", "m"))
    pool.up("e1")
    pool.tell(queued("j", model="m"))
    assert pool.running == {"j": "e0"}
    pool.running.clear()
    pool.tell(AttemptFailed("j", "out of memory", is_retryable=True))
    assert pool.running == {}, "the other one is tried first"
    pool.run(until=10.0)
    return pool


def test_a_job_that_failed_goes_back_where_no_other_engine_can_load_its_model() -> None:
    """Where it failed it may still succeed; the other would keep it waiting for ever."""
    pool = failed_on_the_only_one_that_can_load_it()
    assert [load.engine for load in pool.loads] == ["e1"]
    assert pool.running == {"j": "e0"}


def test_an_engine_that_can_load_it_after_all_is_one_to_wait_for_again() -> None:
    pool = failed_on_the_only_one_that_can_load_it()
    pool.failing.clear()
    kind = Kind("m", avoid=("e0",))
    assert pool.line._fleet.in_force(kind) == Kind("m")
    pool.tell(ModelWarmed("e1", "m"))
    assert pool.line._fleet.in_force(kind) == kind


def test_a_paused_engine_is_told_to_load_nothing_and_what_it_has_is_loaded_elsewhere() -> None:
    pool = Pool(M)
    pool.up("e0", models=("m",))
    pool.up("e1")
    pool.tell(EnginePaused("e0"))
    pool.tell(queued("a"))
    assert loaded(pool) == [("e1", "m", ())]
    pool.tell(EngineResumed("e0"))
    assert pool.running == {"a": "e0"}


def test_a_load_is_begun_anew_elsewhere_when_its_engine_is_gone() -> None:
    pool = Pool(M)
    pool.up("e0")
    pool.up("e1")
    pool.tell(queued("a"))
    pool.loading.clear()
    pool._ends.clear()
    assert pool.tell(EngineGone("e0")) == [LoadModel("e1", "m", load_s=10.0)]


def test_needs_that_are_known_better_correct_the_ledger() -> None:
    pool = Pool(M, X)
    pool.up(budget=20, models=("m",))
    pool.known["m"] = needs("m", 15)
    pool.tell(pool.known["m"])
    pool.tell(queued("a", model="x"))
    assert loaded(pool) == [("e0", "x", ("m",))]
