"""An engine is slow when several jobs in a row took several times what they should."""

from __future__ import annotations

from calotype.core import limits
from calotype.policy.slowness import Slowness

DEAR = limits.SLOW_FACTOR * 1.01


def test_engine_is_slow_after_three_dear_jobs_in_a_row_and_told_once() -> None:
    slowness = Slowness()
    told = [slowness.ran("e0", 1.0, DEAR, at) for at in (0.0, 1.0, 2.0, 3.0)]
    assert told == [False, False, True, False]


def test_job_in_time_between_them_clears_it() -> None:
    slowness = Slowness()
    costs = [DEAR, DEAR, limits.SLOW_FACTOR, DEAR, DEAR]
    assert not any(slowness.ran("e0", 1.0, cost, 0.0) for cost in costs)


def test_jobs_of_a_moment_say_nothing() -> None:
    slowness = Slowness()
    assert not any(slowness.ran("e0", 0.1, 1.1, 0.0) for _ in range(5))
    assert [slowness.ran("e0", 0.1, 1.2, 0.0) for _ in range(3)] == [False, False, True]


def test_engines_are_judged_each_by_its_own_jobs() -> None:
    slowness = Slowness()
    for _ in range(2):
        assert not slowness.ran("e0", 1.0, DEAR, 0.0)
        assert not slowness.ran("e1", 1.0, DEAR, 0.0)
    assert slowness.ran("e0", 1.0, DEAR, 0.0)


def test_new_process_begins_with_nothing_against_it_and_is_left_alone_for_a_while() -> None:
    slowness = Slowness()
    assert [slowness.ran("e0", 1.0, DEAR, 0.0) for _ in range(3)] == [False, False, True]
    slowness.began("e0")
    later = limits.SLOW_AGAIN_S
    assert not any(slowness.ran("e0", 1.0, DEAR, later - 1.0) for _ in range(5))
    assert slowness.ran("e0", 1.0, DEAR, later)
