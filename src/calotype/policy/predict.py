"""What waiting a home for a model saves, by the jobs that are to be expected.

Arrivals are foreseen by ``policy/rates.py``; here they are weighed against what homes there are.
"""

from __future__ import annotations

from math import sqrt
from typing import Protocol

from calotype.core.events import ModelKnown
from calotype.policy.ledger import bytes_of
from calotype.policy.rates import Rates

_COST_FADING = 0.05  # weight of the newest job's cost against what was known


class Keeper(Protocol):
    """Tells what it is worth to have a model loaded. All times are of the line's clock."""

    @property
    def foresees(self) -> bool:
        """Whether models should be loaded before they are asked for, by ``saves``."""

    def asked(self, model: str, who: str, cost_s: float, now: float) -> None:
        """A job for the model came in, from this person, predicted to cost so many seconds."""

    def evicted(self, known: ModelKnown, now: float) -> None:
        """The model made room on an engine."""

    def removed(self, model: str) -> None:
        """The model is no longer there: nobody will ask for it."""

    def saves(self, known: ModelKnown, homes: int, now: float) -> float:
        """Seconds of waiting that one more home than so many saves each second."""

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """What keeping one of so many homes is worth against others: more is kept longer."""


class Foresight:
    """Ours: a home for a model is worth the waiting that it saves, by what is to be expected."""

    foresees = True

    def __init__(self) -> None:
        self.rates = Rates()
        self._seen: dict[str, tuple[float, float]] = {}  # by model: its last job, its jobs' cost

    def asked(self, model: str, who: str, cost_s: float, now: float) -> None:
        """A job for the model came in."""
        self.rates.asked(model, who, now)
        _, known_s = self._seen.get(model, (now, cost_s))
        self._seen[model] = now, known_s + _COST_FADING * (cost_s - known_s)

    def evicted(self, known: ModelKnown, now: float) -> None:
        """Of no matter."""

    def removed(self, model: str) -> None:
        """Nothing is expected of it."""
        self.rates.forget(model)
        self._seen.pop(model, None)

    def saves(self, known: ModelKnown, homes: int, now: float) -> float:
        """Its jobs a second, times what each waits less with another home: the first saves a load.

        A job waits for a free home as on so many servers (Sakasegawa, "An approximation formula
        for Lq", 1977), and no longer than a load takes: by then there is another.
        """
        rate = self.rates.rate(known.model, now)
        if not homes:
            return rate * known.load_s
        _, cost_s = self._seen.get(known.model, (now, 0.0))
        load = rate * cost_s
        less_s = _wait_s(homes, load, cost_s, known.load_s)
        return rate * (less_s - _wait_s(homes + 1, load, cost_s, known.load_s))

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """What the last of its homes saves for each byte; of equals, the last used stays."""
        saves = self.saves(known, max(0, homes - 1), now)
        last, _ = self._seen.get(known.model, (float("-inf"), 0.0))
        return saves / max(1, bytes_of(known)), last


def _wait_s(homes: int, load: float, cost_s: float, load_s: float) -> float:
    """Mean wait for one of so many homes; ``load`` is how many of them are at work on average."""
    use = load / homes
    if use >= 1.0:
        return load_s * use
    power: float = use ** (sqrt(2.0 * (homes + 1)) - 1.0)
    return min(load_s, cost_s * power / (homes * (1.0 - use)))
