"""Which models the next jobs will be for, and how many jobs a second.

Several predictors each say what share of the jobs to come is a model's: what was asked for within
the last minute or two, quarter of an hour, hours, days and month; at this hour of the day; and what
the people who are at it asked for last. How far each is believed is learnt: every job is taken to
have come from one of them, and the likelier one made it, the more is it believed from then on (a
mixture whose weights follow the jobs one by one: Cappe and Moulines, "On-line
expectation-maximization algorithm for latent data models", 2009). None falls below a floor, so that
traffic that changes is followed again (as in Herbster and Warmuth, "Tracking the Best Expert",
1998). Where popularity is steady the long memories win, where one model is a craze the short ones.

Times are seconds of the line's clock: a day is 86,400 of them and its hours are counted from the
clock's zero, wherever in the day that was. So a day's course is forgotten by a clock that starts
anew. A job costs a handful of multiplications; what is kept is bounded by models and by
``PEOPLE_REMEMBERED_MAX``.
"""

from __future__ import annotations

from collections import OrderedDict
from math import exp
from typing import Protocol

from calotype.core.limits import PEOPLE_REMEMBERED_MAX

_HOUR_S, _DAY_S = 3_600.0, 86_400.0
_HOURS, _WEEK_S = 24, 7 * _DAY_S
DAYS_KNOWN_S = 2 * _DAY_S  # before that nothing is known of a day's course
_LEARNING = 0.003  # how far one job moves what is believed: some hundreds count
_FLOOR = 0.02  # of belief, for each predictor
_ANEW = 100.0  # times over what it fades in, weights are written down anew: floats have an end


class Hours:
    """Jobs by hour of the day, fading over a week."""

    __slots__ = ("_counts", "_faded_at")

    def __init__(self, now: float) -> None:
        self._counts, self._faded_at = [0.0] * _HOURS, now

    def note(self, now: float) -> None:
        """A job came."""
        if now - self._faded_at >= _HOUR_S:
            fading = exp((self._faded_at - now) / _WEEK_S)
            self._counts = [count * fading for count in self._counts]
            self._faded_at = now
        self._counts[hour_of(now)] += 1.0

    def share(self, at: float) -> float:
        """Of a day's jobs, those that come in the hour of that time; by nothing seen, 1/24."""
        return (self._counts[hour_of(at)] + 1.0) / (sum(self._counts) + _HOURS)


def hour_of(at: float) -> int:
    """Of the day, 0..23."""
    return int(at / _HOUR_S) % _HOURS


class _Predictor(Protocol):
    """Says whose the next job is."""

    def asked(self, model: str, who: str, now: float) -> None:
        """A job came, from this person."""

    def share(self, model: str, now: float) -> float:
        """The model's part of what is to come, 0..1."""

    def forget(self, model: str) -> None:
        """Nothing of it counts any more."""


class _Jobs:
    """The models of jobs, each job's weight falling to 1/e in ``over_s``.

    Weights are kept as if old ones never fell and new ones came heavier: a share, which is all that
    is asked for, is then one division.
    """

    def __init__(self, over_s: float) -> None:
        self._over_s, self._begun_at = over_s, 0.0
        self._sum = 0.0
        self._of: dict[str, float] = {}

    def asked(self, model: str, who: str, now: float) -> None:
        """A job came, from this person."""
        self._add(model, self._one(now))

    def share(self, model: str, now: float) -> float:
        """The model's part of all, 0..1; 0 if nothing is left."""
        weight = self._of.get(model, 0.0)
        return min(1.0, weight / self._sum) if weight > 0.0 < self._sum else 0.0

    def forget(self, model: str) -> None:
        """Nothing of it counts any more."""
        self._sum -= self._of.pop(model, 0.0)

    def _one(self, now: float) -> float:
        """What a job weighs that comes now."""
        if now - self._begun_at > _ANEW * self._over_s:
            self._rescale(exp((self._begun_at - now) / self._over_s))
            self._begun_at = now
        return exp((now - self._begun_at) / self._over_s)

    def _rescale(self, factor: float) -> None:
        self._of = {model: weight * factor for model, weight in self._of.items()}
        self._sum = sum(self._of.values())

    def _add(self, model: str, weight: float) -> None:
        self._of[model] = self._of.get(model, 0.0) + weight
        self._sum += weight


class _Latest(_Jobs):
    """Each model's last job alone: somebody is at it, and one job says as much as ten."""

    def asked(self, model: str, who: str, now: float) -> None:
        """A job came."""
        one = self._one(now)
        self._add(model, one - self._of.get(model, 0.0))


