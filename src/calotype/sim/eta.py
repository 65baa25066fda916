"""What jobs are told when they are admitted, and how that turned out.

The estimates are the server's: the policy run forward (``policy.eta``), with the ranges of what was
measured so far (``policy.ranges``). Only what is known is taken for them: costs as predicted, loads
at their mean, steps done. Of jobs of a trace, whose measured cost the line is told, it isn't taken:
it is predicted from those that ended before, by the cost model that the server fits.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calotype.core.cost import CostModel
from calotype.core.events import JobQueued
from calotype.core.nouns import Tier
from calotype.policy.eta import Forecast, Present
from calotype.policy.line import Line
from calotype.policy.ranges import Case, Ranges
from calotype.policy.sharing import Run
from calotype.sim.engines import SimEngine
from calotype.sim.jobs import A100, Asked, Costs, spec_of


@dataclass
class Known:
    """An unfinished job, as far as a server knows it."""

    asked: Asked
    image_s: float  # predicted, of each image on a device of speed 1
    engine: SimEngine | None = None
    run: Run | None = None  # of the attempt on that engine
    life: int = 0  # of the engine, when the attempt was sent there
    told_at_s: float = 0.0
    is_told: bool = False
    range_s: tuple[float, float] = (0.0, 0.0)  # P50 and P90, told then


@dataclass
class _OfTier:
    told: int = 0
    by_p50: int = 0
    by_p90: int = 0
    errors_s: array[float] = field(default_factory=lambda: array("d"))  # of P50, absolute
    shares: array[float] = field(default_factory=lambda: array("d"))  # the same by what it took


class Etas:
    """Tells every ``every``-th job its time, and compares."""

    def __init__(
        self,
        costs: Costs,
        line: Line,
        engines: Mapping[str, SimEngine],
        every: int = 1,
    ) -> None:
        self._costs, self._line, self._every = costs, line, every
        self._engines = engines
        self._known: dict[str, Known] = {}
        self._learnt: dict[str, CostModel] = {}
        self._ranges = Ranges()
        self._tiers = {tier: _OfTier() for tier in Tier}
        self._bases: dict[str, int] = {}
        self._arrived = self._untold = 0
        self._now = 0.0

    def coming(self, job_id: str, asked: Asked) -> None:
        """A job is about to be queued."""
        self._known[job_id] = Known(asked, self._predicted_s(asked))

    def queued(self, job_id: str, now: float) -> None:
        """It is, and the line has decided; now its caller is told, if it is one that is."""
        self._arrived += 1
        if (self._arrived - 1) % self._every:
            return
        self._now = now
        present = Present(self._left, lambda name: self._engines[name].kind)
        outlook = Forecast(self._line, present, now).of(job_id)
        if outlook is None or outlook.done_s is None:
            self._untold += 1
            return
        job = self._known[job_id]
        case = Case(job.asked.model, job.asked.tier, outlook.kind)
        told = self._ranges.range(case, outlook.done_s)
        self._ranges.told(job_id, case, outlook.done_s, now)
        job.told_at_s, job.is_told = now, True
        job.range_s = told.p50_s, told.p90_s
        for name in (told.basis, outlook.kind):
            self._bases[name] = self._bases.get(name, 0) + 1

    def started(self, engine: SimEngine, run: Run) -> None:
        """An attempt is sent to an engine."""
        job = self._known[run.job_id]
        job.engine, job.run, job.life = engine, run, engine.life

    def handed_back(self, job_id: str, left: float) -> None:
        """That share of what the attempt had to do is left; it waits again."""
        job = self._known[job_id]
        job.engine, job.image_s = None, job.image_s * left

    def ended(self, job_id: str, device_s: float, now: float) -> None:
        """It has its pictures; ``device_s`` was measured."""
        job = self._known.pop(job_id)
        asked = job.asked
        if asked.device_s is not None:
            model = self._learnt.get(asked.model, A100)
            self._learnt[asked.model] = model.fitted(spec_of(asked), device_s / asked.n)
        if not job.is_told:
            return
        took_s = now - job.told_at_s
        self._ranges.done(job_id, now)
        of, (p50_s, p90_s) = self._tiers[asked.tier], job.range_s
        of.told += 1
        of.by_p50 += took_s <= p50_s
        of.by_p90 += took_s <= p90_s
        of.errors_s.append(abs(took_s - p50_s))
        of.shares.append(abs(took_s - p50_s) / max(took_s, 1e-9))

    def failed(self, job_id: str) -> None:
        """It was given up."""
        self._known.pop(job_id, None)
        self._ranges.forget(job_id)

    def figures(self) -> dict[str, Any]:
        """How good they were, by tier and over all, as JSON: seconds, shares from 0 to 1."""
        whole = _OfTier()
        for of in self._tiers.values():
            whole.told += of.told
            whole.by_p50 += of.by_p50
            whole.by_p90 += of.by_p90
            whole.errors_s += of.errors_s
            whole.shares += of.shares
        return {
            "every": self._every,
            "untold": self._untold,
            "basis": {name: self._bases[name] for name in sorted(self._bases)},
            **_figures(whole),
            "tiers": {name.value: _figures(of) for name, of in self._tiers.items() if of.told},
        }

    def _predicted_s(self, asked: Asked) -> float:
        if asked.device_s is None:
            return self._costs.image_s(asked)
        return self._learnt.get(asked.model, A100).predict_s(spec_of(asked))

    def _left(self, queued: JobQueued) -> float:
        job = self._known[queued.job_id]
        whole_s = job.image_s * job.asked.n
        engine, run = job.engine, job.run
        if engine is None or run is None or engine.life != job.life:
            return whole_s
        return whole_s * engine.left(run, self._now) if run.until else whole_s


def _figures(of: _OfTier) -> dict[str, Any]:
    told = max(1, of.told)
    return {
        "told": of.told,
        "done_by_p50": round(of.by_p50 / told, 4),
        "done_by_p90": round(of.by_p90 / told, 4),
        "error_s_median": round(_median(of.errors_s), 4),
        "error_share_median": round(_median(of.shares), 4),
    }


def _median(values: array[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2] if len(values) else 0.0
