"""Breakers: when something that failed is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core.errors import IllegalMove
from calotype.core.limits import (
    BREAKER_FAILURES_MAX,
    BREAKER_OPEN_S_MAX,
    BREAKER_OPEN_S_MIN,
    BREAKER_PROBE_S_MAX,
    BREAKERS_KEPT_MAX,
)
from calotype.core.states import BREAKER_MOVES, BreakerState, move
from calotype.policy.breaker import Breakers, check, load

LOAD = load("gpu0", "unet")


def opened(now: float = 0.0) -> Breakers:
    breakers = Breakers()
    for _ in range(BREAKER_FAILURES_MAX):
        breakers.failed(LOAD, "no memory", now)
    assert breakers.state(LOAD) is BreakerState.OPEN
    return breakers


def test_failures_in_a_row_open_it_and_say_why() -> None:
    breakers = Breakers()
    for _ in range(BREAKER_FAILURES_MAX - 1):
        assert breakers.failed(LOAD, "no memory", 5.0) is None
    moved = breakers.failed(LOAD, "no memory", 5.0)
    assert moved is not None
    assert (moved.before, moved.after) == (BreakerState.CLOSED, BreakerState.OPEN)
    assert (moved.reason, moved.retry_at) == ("no memory", 5.0 + BREAKER_OPEN_S_MIN)
    assert breakers.reason(LOAD) == "no memory"


def test_a_success_between_failures_starts_the_count_again() -> None:
    breakers = Breakers()
    for _ in range(10):
        breakers.failed(LOAD, "no memory", 0.0)
        breakers.succeeded(LOAD)
    assert breakers.state(LOAD) is BreakerState.CLOSED


def test_each_device_component_and_check_has_its_own() -> None:
    breakers = opened()
    for other in (load("gpu1", "unet"), load("gpu0", "vae"), check("unet")):
        assert breakers.may_try(other, 0.0)
    assert not breakers.may_try(LOAD, 0.0)


def test_one_try_is_let_through_when_the_time_has_come_and_closes_it() -> None:
    breakers = opened()
    assert not breakers.may_try(LOAD, BREAKER_OPEN_S_MIN - 0.1)
    assert breakers.may_try(LOAD, BREAKER_OPEN_S_MIN)
    assert not breakers.may_try(LOAD, BREAKER_OPEN_S_MIN), "one is under way"
    moved = breakers.succeeded(LOAD)
    assert moved is not None
    assert moved.after is BreakerState.CLOSED
    assert breakers.may_try(LOAD, BREAKER_OPEN_S_MIN)


def test_a_failed_try_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    breakers, now, waits = opened(), 0.0, []
    for _ in range(8):
        retry_at = breakers.retry_at(LOAD)
        assert retry_at is not None
        waits.append(retry_at - now)
        now = retry_at
        assert breakers.may_try(LOAD, now)
        breakers.failed(LOAD, "no memory", now)
    assert waits[:3] == [BREAKER_OPEN_S_MIN, 2 * BREAKER_OPEN_S_MIN, 4 * BREAKER_OPEN_S_MIN]
    assert waits[-1] == BREAKER_OPEN_S_MAX


def test_a_try_that_says_nothing_counts_as_failed() -> None:
    breakers = opened()
    assert breakers.may_try(LOAD, 100.0)
    silent = 100.0 + BREAKER_PROBE_S_MAX
    assert not breakers.may_try(LOAD, silent)
    assert breakers.state(LOAD) is BreakerState.OPEN
    assert breakers.retry_at(LOAD) == silent + 2 * BREAKER_OPEN_S_MIN


def test_late_words_while_it_is_open_change_nothing() -> None:
    breakers = opened()
    assert breakers.succeeded(LOAD) is None
    assert breakers.failed(LOAD, "late", 1.0) is None
    assert breakers.state(LOAD) is BreakerState.OPEN
    assert breakers.reason(LOAD) == "no memory"


def test_a_move_that_is_not_in_the_table_raises() -> None:
    with pytest.raises(IllegalMove):
        move(BREAKER_MOVES, BreakerState.OPEN, BreakerState.CLOSED)


def test_what_it_remembers_is_bounded() -> None:
    breakers = Breakers()
    for at in range(BREAKERS_KEPT_MAX + 5):
        breakers.failed(load("gpu0", f"c{at}"), "no", 0.0)
    assert breakers.reason(load("gpu0", "c0")) == ""
    assert breakers.reason(load("gpu0", f"c{BREAKERS_KEPT_MAX}")) == "no"


@given(st.lists(st.tuples(st.sampled_from(["try", "fail", "succeed"]), st.floats(0, 900))))
def test_it_never_lets_two_tries_through_at_once_unless_it_is_closed(
    moves: list[tuple[str, float]],
) -> None:
    breakers, now, under_way_until = opened(), 0.0, 0.0
    for what, after_s in moves:
        now += after_s
        before = breakers.state(LOAD)
        if what == "try" and breakers.may_try(LOAD, now) and before is not BreakerState.CLOSED:
            assert now >= under_way_until
            under_way_until = now + BREAKER_PROBE_S_MAX
        elif what == "fail":
            moved = breakers.failed(LOAD, "no", now)
            under_way_until = now if moved else under_way_until
        elif what == "succeed" and breakers.succeeded(LOAD):
            under_way_until = now
