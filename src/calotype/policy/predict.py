"""What jobs are to be expected, and what waiting a home for a model saves by that.

For each model there are counts of its jobs that fade, each over its own time: a minute or two
(somebody is at it: one job says as much as ten), a burst, hours, days. Together they tell how many
jobs a second are to be expected soon. A day's course is learnt beside that: what each hour had of
the jobs of its day, for all models together and, as far as a model has been asked for often enough,
for itself.

Times are seconds of the line's clock: a day is 86,400 of them and its hours are counted from the
clock's zero, wherever in the day that was. So a day's course is forgotten by a clock that starts
anew. Nothing is read but what is told; one model's answer is a handful of multiplications.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Protocol

from calotype.core.events import ModelKnown
from calotype.policy.ledger import bytes_of

# Over which counts fall to 1/e, and what each of them is worth. Tuned on the first half of a real
# trace (docs/pool.md): within a minute or two of a job another one for the same model is twenty
# times as likely as an hour later, whatever the model.
FADES_S = (90.0, 900.0, 4 * 3_600.0, 3 * 86_400.0)
SHARES = (0.3, 0.2, 0.2, 0.3)
_HOURS, _HOUR_S = 24, 3_600.0
_DAY_FADE_S = 7 * 86_400.0  # of the day's course
# Jobs of a model that count as much as what all models' hours say. With 20 it did harm.
_HOUR_PRIOR = 200.0
_COURSE_AFTER_S = 2 * 86_400.0  # before that nothing is known of days
_COST_FADING = 0.05  # weight of the newest job's cost against what was known


class Keeper(Protocol):
    """Tells what it is worth to have a model loaded. All times are of the line's clock."""

    @property
    def foresees(self) -> bool:
        """Whether models should be loaded before they are asked for, by ``saves``."""

    def asked(self, model: str, cost_s: float, now: float) -> None:
        """A job for the model came in, and is predicted to cost so many device-seconds."""

    def evicted(self, known: ModelKnown, now: float) -> None:
        """The model made room on an engine."""

    def removed(self, model: str) -> None:
        """The model is no longer there: nobody will ask for it."""

    def saves(self, known: ModelKnown, homes: int, now: float) -> float:
        """Seconds of waiting that one more home than so many saves each second."""

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """What keeping one of so many homes is worth against others: more is kept longer."""


class _Hours:
    """Jobs by hour of the day, fading."""

    __slots__ = ("counts", "faded_at")

    def __init__(self, now: float) -> None:
        self.counts, self.faded_at = [0.0] * _HOURS, now

    def note(self, now: float) -> None:
        """A job came."""
        if now - self.faded_at >= _HOUR_S:
            fading = exp(-(now - self.faded_at) / _DAY_FADE_S)
            self.counts = [count * fading for count in self.counts]
            self.faded_at = now
        self.counts[int(now / _HOUR_S) % _HOURS] += 1.0


class _Seen:
    """What is remembered of one model."""

    __slots__ = ("at", "cost_s", "counts", "hours")

    def __init__(self, now: float, cost_s: float) -> None:
        self.at = now  # of its last job
        self.cost_s = cost_s  # of its jobs
        self.counts = (0.0, 0.0, 0.0, 0.0)  # as of then, fading over FADES_S
        self.hours = _Hours(now)

    def note(self, now: float, cost_s: float) -> None:
        """A job came."""
        passed = self.at - now
        _, burst, hours, days = self.counts
        self.counts = (
            1.0,
            burst * exp(passed / FADES_S[1]) + 1.0,
            hours * exp(passed / FADES_S[2]) + 1.0,
            days * exp(passed / FADES_S[3]) + 1.0,
        )
        self.at = now
        self.cost_s += _COST_FADING * (cost_s - self.cost_s)
        self.hours.note(now)


class Rates:
    """Arrivals by model."""

    def __init__(self) -> None:
        self._began: float | None = None  # the first arrival of all
        self._seen: dict[str, _Seen] = {}
        self._everyone: _Hours | None = None

    def asked(self, model: str, cost_s: float, now: float) -> None:
        """A job for the model came in."""
        if self._everyone is None:
            self._began, self._everyone = now, _Hours(now)
        if (seen := self._seen.get(model)) is None:
            seen = self._seen[model] = _Seen(now, cost_s)
        seen.note(now, cost_s)
        self._everyone.note(now)

    def last(self, model: str) -> float:
        """When it was last asked for; long ago if never."""
        return self._seen[model].at if model in self._seen else float("-inf")

    def forget(self, model: str) -> None:
        """Nobody will ask for it any more."""
        self._seen.pop(model, None)

    def cost_s(self, model: str) -> float:
        """What a job of it costs, in device-seconds; 0 if there was none."""
        return self._seen[model].cost_s if model in self._seen else 0.0

    def rate(self, model: str, now: float) -> float:
        """Jobs a second to be expected soon."""
        if (seen := self._seen.get(model)) is None:
            return 0.0
        age_s = max(1.0, now - (now if self._began is None else self._began))
        rate, passed = 0.0, seen.at - now
        for count, fade_s, share in zip(seen.counts, FADES_S, SHARES, strict=True):
            # Over less than its time a count has seen only a part of what it fades over.
            span_s = fade_s * (1.0 - exp(-age_s / fade_s))
            rate += share * count * exp(passed / fade_s) / span_s
        return rate * (self._course(seen, now) if age_s >= _COURSE_AFTER_S else 1.0)

    def _course(self, seen: _Seen, now: float) -> float:
        """How busy this hour of the day is for the model, against its mean."""
        everyone = self._everyone.counts if self._everyone else [0.0] * _HOURS
        own, hour = seen.hours.counts, int(now / _HOUR_S) % _HOURS
        common = (everyone[hour] + 1.0) / (sum(everyone) + _HOURS)
        return _HOURS * (own[hour] + _HOUR_PRIOR * common) / (sum(own) + _HOUR_PRIOR)


class Foresight:
    """Ours: a home for a model is worth the waiting that it saves, by what is to be expected."""

    foresees = True

    def __init__(self) -> None:
        self.rates = Rates()

    def asked(self, model: str, cost_s: float, now: float) -> None:
        """A job for the model came in."""
        self.rates.asked(model, cost_s, now)

    def evicted(self, known: ModelKnown, now: float) -> None:
        """Of no matter."""

    def saves(self, known: ModelKnown, homes: int, now: float) -> float:
        """Its jobs a second, times what each waits less with another home: the first saves a load.

    def removed(self, model: str) -> None:
        """Nothing is expected of it."""
        self.rates.forget(model)

        A job waits for a free home as on so many servers (Sakasegawa, "An approximation formula
        for Lq", 1977), and no longer than a load takes: by then there is another.
        """
        rate = self.rates.rate(known.model, now)
        if not homes:
            return rate * known.load_s
        cost_s = self.rates.cost_s(known.model)
        load = rate * cost_s
        less_s = _wait_s(homes, load, cost_s, known.load_s)
        return rate * (less_s - _wait_s(homes + 1, load, cost_s, known.load_s))

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """What the last of its homes saves for each byte; of equals, the last used stays."""
        saves = self.saves(known, max(0, homes - 1), now)
        return saves / max(1, bytes_of(known)), self.rates.last(known.model)


def _wait_s(homes: int, load: float, cost_s: float, load_s: float) -> float:
    """Mean wait for one of so many homes; ``load`` is how many of them are at work on average."""
    use = load / homes
    if use >= 1.0:
        return load_s * use
    power: float = use ** (sqrt(2.0 * (homes + 1)) - 1.0)
    return min(load_s, cost_s * power / (homes * (1.0 - use)))