class _People(_Jobs):
    """All of somebody's jobs count for the model of the last: people stay with one for a while."""

    def __init__(self, over_s: float) -> None:
        super().__init__(over_s)
        self._last: OrderedDict[str, tuple[str, float]] = OrderedDict()  # the latest at the end

    def asked(self, model: str, who: str, now: float) -> None:
        """A job came."""
        one = self._one(now)
        weight = self._leave(who) + one
        self._add(model, weight)
        self._last[who] = (model, weight)
        if len(self._last) > PEOPLE_REMEMBERED_MAX:
            self._leave(next(iter(self._last)))

    def _leave(self, who: str) -> float:
        """Nothing of theirs counts any more; what did."""
        if who not in self._last:
            return 0.0
        model, weight = self._last.pop(who)
        if model in self._of:
            self._add(model, -weight)
        return weight

    def _rescale(self, factor: float) -> None:
        super()._rescale(factor)
        for who, (model, weight) in self._last.items():
            self._last[who] = (model, weight * factor)


class _HourOfDay:
    """What was asked for at this hour of other days."""

    def __init__(self) -> None:
        self._hours = [_Jobs(_WEEK_S) for _ in range(_HOURS)]

    def asked(self, model: str, who: str, now: float) -> None:
        """A job came."""
        self._hours[hour_of(now)].asked(model, who, now)

    def share(self, model: str, now: float) -> float:
        """The model's part of the jobs of this hour."""
        return self._hours[hour_of(now)].share(model, now)

    def forget(self, model: str) -> None:
        """Nothing of it counts any more."""
        for hour in self._hours:
            hour.forget(model)


class _Pace:
    """Jobs a second, for whatever model: of late, of today, and of other days at this hour."""

    _OVER_S = (900.0, 4 * _HOUR_S, 3 * _DAY_S)

    def __init__(self, now: float) -> None:
        self._began = self._at = now
        self._counts = [0.0] * len(self._OVER_S)
        self._hours = Hours(now)
        self._rate: tuple[float, float] | None = None  # as last told, and when: many ask at once

    def asked(self, now: float) -> None:
        """A job came."""
        self._counts = [count + 1.0 for count in self._left(now)]
        self._at, self._rate = now, None
        self._hours.note(now)

    def rate(self, now: float) -> float:
        """The mean of the three."""
        if self._rate is None or self._rate[1] != now:
            self._rate = self._mean(now), now
        return self._rate[0]

    def _mean(self, now: float) -> float:
        age_s = max(1.0, now - self._began)
        # Over less than its time a count has seen only a part of what it fades over.
        rates = [
            count / (over_s * (1.0 - exp(-age_s / over_s)))
            for count, over_s in zip(self._left(now), self._OVER_S, strict=True)
        ]
        if age_s >= DAYS_KNOWN_S:
            rates[-1] *= _HOURS * self._hours.share(now)
        return sum(rates) / len(rates)

    def _left(self, now: float) -> list[float]:
        passed = self._at - now
        return [
            count * exp(passed / over_s)
            for count, over_s in zip(self._counts, self._OVER_S, strict=True)
        ]


class Rates:
    """Arrivals by model."""

    def __init__(self) -> None:
        self._pace: _Pace | None = None  # since the first arrival
        self._predictors: tuple[_Predictor, ...] = (
            _Latest(90.0),
            _Jobs(900.0),
            _Jobs(4 * _HOUR_S),
            _Jobs(3 * _DAY_S),
            _Jobs(30 * _DAY_S),
            _HourOfDay(),
            _People(_HOUR_S),
            _People(_DAY_S),
        )
        self.believed = [1.0 / len(self._predictors)] * len(self._predictors)  # sums to 1

    def asked(self, model: str, who: str, now: float) -> None:
        """A job for the model came in, from this person."""
        if self._pace is None:
            self._pace = _Pace(now)
        self._pace.asked(now)
        self._learn(self._likely(model, now))
        for predictor in self._predictors:
            predictor.asked(model, who, now)

    def forget(self, model: str) -> None:
        """Nobody will ask for it any more."""
        for predictor in self._predictors:
            predictor.forget(model)

    def rate(self, model: str, now: float) -> float:
        """Jobs a second to be expected soon."""
        pace = self._pace.rate(now) if self._pace else 0.0
        return pace * sum(self._likely(model, now))

    def _likely(self, model: str, now: float) -> list[float]:
        """How likely the next job is the model's, by each predictor as far as it is believed."""
        return [
            weight * predictor.share(model, now)
            for weight, predictor in zip(self.believed, self._predictors, strict=True)
        ]

    def _learn(self, likely: list[float]) -> None:
        """Who foresaw the job that came is believed more; what nobody could teaches nothing."""
        whole = sum(likely)
        if not whole:
            return
        moved = [
            max(_FLOOR, weight + _LEARNING * (part / whole - weight))
            for weight, part in zip(self.believed, likely, strict=True)
        ]
        whole = sum(moved)
        self.believed = [weight / whole for weight in moved]
