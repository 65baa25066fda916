"""Engines that are given nothing more, models that come later, and starts that are bounded."""

from __future__ import annotations

from calotype.core.decisions import RequeueJob, StartAttempt
from calotype.core.events import (
    AttemptFailed,
    EngineGone,
    EnginePaused,
    EngineResumed,
    EngineUp,
    JobSettled,
    ModelWarmed,
    StartsBounded,
)
from tests.policy.fleet import Fleet, queued


def test_paused_engine_keeps_what_it_runs_and_is_given_nothing_more() -> None:
    fleet = Fleet()
    fleet.up(rows_max=2)
    fleet.feed(queued("a"))
    assert fleet.feed(EnginePaused("e0")) == []
    assert fleet.feed(queued("b")) == []
    assert fleet.feed(JobSettled("a", 1.0)) == [], "it has room, but it is paused"
    assert fleet.feed(EngineResumed("e0")) == [StartAttempt("b", "e0")]


def test_while_one_is_paused_the_others_take_the_jobs() -> None:
    fleet = Fleet()
    fleet.up("e0")
    fleet.up("e1")
    fleet.feed(EnginePaused("e0"))
    assert fleet.feed(queued("a")) == [StartAttempt("a", "e1")]


def test_job_that_failed_elsewhere_does_not_wait_for_a_paused_engine() -> None:
    fleet = Fleet()
    fleet.up("e0")
    fleet.up("e1")
    fleet.feed(EnginePaused("e1"))
    fleet.feed(queued("a"))
    decisions = fleet.feed(AttemptFailed("a", "out of memory", is_retryable=True))
    assert decisions == [RequeueJob("a", "out of memory"), StartAttempt("a", "e0")]


def test_paused_engine_that_dies_loses_its_jobs_and_comes_back_open() -> None:
    fleet = Fleet()
    fleet.up("e0")
    fleet.feed(queued("a"))
    fleet.feed(EnginePaused("e0"))
    [requeued] = fleet.feed(EngineGone("e0", "it gave no sign of life"))
    assert isinstance(requeued, RequeueJob)
    assert fleet.feed(EngineUp("e0", ("m",), 1)) == [StartAttempt("a", "e0")]


def test_word_of_an_engine_that_is_not_there_changes_nothing() -> None:
    fleet = Fleet()
    for event in (EnginePaused("e7"), EngineResumed("e7"), ModelWarmed("e7", "m")):
        assert fleet.feed(event) == []


def test_model_that_came_later_starts_the_jobs_that_waited_for_it_and_loses_none() -> None:
    fleet = Fleet()
    fleet.up(models=("m",), rows_max=4)
    fleet.feed(queued("a"))
    fleet.feed(queued("late", model="x"))
    assert fleet.feed(ModelWarmed("e0", "x")) == [StartAttempt("late", "e0")]
    assert fleet.feed(ModelWarmed("e0", "x")) == []
    assert fleet.running.keys() == {"a", "late"}


def test_model_that_came_later_is_found_on_a_fleet_of_many() -> None:
    fleet = Fleet()
    for at in range(8):
        fleet.up(f"e{at}", models=("m",), rows_max=2)
    fleet.feed(queued("late", model="x"))
    assert fleet.feed(ModelWarmed("e5", "x")) == [StartAttempt("late", "e5")]


def test_bounded_starts_run_so_many_at_once_and_all_go_on_when_the_bound_is_lifted() -> None:
    fleet = Fleet()
    fleet.feed(StartsBounded(0))
    fleet.up(rows_max=4)
    for name in ("a", "b", "c"):
        assert fleet.feed(queued(name)) == []
    assert fleet.feed(StartsBounded(1)) == [StartAttempt("a", "e0")]
    assert fleet.feed(JobSettled("a", 1.0)) == [StartAttempt("b", "e0")]
    assert fleet.feed(StartsBounded(None)) == [StartAttempt("c", "e0")]
