"""What jobs are to be expected: how often each model is asked for, fading, with the time of day.

For each model there are counts of its jobs that fade, each over its own time: minutes (a burst that
is on), hours, days. Together they tell how many jobs a second are to be expected soon. A day's
course is learnt beside that: what each hour had of the jobs of its day, for all models together
and, as far as a model has been asked for often enough, for itself.

Times are seconds of the line's clock: a day is 86,400 of them and its hours are counted from the
clock's zero, wherever in the day that was. So a day's course is forgotten by a clock that starts
anew. Nothing is read but what is told; one model's answer is a handful of multiplications.
"""

from __future__ import annotations

from math import exp
from typing import Protocol

from calotype.core.events import ModelKnown
from calotype.policy.ledger import bytes_of

FADES_S = (600.0, 4 * 3_600.0, 3 * 86_400.0)  # over which counts fall to 1/e
SHARES = (0.3, 0.4, 0.3)  # what each of them counts
_HOURS, _HOUR_S = 24, 3_600.0
_DAY_FADE_S = 7 * 86_400.0  # of the day's course
_HOUR_PRIOR = 20.0  # jobs of a model that count as much as what all models' hours say
_COURSE_AFTER_S = 2 * 86_400.0  # before that nothing is known of days


class Keeper(Protocol):
    """Tells what it is worth to keep a model loaded. All times are of the line's clock."""

    @property
    def foresees(self) -> bool:
        """Whether models should be loaded before they are asked for, by ``saves``."""

    def asked(self, model: str, now: float) -> None:
        """A job for the model came in."""

    def evicted(self, known: ModelKnown, now: float) -> None:
        """The model made room on an engine."""

    def saves(self, known: ModelKnown, now: float) -> float:
        """Seconds of waiting that are saved each second, if the model is warm somewhere."""

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """What keeping one of so many homes is worth against others: more is kept longer."""


class Rates:
    """Arrivals by model."""

    def __init__(self, fades_s: tuple[float, ...] = FADES_S) -> None:
        self._fades_s = fades_s
        self._began: float | None = None  # the first arrival of all
        self._seen: dict[str, tuple[float, tuple[float, ...]]] = {}  # last arrival, counts then
        self._hours: dict[str, list[float]] = {}  # "" is all models together
        self._hours_at: dict[str, float] = {}  # when they were last faded

    def asked(self, model: str, now: float) -> None:
        """A job for the model came in."""
        if self._began is None:
            self._began = now
        at, counts = self._seen.get(model, (now, (0.0,) * len(self._fades_s)))
        passed = now - at
        faded = tuple(
            count * exp(-passed / fade_s) + 1.0
            for count, fade_s in zip(counts, self._fades_s, strict=True)
        )
        self._seen[model] = now, faded
        for name in ("", model):
            self._note_hour(name, now)

    def last(self, model: str) -> float:
        """When it was last asked for; long ago if never."""
        return self._seen[model][0] if model in self._seen else float("-inf")

    def rate(self, model: str, now: float, shares: tuple[float, ...] = SHARES) -> float:
        """Jobs a second to be expected soon."""
        if model not in self._seen:
            return 0.0
        at, counts = self._seen[model]
        age_s = self._age_s(now)
        rate = 0.0
        for count, fade_s, share in zip(counts, self._fades_s, shares, strict=True):
            # Over less than its time a count has seen only a part of what it fades over.
            span_s = fade_s * (1.0 - exp(-age_s / fade_s))
            rate += share * count * exp(-(now - at) / fade_s) / span_s
        return rate * self._course(model, now)

    def _age_s(self, now: float) -> float:
        return max(1.0, now - (now if self._began is None else self._began))

    def _course(self, model: str, now: float) -> float:
        """How busy this hour of the day is for the model, against its mean."""
        everyone, own = self._hours.get(""), self._hours.get(model)
        if everyone is None or own is None or self._age_s(now) < _COURSE_AFTER_S:
            return 1.0
        hour = int(now / _HOUR_S) % _HOURS
        whole, mine = sum(everyone), sum(own)
        common = (everyone[hour] + 1.0) / (whole + _HOURS)
        return _HOURS * (own[hour] + _HOUR_PRIOR * common) / (mine + _HOUR_PRIOR)

    def _note_hour(self, name: str, now: float) -> None:
        hours = self._hours.setdefault(name, [0.0] * _HOURS)
        faded_at = self._hours_at.setdefault(name, now)
        if now - faded_at >= _HOUR_S:
            fading = exp(-(now - faded_at) / _DAY_FADE_S)
            hours[:] = [count * fading for count in hours]
            self._hours_at[name] = now
        hours[int(now / _HOUR_S) % _HOURS] += 1.0


class Foresight:
    """Ours: a model is worth the waiting that it saves, by how often it is to be expected."""

    foresees = True

    def __init__(self) -> None:
        self.rates = Rates()

    def asked(self, model: str, now: float) -> None:
        """A job for the model came in."""
        self.rates.asked(model, now)

    def evicted(self, known: ModelKnown, now: float) -> None:
        """Of no matter."""

    def saves(self, known: ModelKnown, now: float) -> float:
        """Its jobs a second, times the seconds that each would wait for a load."""
        return self.rates.rate(known.model, now) * known.load_s

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """What it saves for each byte, shared between its homes; of equals, the last used stays."""
        each = self.saves(known, now) / max(1, homes)
        return each / max(1, bytes_of(known)), self.rates.last(known.model)
