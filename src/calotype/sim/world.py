"""The loop: traffic, engines and the production line on one heap of events in virtual time.

Everything the line is told and everything it decides crosses a wire with a delay, as on a real
fleet: a decision reaches the engine ``delay_s`` later, and so does the engine's word the line. A
lost engine is noticed when its sign of life is missing (``LEASE_S``); a spot machine says so.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Any

from calotype.core.decisions import Decision, FailJob, LoadModel, RequeueJob, StartAttempt
from calotype.core.events import (
    EngineGone,
    EngineUp,
    JobQueued,
    JobSettled,
    ModelKnown,
    ModelWarmed,
    PolicyEvent,
    TimePassed,
)
from calotype.core.limits import LEASE_S, LINE_TICK_S
from calotype.policy.ledger import Ledger, bytes_of
from calotype.policy.line import Line
from calotype.policy.predict import Keeper
from calotype.policy.rules import Rules
from calotype.sim.baselines import POLICIES
from calotype.sim.engines import Run, SimEngine
from calotype.sim.eta import Etas
from calotype.sim.fleet import GB, Engines, FleetPlan, Kind
from calotype.sim.jobs import Asked, Costs
from calotype.sim.record import Record

# What can happen, besides a job's arrival.
_JOIN, _END, _TOLD, _DOWN, _GONE, _UP, _OUTAGE, _WARM = range(8)
_NOISE = 0.08  # what a job takes differs from what was predicted: standard deviation of its log


class _Open:
    """A job that isn't over."""

    __slots__ = ("asked", "attempt", "image_s", "is_hit", "started_s")

    def __init__(self, asked: Asked, image_s: float, *, is_hit: bool) -> None:
        self.asked, self.is_hit = asked, is_hit  # hit: its model was warm when it came
        self.image_s = image_s  # what each of its images really takes
        self.started_s = -1.0
        self.attempt = 0


