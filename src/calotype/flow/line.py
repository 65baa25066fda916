"""The line as it runs: told facts by the real clock, its decisions carried out.

Everything here happens inside a turn (``turns``), which the caller has taken. Tables of jobs and of
attempts are changed nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import structlog

from calotype.core import limits
from calotype.core.decisions import (
    WHY,
    Decision,
    FailJob,
    HandBack,
    LoadModel,
    PromoteJob,
    RequeueJob,
    ReturnJob,
    StartAttempt,
)
from calotype.core.errors import CalotypeError, InternalError, PoisonJob
from calotype.core.events import AttemptFailed, JobQueued, PolicyEvent, TimePassed
from calotype.core.messages import CancelRow
from calotype.core.nouns import Job, Reserve, Spec, Tier
from calotype.core.states import AttemptState
from calotype.flow.alarm import Alarm
from calotype.flow.attempt import Attempt
from calotype.flow.costs import Costs
from calotype.flow.darkroom import Machine
from calotype.flow.gate import Gate
from calotype.flow.known import lines_of
from calotype.flow.standing import entries_of, standing_of
from calotype.flow.tools import Tools
from calotype.flow.turns import Turns
from calotype.jobs.patience import patiently
from calotype.policy.pools import Lines
from calotype.policy.rules import Rules
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry
from calotype.pool.reports import EngineDown

log = structlog.get_logger("calotype.dispatch")

LINE, COSTS = "line", "costs"  # the names of the store's notes

Follow = Callable[[Attempt], Coroutine[Any, Any, None]]
Load = Callable[[LoadModel], Awaitable[None]]
Watch = Callable[[PolicyEvent, float, list[Decision]], None]


class LiveLine:
    """The policy's line, the jobs that wait in it and the attempts that run."""

    def __init__(
        self,
        tools: Tools,
        pool: EnginePool,
        registry: ModelRegistry,
        gate: Gate,
        follow: Follow,
        *,
        rules: Rules | None,
    ) -> None:
        """``follow`` runs an attempt to its end, in a task of its own."""
        self._tools, self._pool, self._registry = tools, pool, registry
        self._rules = rules or Rules()
        self._line, self._follow = Lines(), follow
        self.gate = gate
        self.load: Load = _loads_nothing  # carries out the line's loads
        self.watch: Watch = lambda event, now, decisions: None  # told of each turn of the policy
        self.costs = Costs()
        self.turns = Turns()
        self.attempts: dict[str, Attempt] = {}  # by job id
        self.waiting: dict[str, Job] = {}  # by id
        self._since: dict[str, float] = {}  # when unfinished jobs came, by the monotonic clock
        self._alarm = Alarm(self._ring)  # for what is due though nothing happens
        self._now = 0.0  # the latest time the policy was told: it never goes back

    async def restore(self) -> None:
        """Take up what everyone was charged, and what jobs were found to cost, from the store."""
        standing = standing_of(await self._tools.store.note(LINE))
        rules = self._rules
        self._line = Lines(standing, rules)
        if self._tools.recorder:
            self._tools.recorder.began(rules, standing)
        self.costs = Costs(await self._tools.store.note(COSTS))

    @property
    def policy(self) -> Lines:
        """The policy's lines, to be read."""
        return self._line

    @property
    def models(self) -> list[str]:
        """What every engine loads."""
        return [model.name for model in self._registry.list()]

    def queued(
        self,
        job_id: str,
        tenant: str,
        tier: Tier,
        spec: Spec,
        attempt: int = 0,
        *,
        user: str,
        waited_s: float = 0.0,
    ) -> JobQueued:
        """A job as the policy sees it; ``attempt`` were begun and count against it.

        ``waited_s`` is for a job that this line never saw. Of others it knows, by a clock that
        nobody sets.
        """
        now = time.monotonic()
        since = self._since.setdefault(job_id, now - waited_s)
        return JobQueued(
            job_id=job_id,
            tenant=tenant,
            tier=tier,
            user=user,
            model=spec.model,
            rows=spec.n,
            cost_s=self.costs.predict_s(spec),
            # A server that was stopped is no fault of the job: it has one more attempt.
            attempt=min(attempt, limits.ATTEMPTS_MAX - 1),
            waited_s=now - since,
            adapters=self._adapters(spec),
            pool=spec.pool,
        )

    def _adapters(self, spec: Spec) -> tuple[Reserve, ...]:
        if not (spec.loras or spec.controls):
            return ()
        devices = [engine.device for engine in self._pool.health() if engine.device]
        adapters = self._tools.larder.named(spec)
        return lines_of(self._registry.get(spec.model), adapters, devices)

    def on(self, event: PolicyEvent) -> list[Decision]:
        """Tell the line; what everyone is charged after it is written with the next change."""
        now = self._now = max(self._now, time.monotonic())
        decisions = self._line.on(event, now)
        if self._tools.recorder:
            self._tools.recorder.told(event, now, decisions)
        self.watch(event, now, decisions)
        self._tools.store.keep(LINE, self._standing)
        self._alarm.set(self._due(now))
        return decisions

    def _due(self, now: float) -> float | None:
        """When to tell the line that time has passed; each minute where it loads by foresight."""
        deadline = self._line.next_deadline()
        if not self._line.loads_on_demand:
            return deadline
        tick = now + limits.LINE_TICK_S
        return tick if deadline is None else min(deadline, tick)

    async def tell(self, event: PolicyEvent) -> None:
        """Tell the line, and carry out what it decides."""
        is_reported = isinstance(event, AttemptFailed)
        outcome = AttemptState.FAILED if is_reported else AttemptState.LOST
        await self.carry_out(self.on(event), outcome)

    async def carry_out(
        self, decisions: Iterable[Decision], outcome: AttemptState = AttemptState.LOST
    ) -> None:
        """Carry out decisions in order; ``outcome`` is that of the attempts they end."""
        for decision in decisions:
            match decision:
                case StartAttempt():
                    await self._start(decision)
                case PromoteJob(job_id=job_id, waited_s=waited_s):
                    await self._promote(job_id, waited_s)
                case RequeueJob(job_id=job_id, reason=reason):
                    await self._requeue(job_id, reason, outcome)
                case HandBack(job_id=job_id):
                    await self._hand_back(job_id)
                case ReturnJob(job_id=job_id, reason=reason):
                    await self._requeue(job_id, reason, AttemptState.HANDED_BACK)
                case LoadModel() as load:
                    await self.load(load)
                case FailJob(job_id=job_id, reason=reason, is_poison=is_poison):
                    given_up = PoisonJob if is_poison else InternalError
                    await self.fail(job_id, given_up(f"the picture couldn't be made: {reason}"))

    def left_s(self, job: Job) -> float:
        """Device-seconds that a job will take, as predicted now, beside what is done of it."""
        done = self._tools.handed.of(job.id).share(job.spec.n)
        return self.costs.predict_s(job.spec) * (1.0 - done)

    def over(self, job_id: str, device_s: float, *, are_delivered: bool = False) -> None:
        """A job is over, or was never written; ``device_s`` is what its tenant pays for it.

        ``are_delivered``: its pictures, those too that engines had finished which went.
        """
        self._since.pop(job_id, None)
        self._tools.handed.forget(job_id, are_delivered=are_delivered)
        self.gate.ended(job_id, device_s)

    async def fail(self, job_id: str, error: CalotypeError) -> None:
        """Give the job up, wherever it is; the line was told, or decided it."""
        self.waiting.pop(job_id, None)
        attempt = self.attempts.pop(job_id, None)
        if attempt is not None:
            await self.drop(attempt)
        lease = attempt.lease if attempt else None
        self.over(job_id, 0.0)
        await patiently(
            lambda: self._tools.store.fail(
                job_id, error.problem(), lease=lease, is_poison=isinstance(error, PoisonJob)
            )
        )
        log.warning("job_failed", job=job_id, reason=error.detail)

    async def drop(self, attempt: Attempt) -> None:
        """End an attempt that is over for the line: its task, and its rows on the engine."""
        if attempt.task is not None and attempt.task is not asyncio.current_task():
            attempt.task.cancel()
            await asyncio.gather(attempt.task, return_exceptions=True)
        try:
            for row in attempt.row_ids():
                await self._pool.send(attempt.lease.engine, CancelRow(row))
        except EngineDown:
            pass  # then it holds no rows

    def stop(self) -> None:
        """Nothing is due any more."""
        self._alarm.set(None)

    def _standing(self) -> dict[str, Any]:
        return entries_of(self._line.standing())

    def _ring(self, due: float) -> None:
        self._now = max(self._now, due)  # a timer can be early
        self.turns.run(self._time_passed(), "calotype-time")

    async def _time_passed(self) -> None:
        async with self.turns.take():
            await self.tell(TimePassed())

    async def _promote(self, job_id: str, waited_s: float) -> None:
        log.info("job_promoted", job=job_id, waited_s=round(waited_s, 1))
        await patiently(lambda: self._tools.store.promote(job_id, waited_s, WHY["promoted"]))

    async def _start(self, start: StartAttempt) -> None:
        job_id, engine = start.job_id, start.engine
        job = self.waiting.pop(job_id)
        if (whose := self._pool.pool_of(engine)) != job.spec.pool:  # never, by the policy's lines
            raise InternalError(f"a job of pool {job.spec.pool!r} can't start on one of {whose!r}")
        why = "" if start.why == "turn" else WHY[start.why]
        lease = await patiently(lambda: self._tools.store.lease(job_id, engine, why))
        machine = next(
            Machine(health.torch or "", health.device or "")
            for health in self._pool.health()
            if health.name == engine
        )
        model = self._registry.get(job.spec.model)
        attempt = Attempt(job, lease, model, machine, self._tools)
        self.attempts[job_id] = attempt
        attempt.task = self.turns.run(self._follow(attempt), f"attempt-{job_id}")

    async def _requeue(self, job_id: str, reason: str, outcome: AttemptState) -> None:
        attempt = self.attempts.pop(job_id)
        await self.drop(attempt)
        if outcome is AttemptState.FAILED:  # maybe by what was kept
            self._tools.handed.forget(job_id)
        images = [told for _, told in sorted(attempt.returned.items())]
        self.waiting[job_id] = await patiently(
            lambda: self._tools.store.requeue(attempt.lease, reason, outcome=outcome, images=images)
        )
        said = "handed_back" if outcome is AttemptState.HANDED_BACK else "attempt_lost"
        log.warning(said, job=job_id, attempt=attempt.lease.attempt, reason=reason)

    async def _hand_back(self, job_id: str) -> None:
        if attempt := self.attempts.get(job_id):
            with contextlib.suppress(EngineDown):  # its loss is on its way, and brings the job back
                await attempt.hand_back(self._pool.send)


async def _loads_nothing(load: LoadModel) -> None:
    raise InternalError(f"nobody was told to load {load.model}")
