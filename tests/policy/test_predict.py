"""What is to be expected: rates that fade, bursts, and the course of a day."""

from __future__ import annotations

import random

import pytest

from calotype.core.events import ModelKnown
from calotype.core.nouns import Component
from calotype.policy.predict import Foresight, Rates

HOUR_S, DAY_S = 3_600.0, 86_400.0


def fed(every_s: float, until: float, model: str = "m") -> Rates:
    rates, now = Rates(), 0.0
    while now < until:
        rates.asked(model, 1.0, now)
        now += every_s
    return rates


def test_steady_arrivals_are_expected_as_often_as_they_come() -> None:
    assert fed(100.0, 2 * DAY_S).rate("m", 2 * DAY_S) == pytest.approx(1 / 100, rel=0.3)
    assert fed(100.0, HOUR_S).rate("m", HOUR_S) == pytest.approx(1 / 100, rel=0.3), "no history"


def test_what_was_never_asked_for_is_not_expected() -> None:
    assert Rates().rate("m", 10.0) == 0.0
    assert fed(100.0, HOUR_S).rate("other", HOUR_S) == 0.0
    assert Rates().last("m") == float("-inf")


def test_a_burst_is_expected_to_go_on_and_then_fades() -> None:
    rates = fed(3_600.0, 3 * DAY_S)
    now = 3 * DAY_S
    before = rates.rate("m", now)
    for at in range(20):
        rates.asked("m", 1.0, now + at)
    during, later = rates.rate("m", now + 20), rates.rate("m", now + 6 * HOUR_S)
    assert during > 10 * before
    assert before < later < during / 5
    assert rates.rate("m", now + 30 * DAY_S) < before / 2


def test_the_hour_in_which_a_model_is_asked_for_each_day_is_known() -> None:
    noise, rates = random.Random(1), Rates()
    asked = []
    for day in range(6):
        asked += [((day * 24 + 9) * HOUR_S + noise.random() * HOUR_S, "m") for _ in range(20)]
        asked += [(day * DAY_S + noise.random() * DAY_S, "x") for _ in range(100)]
    for at, model in sorted(asked):
        rates.asked(model, 1.0, at)
    at_nine, at_midnight = 6 * DAY_S + 9.5 * HOUR_S, 6 * DAY_S + 0.5 * HOUR_S
    assert rates.rate("m", at_nine) > 3 * rates.rate("m", at_midnight)
    assert rates.rate("x", at_nine) < 3 * rates.rate("x", at_midnight)


def needs(model: str, size: int, load_s: float) -> ModelKnown:
    return ModelKnown(model, (Component(model, "base", size),), load_s)


def test_a_model_is_worth_more_if_it_is_asked_for_more_loads_slower_or_is_smaller() -> None:
    mine = Foresight()
    for at in range(100):
        mine.asked("often" if at % 4 else "seldom", 1.0, 60.0 * at)
    now = 6_000.0
    often, seldom = needs("often", 10, 10.0), needs("seldom", 10, 10.0)
    assert mine.worth(often, 1, now) > mine.worth(seldom, 1, now)
    assert mine.worth(often, 9, now) < mine.worth(seldom, 1, now), "one home of nine"
    assert mine.worth(needs("often", 10, 20.0), 1, now) > mine.worth(often, 1, now)
    assert mine.worth(needs("often", 5, 10.0), 1, now) > mine.worth(often, 1, now)
    never = mine.worth(needs("never", 10, 10.0), 1, now)
    assert never < mine.worth(seldom, 1, now)
