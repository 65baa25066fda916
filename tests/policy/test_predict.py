"""What is to be expected: rates that fade, bursts, and the course of a day."""

from __future__ import annotations

import random

import pytest

from calotype.core.events import ModelKnown
from calotype.core.nouns import Component
from calotype.policy.predict import Foresight
from calotype.policy.rates import Rates

HOUR_S, DAY_S = 3_600.0, 86_400.0


def fed(every_s: float, until: float, model: str = "m") -> Rates:
    rates, now = Rates(), 0.0
    while now < until:
        rates.asked(model, "ann", now)
        now += every_s
    return rates


def test_steady_arrivals_are_expected_as_often_as_they_come() -> None:
    assert fed(100.0, 2 * DAY_S).rate("m", 2 * DAY_S) == pytest.approx(1 / 100, rel=0.3)
    assert fed(100.0, HOUR_S).rate("m", HOUR_S) == pytest.approx(1 / 100, rel=0.3), "no history"


def test_what_was_never_asked_for_is_not_expected() -> None:
    assert Rates().rate("m", 10.0) == 0.0
    assert fed(100.0, HOUR_S).rate("other", HOUR_S) == 0.0


def test_a_burst_is_expected_to_go_on_and_then_fades() -> None:
    rates = fed(3_600.0, 3 * DAY_S)
    now = 3 * DAY_S
    before = rates.rate("m", now)
    for at in range(20):
        rates.asked("m", "ann", now + at)
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
        rates.asked(model, "ann", at)
    at_nine, at_midnight = 6 * DAY_S + 9.5 * HOUR_S, 6 * DAY_S + 0.5 * HOUR_S
    assert rates.rate("m", at_nine) > 3 * rates.rate("m", at_midnight)
    assert rates.rate("x", at_nine) < 3 * rates.rate("x", at_midnight)


def test_somebody_is_expected_to_stay_with_their_model() -> None:
    """Twenty people each have a model; a new one is asked for by one of them, or by a stranger."""

    def after(who: str) -> float:
        rates, now = Rates(), 0.0
        for at in range(1_000):
            now += 30.0
            rates.asked(f"m{at % 20}", f"p{at % 20}", now)
        rates.asked("new", who, now)
        return rates.rate("new", now + 3_600.0)

    assert after("p0") > 2 * after("stranger")


def test_where_popularity_is_steady_long_memories_are_believed_and_in_a_craze_short_ones() -> None:
    noise = random.Random(3)
    steady, craze, now = Rates(), Rates(), 0.0
    for at in range(4_000):
        now += 60.0
        steady.asked(f"m{noise.randrange(10)}", f"p{noise.randrange(1000)}", now)
        craze.asked(f"m{at // 200}", f"p{noise.randrange(1000)}", now)
    short, long = slice(0, 2), slice(3, 5)
    assert sum(steady.believed[long]) > 2 * sum(steady.believed[short])
    assert sum(craze.believed[short]) > 2 * sum(craze.believed[long])
    assert sum(steady.believed) == pytest.approx(1.0)
    assert min(craze.believed) > 0.01, "traffic that changes is followed again"


def test_a_model_that_is_forgotten_leaves_the_shares_of_others_whole() -> None:
    rates, now = Rates(), 0.0
    for at in range(2_000):  # long enough for the short memories to be written down anew
        now += 60.0
        rates.asked(f"m{at % 4}", f"p{at % 7}", now)
    whole = sum(rates.rate(f"m{at}", now) for at in range(4))
    assert whole == pytest.approx(1 / 60, rel=0.3)
    rates.forget("m0")
    assert rates.rate("m0", now) == 0.0
    assert sum(rates.rate(f"m{at}", now) for at in range(1, 4)) == pytest.approx(whole, rel=0.05)


def test_people_who_are_not_remembered_any_more_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("calotype.policy.rates.PEOPLE_REMEMBERED_MAX", 3)
    rates = Rates()
    for person in range(100):
        rates.asked(f"m{person}", f"p{person}", float(person))
    assert rates.rate("m99", 100.0) > rates.rate("m50", 100.0)


def needs(model: str, size: int, load_s: float) -> ModelKnown:
    return ModelKnown(model, (Component(model, "base", size),), load_s)


def test_a_model_is_worth_more_if_it_is_asked_for_more_loads_slower_or_is_smaller() -> None:
    mine = Foresight()
    for at in range(100):
        mine.asked("often" if at % 4 else "seldom", "ann", 1.0, 60.0 * at)
    now = 6_000.0
    often, seldom = needs("often", 10, 10.0), needs("seldom", 10, 10.0)
    assert mine.worth(often, 1, now) > mine.worth(seldom, 1, now)
    assert mine.worth(often, 9, now) < mine.worth(seldom, 1, now), "one home of nine"
    assert mine.worth(needs("often", 10, 20.0), 1, now) > mine.worth(often, 1, now)
    assert mine.worth(needs("often", 5, 10.0), 1, now) > mine.worth(often, 1, now)
    never = mine.worth(needs("never", 10, 10.0), 1, now)
    assert never < mine.worth(seldom, 1, now)
