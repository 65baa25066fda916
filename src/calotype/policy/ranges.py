"""The range in which a forecast comes true, from how often earlier ones did.

A range is the forecast multiplied by two factors, so that half of all jobs are done by P50 and nine
of ten by P90. Each factor follows what happens: when a job is done in its time it falls a little,
and when that time has passed and the job isn't done it rises by as much more as that is rarer. It
rests only where the share is right, whatever the errors look like and though they change (Gibbs
and Candès, "Adaptive conformal inference under distribution shift", NeurIPS 2021). A miss counts
when it happens and not when the job ends at last: else a line that grows would be learnt of late.

Factors are kept for each recipe, tier and *outlook*: a job that runs errs by its cost alone, one
that waits by who comes meanwhile as well, one beyond the play by more. A recipe begins with the
factors of all recipes there, and those begin with ``PRIOR``; a range says which it is from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import NamedTuple

from calotype.core import limits
from calotype.core.nouns import Tier

SHARES = (0.5, 0.9)  # of jobs that are done by P50 and by P90
OUTLOOKS = ("runs", "waits", "far")  # at the time of telling
# Factors before anything is measured: what `calotype simulate` measures of generated traffic.
PRIOR = {"runs": (1.01, 1.13), "waits": (1.08, 4.3), "far": (3.9, 7.0)}
# By so much a factor's logarithm moves for a job: more is quicker, and less steady. What depends on
# who comes changes with the hour.
STEPS = {"runs": 0.04, "waits": 0.12, "far": 0.2}
_LOG_MAX = 4.0  # of a factor: 55 times; and the least is the 55th part
_TOLD_S_MIN = 0.05  # shorter forecasts are taken as this: a multiple of nothing is nothing


class Case(NamedTuple):
    """Jobs whose forecasts are wrong alike."""

    recipe: str
    tier: Tier
    outlook: str  # of OUTLOOKS

    @property
    def names(self) -> tuple[str, str]:
        """Of the factors of this recipe, and of all recipes."""
        whole = f"{self.tier} {self.outlook}"
        return f"{whole} {self.recipe}", whole


@dataclass(frozen=True)
class Range:
    """Seconds in which half, and nine of ten, such jobs are done; and from what that is known."""

    p50_s: float
    p90_s: float
    basis: str  # "recipe": from its own jobs; "tier": from others of its tier; "prior"


@dataclass(eq=False)
class _Factors:
    """Of one recipe, or all, in a tier and outlook."""

    logs: list[float]
    step: float
    seen: int = 0  # jobs told

    def of(self, at: int) -> float:
        return math.exp(self.logs[at])

    def judge(self, at: int, *, was_done: bool) -> None:
        moved = self.logs[at] + self.step * (SHARES[at] - was_done)
        self.logs[at] = min(_LOG_MAX, max(-_LOG_MAX, moved))


class Ranges:
    """Factors, and the jobs that were told a time and aren't done."""

    def __init__(self, kept: Mapping[str, Sequence[float]] | None = None) -> None:
        """Start afresh, or from what ``kept`` gave before a restart."""
        self._factors = {
            name: _Factors(list(logs), STEPS[name.split()[1]], int(seen))
            for name, (*logs, seen) in (kept or {}).items()
        }
        self._open: dict[str, list[tuple[_Factors, int]]] = {}  # by job: what isn't judged
        self._due: list[tuple[float, int, str, _Factors, int]] = []
        self._order = 0

    def range(self, case: Case, done_s: float) -> Range:
        """The range of a job for which a forecast says ``done_s``."""
        factors, basis = self._best(case)
        told_s = max(done_s, _TOLD_S_MIN)
        p50_s = told_s * factors.of(0)
        return Range(p50_s, max(p50_s, told_s * factors.of(1)), basis)

    def told(self, job_id: str, case: Case, done_s: float, now: float) -> None:
        """A job was told its time; call it once for each job."""
        self.pass_to(now)
        own, whole = case.names
        of_all = self._of_all(case)
        of_own = self._factors.get(own) or _Factors(list(of_all.logs), STEPS[case.outlook])
        for name, factors in ((whole, of_all), (own, of_own)):
            factors.seen += 1
            self._factors.pop(name, None)
            self._factors[name] = factors  # last, so that the first was used longest ago
            for at, _ in enumerate(SHARES):
                self._open.setdefault(job_id, []).append((factors, at))
                due_s = now + max(done_s, _TOLD_S_MIN) * factors.of(at)
                self._order += 1
                heappush(self._due, (due_s, self._order, job_id, factors, at))
        while len(self._factors) > limits.ETA_RECIPES_KEPT_MAX:
            del self._factors[next(iter(self._factors))]

    def done(self, job_id: str, now: float) -> None:
        """A job has its pictures."""
        self.pass_to(now)
        for factors, at in self._open.pop(job_id, ()):
            factors.judge(at, was_done=True)

    def forget(self, job_id: str) -> None:
        """A job was cancelled, or failed: nothing follows from that."""
        self._open.pop(job_id, None)

    def pass_to(self, now: float) -> None:
        """It is now: times that were told have passed."""
        while self._due and self._due[0][0] < now:
            _, _, job_id, factors, at = heappop(self._due)
            if (factors, at) in (waiting := self._open.get(job_id, [])):
                waiting.remove((factors, at))
                factors.judge(at, was_done=False)

    def kept(self) -> dict[str, list[float]]:
        """What was learnt, as JSON, to keep over a restart."""
        return {
            name: [*(round(log, 5) for log in it.logs), it.seen]
            for name, it in self._factors.items()
        }

    def _best(self, case: Case) -> tuple[_Factors, str]:
        for name, basis in zip(case.names, ("recipe", "tier"), strict=True):
            factors = self._factors.get(name)
            if factors is not None and factors.seen >= limits.ETA_SEEN_MIN:
                return factors, basis
        return self._of_all(case), "prior"

    def _of_all(self, case: Case) -> _Factors:
        if (found := self._factors.get(case.names[1])) is not None:
            return found
        return _Factors([math.log(each) for each in PRIOR[case.outlook]], STEPS[case.outlook])
