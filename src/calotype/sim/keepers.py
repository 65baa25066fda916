"""What others keep loaded, set beside ours (``policy.predict``) on the same traffic and fleet.

- ``lru``: the model used longest ago makes room.
- ``lfu``: the one asked for least often so far.
- ``gdsf``: GreedyDual-Size-Frequency (Cherkasova, HPL-98-69R1, 1998): how often a model was asked
  for since it was loaded, times what a load takes, by its bytes, on a clock that evictions move on.
- ``optimum``: knows the traffic. The one whose next job is furthest off makes room (Belady, "A
  study of replacement algorithms", 1966), weighed by bytes and by the time of a load.

All but ours load on demand only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping

from calotype.core.events import ModelKnown
from calotype.policy.ledger import bytes_of
from calotype.policy.predict import Foresight, Keeper
from calotype.sim.jobs import Asked

_NEVER_S = 1e9  # until the next job for a model that is asked for no more


class _OnDemand:
    """What these have in common: nothing is loaded before it is asked for."""

    foresees = False

    def asked(self, model: str, who: str, cost_s: float, now: float) -> None:
        """Of no matter."""

    def evicted(self, known: ModelKnown, now: float) -> None:
        """Of no matter."""

    def removed(self, model: str) -> None:
        """Of no matter: no trace takes a model away."""

    def saves(self, known: ModelKnown, homes: int, now: float) -> float:
        """Not told."""
        return 0.0


class Lru(_OnDemand):
    """The last used stays."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def asked(self, model: str, who: str, cost_s: float, now: float) -> None:
        """A job for the model came in."""
        self._last[model] = now

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """When it was last asked for."""
        return self._last.get(known.model, float("-inf")), 0.0


class Lfu(Lru):
    """The one asked for most often stays."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[str, int] = {}

    def asked(self, model: str, who: str, cost_s: float, now: float) -> None:
        """A job for the model came in."""
        super().asked(model, who, cost_s, now)
        self._counts[model] = self._counts.get(model, 0) + 1

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """How often it was asked for; of equals, the last used stays."""
        return self._counts.get(known.model, 0), super().worth(known, homes, now)[0]


class Gdsf(_OnDemand):
    """GreedyDual-Size-Frequency."""

    def __init__(self, needs: Callable[[str], ModelKnown]) -> None:
        self._needs = needs
        self._clock = 0.0
        self._counts: dict[str, int] = {}  # since it was loaded
        self._worth: dict[str, float] = {}

    def asked(self, model: str, who: str, cost_s: float, now: float) -> None:
        """A job for the model came in."""
        known = self._needs(model)
        self._counts[model] = self._counts.get(model, 0) + 1
        each = known.load_s / max(1, bytes_of(known))
        self._worth[model] = self._clock + self._counts[model] * each

    def evicted(self, known: ModelKnown, now: float) -> None:
        """It made room: what comes later is worth more than it was."""
        self._clock = max(self._clock, self._worth.pop(known.model, 0.0))
        self._counts.pop(known.model, None)

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """As of the last time it was asked for."""
        return self._worth.get(known.model, 0.0), 0.0


class Optimum(_OnDemand):
    """Knows when each model will be asked for."""

    def __init__(self, jobs: Iterable[Asked]) -> None:
        self._coming: dict[str, list[float]] = {}
        for job in jobs:
            self._coming.setdefault(job.model, []).append(job.at_s)

    def worth(self, known: ModelKnown, homes: int, now: float) -> tuple[float, float]:
        """The sooner it is asked for, the more; by what a load takes, for each byte."""
        coming = self._coming.get(known.model, [])
        at = bisect_right(coming, now)
        in_s = coming[at] - now if at < len(coming) else _NEVER_S
        return known.load_s / max(1, bytes_of(known)) / max(in_s, 1e-3), 0.0


def keepers(
    jobs: list[Asked], needs: Callable[[str], ModelKnown]
) -> Mapping[str, Callable[[], Keeper]]:
    """Each by its name, ours first."""
    return {
        "ours": Foresight,
        "lru": Lru,
        "lfu": Lfu,
        "gdsf": lambda: Gdsf(needs),
        "optimum": lambda: Optimum(jobs),
    }