class World:
    """One run of one policy."""

    def __init__(
        self,
        plan: FleetPlan,
        jobs: Iterable[Asked],
        costs: Costs,
        seed: int,
        policy: str = "ours",
        *,
        keeper: Keeper | None = None,
        etas_every: int = 0,
        measured_from_s: float = 0.0,
    ) -> None:
        """``keeper`` says which models are kept loaded, if it isn't ours.

        Every ``etas_every``-th job is told its time (0: none), where the policy is ours.
        """
        self._plan, self._costs = plan, costs
        self._jobs: Iterator[Asked] = iter(jobs)
        rules = Rules(reserved=plan.reserved)
        self._line = Line(rules=rules, queue=POLICIES[policy](rules), keeper=keeper)
        self._noise = random.Random(f"{seed}:costs")  # costs: drawn in order of arrival
        self._loads = random.Random(f"{seed}:loads")
        self._faults = random.Random(f"{seed}:faults")
        self._heap: list[tuple[float, int, int, Any, Any]] = []
        self._order = 0
        self._open: dict[str, _Open] = {}
        self._engines: dict[str, SimEngine] = {}
        self._groups: dict[str, Engines] = {}
        self._numbers = 0
        self._needs: dict[str, ModelKnown] = {}
        self._warm: dict[str, int] = {}  # engines on which a model is warm
        self._told_at = 0.0
        self.now = 0.0
        self.etas: Etas | None = None
        if etas_every and policy == "ours":
            self.etas = Etas(costs, self._line, self._engines, etas_every)
        self.record = Record(plan, measured_from_s)

    def run(self) -> Record:
        """Play until the traffic is over and no job waits or runs that still can."""
        self._boot()
        coming = next(self._jobs, None)
        while coming is not None or self._open:
            event_s = self._heap[0][0] if self._heap else float("inf")
            coming_s = coming.at_s if coming is not None else float("inf")
            then = min(event_s, coming_s)
            deadline = self._line.next_deadline()
            if coming is not None and then - self._told_at > LINE_TICK_S:
                tick = self._told_at + LINE_TICK_S
                deadline = tick if deadline is None else min(tick, deadline)
            if deadline is not None and deadline < then:
                self.now = max(self.now, deadline)
                self._tell(TimePassed())
            elif then == float("inf"):
                break  # what waits can't run on any engine
            elif coming is not None and coming_s <= event_s:
                self._arrive(coming)
                coming = next(self._jobs, None)
            else:
                self.now, _, what, one, other = heappop(self._heap)
                self._happen(what, one, other)
        self.record.close(self.now, self._engines.values(), len(self._open))
        return self.record

    def _arrive(self, asked: Asked) -> None:
        self.now = max(self.now, asked.at_s)
        predicted_s = self._costs.image_s(asked)
        self._numbers += 1
        job_id = f"j{self._numbers}"
        noise = self._noise.lognormvariate(0.0, _NOISE) if asked.device_s is None else 1.0
        is_hit = self._warm.get(asked.model, 0) > 0
        self._open[job_id] = _Open(asked, predicted_s * noise, is_hit=is_hit)
        self._know(asked.model)
        self.record.arrived(asked, self.now)
        cost_s = predicted_s * asked.n
        if self.etas:
            self.etas.coming(job_id, asked)
        self._tell(
            JobQueued(
                job_id, asked.tenant, asked.tier, asked.model, asked.n, cost_s, user=asked.user
            )
        )
        if self.etas:
            self.etas.queued(job_id, self.now)

    def _know(self, model: str) -> ModelKnown:
        """What a model needs; the line is told when it is first named."""
        if model not in self._needs:
            self._needs[model] = self._plan.needs(model)
            self._tell(self._needs[model])
        return self._needs[model]

    def _tell(self, event: PolicyEvent) -> None:
        self._told_at = self.now
        for decision in self._line.on(event, self.now):
            self._carry_out(decision)

    def _carry_out(self, decision: Decision) -> None:
        if isinstance(decision, StartAttempt):
            self._start(decision)
        elif isinstance(decision, LoadModel):
            self._load(decision)
        elif isinstance(decision, FailJob):
            self.record.failed(self._open.pop(decision.job_id).asked)
            if self.etas:
                self.etas.failed(decision.job_id)
        elif isinstance(decision, RequeueJob):
            self.record.again(self._open[decision.job_id].asked)
        else:
            self.record.promoted += 1

    def _start(self, start: StartAttempt) -> None:
        job, engine = self._open[start.job_id], self._engines[start.engine]
        job.attempt += 1
        if job.started_s < 0:
            job.started_s = self.now
        missing = engine.needs_loras(job.asked.loras)
        self.record.started(job.asked, start, missing, self.now, is_hit=job.is_hit)
        at = self.now + self._plan.delay_s
        if missing:
            at += self._took_s(self._plan.loading.lora_s * missing)
        run = Run(start.job_id, job.asked.n, job.image_s)
        if self.etas:
            self.etas.started(engine, run)
        self._push(at, _JOIN, (engine, engine.life), (run, at - self.now - self._plan.delay_s))

    def _load(self, load: LoadModel) -> None:
        engine = self._engines[load.engine]
        if not engine.is_up:
            return  # the line will hear of it
        for model in load.evict:
            self._cool(engine, model)
        took_s = self._took_s(load.load_s)
        at = self.now + 2 * self._plan.delay_s + took_s
        self._push(at, _WARM, (engine, engine.life), (load, took_s))

    def _warmed(self, engine: SimEngine, life: int, load: LoadModel, took_s: float) -> None:
        if engine.life != life or not engine.is_up:
            return
        engine.loaded(took_s)
        self._heat(engine, load.model)
        held = [part for name in engine.models for part in self._needs[name].components]
        is_block = engine.lay({part.id: part.bytes for part in held})
        self.record.laid(engine.arena.fragmentation, is_block=is_block)
        self.record.loaded(load, bytes_of(self._needs[load.model]), self.now)
        self._tell(ModelWarmed(engine.name, load.model))

    def _heat(self, engine: SimEngine, model: str) -> None:
        engine.models[model] = None
        self._warm[model] = self._warm.get(model, 0) + 1

    def _cool(self, engine: SimEngine, model: str) -> None:
        del engine.models[model]
        self._warm[model] -= 1

    def _took_s(self, mean_s: float) -> float:
        spread = self._plan.loading.spread
        return mean_s * self._loads.uniform(1 - spread, 1 + spread)

    def _happen(self, what: int, one: Any, other: Any) -> None:
        if what == _END:
            if one.version == other:
                self._end(one)
        elif what == _TOLD:
            self._settled(*one)
        elif what == _JOIN:
            self._join(*one, *other)
        elif what == _WARM:
            self._warmed(*one, *other)
        else:
            self._machines(what, one, other)

    def _machines(self, what: int, one: Any, other: Any) -> None:
        if what == _DOWN:
            life, is_spot = other
            if one.life == life and one.is_up:
                reason = "the spot machine was taken away" if is_spot else "it failed"
                self._lose(one, self._groups[one.name].repair_s, reason, 0 if is_spot else LEASE_S)
        elif what == _GONE:
            self._tell(EngineGone(one.name, other))
        elif what == _UP:
            self._up(one)
        elif what == _OUTAGE:
            for engine in self._engines.values():
                if engine.region == one.region and engine.is_up:
                    self._lose(engine, one.for_s, "the region is lost", LEASE_S)

    def _join(self, engine: SimEngine, life: int, run: Run, load_s: float) -> None:
        if engine.life == life and engine.is_up:
            engine.loaded(load_s)
            self._push(engine.join(run, self.now), _END, engine, engine.version)

    def _end(self, engine: SimEngine) -> None:
        run, device_s, next_s = engine.end(self.now)
        self._push(self.now + self._plan.delay_s, _TOLD, (engine, engine.life, run, device_s), None)
        if next_s is not None:
            self._push(next_s, _END, engine, engine.version)

    def _settled(self, engine: SimEngine, life: int, run: Run, device_s: float) -> None:
        if engine.life != life or not engine.is_up:
            return  # its word was lost with it
        job = self._open.pop(run.job_id)
        self.record.ended(job.asked, job.started_s, device_s, self.now)
        if self.etas:
            self.etas.ended(run.job_id, device_s, self.now)
        self._tell(JobSettled(run.job_id, device_s))

    def _boot(self) -> None:
        for group in self._plan.engines:
            for _ in range(group.count):
                name = f"{group.region}/{group.kind}/{len(self._engines)}"
                kind = self._plan.kinds[group.kind]
                engine = SimEngine(name, group.region, kind, is_spot=bool(group.spot_hours))
                self._engines[name], self._groups[name] = engine, group
                self._up(engine, self._that_fit(group.warm, kind))
        for outage in self._plan.outages:
            self._push(outage.at_s, _OUTAGE, outage, None)

    def _up(self, engine: SimEngine, warm: tuple[str, ...] = ()) -> None:
        engine.up(self.now)
        kind, group = engine.kind, self._groups[engine.name]
        for hours, is_spot in ((group.fail_hours, False), (group.spot_hours, True)):
            if hours:
                lost_at = self.now + self._faults.expovariate(1 / (hours * 3600))
                self._push(lost_at, _DOWN, engine, (engine.life, is_spot))
        for model in warm:
            self._heat(engine, model)
        up = EngineUp(
            engine.name,
            warm,
            kind.rows,
            budget_bytes=round(kind.models_gb * GB),
            staging_bytes=round(kind.staging_gb * GB),
        )
        self._tell(up)

    def _that_fit(self, warm: tuple[str, ...], kind: Kind) -> tuple[str, ...]:
        """The models that are warm at the beginning: the last of them that fit together."""
        held, ledger = list[str](), Ledger(round(kind.models_gb * GB))
        for model in reversed(warm):
            if ledger.fits(known := self._know(model)):
                ledger = ledger.plus(known)
                held.append(model)
        return tuple(reversed(held))

    def _lose(self, engine: SimEngine, away_s: float, reason: str, notice_s: float) -> None:
        for model in list(engine.models):
            self._cool(engine, model)
        engine.down(self.now)
        self.record.losses += 1
        self._push(self.now + notice_s, _GONE, engine, reason)
        self._push(self.now + max(away_s, notice_s), _UP, engine, None)

    def _push(self, at: float, what: int, one: Any, other: Any) -> None:
        self._order += 1
        heappush(self._heap, (at, self._order, what, one, other))
