"""When jobs will be done: forecasts of the live line, shared by all, and how they come true.

One forecast (``policy.eta``) of each pool serves everyone until the line has changed or it is a
second old. It takes a few milliseconds, outside turns; ``FORECAST_SHARE_MAX`` bounds what all of
them may take of the server's time, and meanwhile the last one goes on serving, by its age. Each
job's first forecast is held against what came (``policy.ranges``), and what follows is a note of
the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from calotype.core import limits
from calotype.core.decisions import Decision, FailJob
from calotype.core.events import (
    EngineGone,
    EngineUp,
    JobCancelled,
    JobQueued,
    JobSettled,
    PolicyEvent,
)
from calotype.core.nouns import Tier
from calotype.core.states import EngineState
from calotype.flow.line import LiveLine
from calotype.policy.eta import Coming, Forecast, Present
from calotype.policy.pools import COMMON
from calotype.policy.ranges import Case, Ranges
from calotype.policy.sharing import Pace, Steady
from calotype.pool.pool import EnginePool

NOTE = "eta"  # the name of the store's note
START_S_PRIOR = 15.0  # from an engine's start until it is warm, before one was measured
_TOLD_AT_ONCE_MAX = 64  # jobs whose first forecast is noted at one time; others are at the next
_WHY = {  # what is told of an engine that is up, and starts nothing
    EngineState.SUSPECT: "the engine it could run on gives no sign of life",
    EngineState.DRAINING: "the engine it could run on takes no more jobs, and is begun anew",
}


@dataclass(frozen=True)
class Eta:
    """What a caller is told. Seconds from now; None where nothing can be said."""

    position: int | None  # in the line, 1 = next; None: it runs, or is held
    p50_s: float | None  # half of such jobs are done by then ...
    p90_s: float | None  # ... and nine of ten
    reason: str  # what it waits for
    basis: str | None = None  # of the range: "recipe" or "tier" (measured), or "prior"
    is_extrapolated: bool = False  # it is further behind than the line is played forward


class Etas:
    """The live line's forecasts."""

    def __init__(
        self,
        line: LiveLine,
        pool: EnginePool,
        keep: Callable[[str, Callable[[], Any]], None],
        failing: Callable[[], Mapping[str, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` is the line's; ``keep`` has a note written with the next change of a job.

        ``failing`` says which safety checks can't run, and why: meanwhile nothing is started.
        """
        self._line, self._pool, self._keep, self._clock = line, pool, keep, clock
        self._failing = failing
        self._ranges = Ranges()
        self._start_s = START_S_PRIOR
        self._begun_at = clock()
        self._down_at: dict[str, float | None] = {}  # engines, None: up
        self._forecasts: dict[str, Forecast] = {}  # by pool
        self._stale: set[str] = set()  # pools about which something changed since
        self._pools: dict[str, str] = {}  # of unfinished jobs that have one
        self._next_at = 0.0  # no other forecast before
        self._untold: dict[str, Case] = {}  # jobs without a forecast yet, oldest first

    def restore(self, kept: Mapping[str, Any] | None) -> None:
        """Take up what was learnt before a restart."""
        if kept:
            ranges = dict(kept)
            self._start_s = float(ranges.pop("start_s"))
            self._ranges = Ranges(ranges)

    def heard(self, event: PolicyEvent, now: float, decisions: Iterable[Decision]) -> None:
        """The line was told of this, and decided that."""
        self._stale.update(self._forecasts)
        match event:
            case JobQueued():
                if event.pool:
                    self._pools[event.job_id] = event.pool
                self._untold[event.job_id] = Case(event.model, event.tier, "")
            case JobSettled() if event.device_s > 0.0:
                self._untold.pop(event.job_id, None)
                self._pools.pop(event.job_id, None)
                self._ranges.done(event.job_id, now)
            case JobSettled() | JobCancelled():
                self._forget(event.job_id)
            case EngineUp():
                if (down_at := self._down_at.get(event.engine, self._begun_at)) is not None:
                    self._start_s = now - down_at
                self._down_at[event.engine] = None
            case EngineGone():
                self._down_at[event.engine] = now
            case _:
                pass
        for decision in decisions:
            if isinstance(decision, FailJob):
                self._forget(decision.job_id)
        self._keep(NOTE, self._kept)

    def position(self, job_id: str) -> int | None:
        """The place in the line, 1 = next, as of the last forecast; None if it doesn't wait."""
        return self._current(self._pools.get(job_id, COMMON)).position(job_id)

    def of(self, job_id: str, recipe: str, tier: Tier) -> Eta | None:
        """When a job will be done; None if it neither waits nor runs."""
        forecast = self._current(self._pools.get(job_id, COMMON))
        now = self._clock()
        outlook = forecast.of(job_id, now)
        if outlook is None:
            return None
        if outlook.done_s is None:
            return Eta(outlook.position, None, None, outlook.reason, None, outlook.is_extrapolated)
        told = self._ranges.range(Case(recipe, tier, outlook.kind), outlook.done_s)
        return Eta(
            outlook.position,
            round(told.p50_s, 1),
            round(told.p90_s, 1),
            outlook.reason,
            told.basis,
            outlook.is_extrapolated,
        )

    def _current(self, pool: str) -> Forecast:
        now, found = self._clock(), self._forecasts.get(pool)
        if found is not None:
            is_old = pool in self._stale or now - found.made_at > limits.FORECAST_KEPT_S
            if not is_old or now < self._next_at:
                return found
        found = Forecast(self._line.policy.of(pool), self._present(now, pool), now)
        self._forecasts[pool] = found
        self._stale.discard(pool)
        self._tell(found, now, pool)
        end = self._clock()
        self._next_at = end + (end - now) * (1.0 / limits.FORECAST_SHARE_MAX - 1.0)
        return found

    def _tell(self, forecast: Forecast, now: float, pool: str) -> None:
        """Note the first forecast of jobs, to hold it against what comes."""
        self._ranges.pass_to(now)
        theirs = (job for job in self._untold if self._pools.get(job, COMMON) == pool)
        for job_id in list(islice(theirs, _TOLD_AT_ONCE_MAX)):
            case = self._untold.pop(job_id)
            outlook = forecast.of(job_id)
            if outlook is not None and outlook.done_s is not None:
                told = case._replace(outlook=outlook.kind)
                self._ranges.told(job_id, told, outlook.done_s, now)

    def _present(self, now: float, pool: str) -> Present:
        theirs = [one for one in self._pool.health() if one.pool == pool]
        starting = [one for one in theirs if one.state is not EngineState.READY]
        coming = []
        for one in starting:
            down_at = self._down_at.get(one.name, self._begun_at)
            left_s = max(1.0, self._start_s - (now - (now if down_at is None else down_at)))
            planned = one.models_planned or self._line.models
            up = EngineUp(
                one.name,
                tuple(name for name in planned if name not in one.models_failed),
                rows_max=limits.ENGINE_ROWS_MAX,
                budget_bytes=one.budget_bytes,
                reserves=one.reserves,
            )
            coming.append(Coming(up, left_s, _WHY.get(one.state, "")))
        return Present(self._left, _pace, coming=tuple(coming), stopped=self._stopped())

    def _stopped(self) -> str:
        failing = self._failing()
        if not failing:
            return ""
        return f"pictures can't be judged now: {next(iter(failing.values()))}"

    def _left(self, queued: JobQueued) -> float:
        """As predicted now, and not when the job came; of one that runs what its steps leave."""
        if (attempt := self._line.attempts.get(queued.job_id)) is not None:
            whole_s = self._line.costs.predict_s(attempt.job.spec)
            return whole_s * (1.0 - attempt.progress)
        job = self._line.waiting.get(queued.job_id)
        return self._line.left_s(job) if job is not None else queued.cost_s

    def _forget(self, job_id: str) -> None:
        self._untold.pop(job_id, None)
        self._pools.pop(job_id, None)
        self._ranges.forget(job_id)

    def _kept(self) -> dict[str, Any]:
        return {"start_s": round(self._start_s, 2), **self._ranges.kept()}


def _pace(engine: str) -> Pace:
    """Rows share an engine at one row's speed: costs are fitted to what they took in company."""
    return Steady()
