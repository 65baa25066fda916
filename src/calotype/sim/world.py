"""The loop: traffic, engines and the production line on one heap of events in virtual time.

Everything the line is told and everything it decides crosses a wire with a delay, as on a real
fleet: a decision reaches the engine ``delay_s`` later, and so does the engine's word the line. What
becomes of the machines is in ``machines``; here are the jobs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Any

from calotype.core.decisions import (
    Decision,
    FailJob,
    HandBack,
    LoadModel,
    PromoteJob,
    RequeueJob,
    ReturnJob,
    StartAttempt,
)
from calotype.core.events import (
    JobHandedBack,
    JobQueued,
    JobSettled,
    ModelKnown,
    PolicyEvent,
    TimePassed,
)
from calotype.core.limits import LINE_TICK_S
from calotype.policy.line import Line
from calotype.policy.predict import Keeper
from calotype.policy.rules import Rules
from calotype.policy.scale import LOOK_S
from calotype.sim.baselines import POLICIES
from calotype.sim.engines import Run, SimEngine
from calotype.sim.eta import Etas
from calotype.sim.fleet import FleetPlan
from calotype.sim.jobs import Asked, Costs
from calotype.sim.machines import Machines
from calotype.sim.record import Record
from calotype.sim.scaling import Scaling

# What can happen, besides a job's arrival and what does to machines.
_JOIN, _END, _TOLD, _LEAVE, _BACK, _LOOK = range(6)
_NOISE = 0.08  # what a job takes differs from what was predicted: standard deviation of its log


class _Open:
    """A job that isn't over."""

    __slots__ = (
        "asked",
        "cost_s",
        "image_s",
        "is_called_back",
        "is_hit",
        "left",
        "spent_s",
        "started_s",
    )

    def __init__(self, asked: Asked, image_s: float, cost_s: float, *, is_hit: bool) -> None:
        self.asked, self.is_hit = asked, is_hit  # hit: its model was warm when it came
        self.image_s = image_s  # what each of its images really takes
        self.cost_s = cost_s  # predicted, of all of it
        self.started_s = -1.0
        self.left = 1.0  # the share of it that is to do in the attempt that runs, or comes
        self.spent_s = 0.0  # device-seconds of what was handed back
        self.is_called_back = False  # before it had joined its engine


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
        self._heap: list[tuple[float, int, int, Any, Any]] = []
        self._order = 0
        self._open: dict[str, _Open] = {}
        self._numbers = 0
        self._coming: Asked | None = None
        self._told_at = 0.0
        self.now = 0.0
        self.record = Record(plan, measured_from_s)
        self._machines = Machines(plan, self, self.record, seed)
        self._scaling = Scaling(plan) if plan.is_scaled else None
        self.etas: Etas | None = None
        if etas_every and policy == "ours":
            self.etas = Etas(costs, self._line, self._machines.engines, etas_every)

    def run(self) -> Record:
        """Play until the traffic is over and no job waits or runs that still can."""
        self._machines.begin()
        coming = self._coming = next(self._jobs, None)
        if self._scaling:
            self._look(self._scaling)
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
                self.tell(TimePassed())
            elif then == float("inf"):
                break  # what waits can't run on any engine
            elif coming is not None and coming_s <= event_s:
                self._arrive(coming)
                coming = self._coming = next(self._jobs, None)
            else:
                self.now, _, what, one, other = heappop(self._heap)
                self._happen(what, one, other)
        self.record.close(self.now, self._machines.engines.values(), len(self._open))
        return self.record

    def _arrive(self, asked: Asked) -> None:
        self.now = max(self.now, asked.at_s)
        predicted_s = self._costs.image_s(asked)
        self._numbers += 1
        job_id = f"j{self._numbers}"
        adapters = self._plan.adapters(asked.loras)
        self._machines.needs(asked.model)
        if refusal := self._machines.refusal(asked.model, adapters):
            self.record.refused(asked, refusal, self.now)
            return
        noise = self._noise.lognormvariate(0.0, _NOISE) if asked.device_s is None else 1.0
        cost_s = predicted_s * asked.n
        is_hit = self._machines.is_warm(asked.model)
        self._open[job_id] = _Open(asked, predicted_s * noise, cost_s, is_hit=is_hit)
        self.record.arrived(asked, self.now)
        if self.etas:
            self.etas.coming(job_id, asked)
        queued = JobQueued(
            *(job_id, asked.tenant, asked.tier, asked.model, asked.n, cost_s),
            user=asked.user,
            adapters=adapters,
        )
        if self._scaling:
            self._scaling.queued(queued, self.now)
            self._scaling.waits(asked, cost_s)
        self.tell(queued)
        if self.etas:
            self.etas.queued(job_id, self.now)

    def _look(self, scaling: Scaling) -> None:
        """How many machines there should be; no more looks once nothing could come of them."""
        decisions = scaling.look(self.now)
        for decision in decisions:
            self._machines.keep(decision)
        for name, count in self._machines.counts().items():
            self.record.engines(name, count, self.now)
        if self._heap or self._coming or decisions:
            self.push(self.now + LOOK_S, _LOOK, scaling, None)

    def tell(self, event: PolicyEvent) -> None:
        """Tell the line, and carry out what it decides."""
        self._told_at = self.now
        if self._scaling and isinstance(event, ModelKnown):
            self._scaling.known(event)
        for decision in self._line.on(event, self.now):
            self._carry_out(decision)

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case StartAttempt():
                self._start(decision)
            case LoadModel():
                self._machines.load(decision)
            case HandBack(job_id, name):
                engine = self._machines.engines[name]
                self.push(self.now + self._plan.delay_s, _LEAVE, engine, (engine.life, job_id))
            case RequeueJob(job_id) | ReturnJob(job_id):
                self._again(job_id, is_retry=isinstance(decision, RequeueJob))
            case FailJob():
                self.record.failed(self._open.pop(decision.job_id).asked)
                if self.etas:
                    self.etas.failed(decision.job_id)
            case PromoteJob():
                self.record.promoted += 1

    def _again(self, job_id: str, *, is_retry: bool) -> None:
        job = self._open[job_id]
        self.record.again(job.asked, is_retry=is_retry)
        if self._scaling:
            self._scaling.waits(job.asked, job.cost_s * job.left)

    def _start(self, start: StartAttempt) -> None:
        job, engine = self._open[start.job_id], self._machines.engines[start.engine]
        job.is_called_back = False
        engine.sent += 1
        if job.started_s < 0:
            job.started_s = self.now
        if self._scaling:
            self._scaling.waits(job.asked, -job.cost_s * job.left)
        missing = engine.needs_loras(job.asked.loras)
        self.record.started(job.asked, start, missing, self.now, is_hit=job.is_hit)
        at = self.now + self._plan.delay_s
        if missing:
            at += self._machines.took_s(self._plan.loading.lora_s * missing)
        run = Run(start.job_id, job.asked.n, job.image_s * job.left)
        if self.etas:
            self.etas.started(engine, run)
        self.push(at, _JOIN, (engine, engine.life), (run, at - self.now - self._plan.delay_s))

    def _happen(self, what: int, one: Any, other: Any) -> None:
        if what == _END:
            if one.version == other:
                self._end(one)
        elif what == _TOLD:
            self._settled(*one)
        elif what == _JOIN:
            self._join(*one, *other)
        elif what == _LOOK:
            self._look(one)
        elif what == _LEAVE:
            self._leave(one, *other)
        elif what == _BACK:
            self._returned(one, *other)
        else:
            self._machines.happen(what, one, other)

    def _join(self, engine: SimEngine, life: int, run: Run, load_s: float) -> None:
        if engine.life != life or not engine.is_up:
            return
        engine.loaded(load_s)
        if self._open[run.job_id].is_called_back:
            self._hand_back(engine, run, 0.0, 1.0)
        else:
            self.push(engine.join(run, self.now), _END, engine, engine.version)

    def _end(self, engine: SimEngine) -> None:
        run, device_s, next_s = engine.end(self.now)
        self.push(self.now + self._plan.delay_s, _TOLD, (engine, engine.life, run, device_s), None)
        if next_s is not None:
            self.push(next_s, _END, engine, engine.version)

    def _settled(self, engine: SimEngine, life: int, run: Run, device_s: float) -> None:
        if engine.life != life or not engine.is_up:
            return  # its word was lost with it
        job = self._open.pop(run.job_id)
        self.record.ended(job.asked, job.started_s, job.spent_s + device_s, self.now)
        if self.etas:
            self.etas.ended(run.job_id, job.spent_s + device_s, self.now)
        engine.sent -= 1
        self.tell(JobSettled(run.job_id, job.spent_s + device_s))
        if engine.is_leaving:
            self._machines.released(engine)

    def _leave(self, engine: SimEngine, life: int, job_id: str) -> None:
        """An engine that is to be taken away gives a job's rows back, where they are."""
        if engine.life != life or not engine.is_up or job_id not in self._open:
            return
        if (left := engine.leave(job_id, self.now)) is None:
            self._open[job_id].is_called_back = True  # or it has just ended, and its word comes
            return
        run, device_s, share, next_s = left
        self._hand_back(engine, run, device_s, share)
        if next_s is not None:
            self.push(next_s, _END, engine, engine.version)

    def _hand_back(self, engine: SimEngine, run: Run, device_s: float, share: float) -> None:
        at = self.now + self._plan.delay_s
        self.push(at, _BACK, engine, (engine.life, run.job_id, device_s, share))

    def _returned(
        self, engine: SimEngine, life: int, job_id: str, device_s: float, share: float
    ) -> None:
        if engine.life != life or not engine.is_up:
            return
        job = self._open[job_id]
        job.left *= share
        job.spent_s += device_s
        engine.sent -= 1
        if self.etas:
            self.etas.handed_back(job_id, share)
        self.tell(JobHandedBack(job_id, device_s, job.cost_s * job.left))
        self._machines.released(engine)

    def push(self, at: float, what: int, one: Any, other: Any) -> None:
        """Have something happen."""
        self._order += 1
        heappush(self._heap, (at, self._order, what, one, other))
