"""Drives the line with the real clock, and carries out what it decides.

Every fact (a job queued, an engine warm, an attempt over) is one *turn*: the policy is told of it
and its decisions are carried out, in order, before the next fact is looked at. So the policy's view
and the store's can't drift apart: a job's state and the line change in the same turn. With them
goes a note of what everyone has been charged and what jobs were found to cost, so that the line
that a restart builds decides as this one would have.

Here are the turns of requests and of a restart. ``line`` carries decisions out, ``endings`` takes
the turns of attempts that are over, ``engines`` those of engines.
"""

from __future__ import annotations

from dataclasses import replace

from calotype.core.decisions import Decision
from calotype.core.events import JobCancelled, JobSettled, StartsBounded
from calotype.core.ids import new_id
from calotype.core.nouns import IdempotencyKey, Job, Spec, Tier
from calotype.core.states import JOB_MOVES, JobState, move
from calotype.flow import hopeless
from calotype.flow.attempt import Attempt
from calotype.flow.endings import Endings
from calotype.flow.engines import Engines
from calotype.flow.eta import NOTE, Eta, Etas
from calotype.flow.gate import Gate
from calotype.flow.judging import Judging
from calotype.flow.leases import LeaseKeeper
from calotype.flow.line import LiveLine
from calotype.flow.tools import Tools
from calotype.flow.warm import Warmth
from calotype.jobs.patience import patiently
from calotype.policy.rules import Rules
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry
from calotype.safety.errors import SafetyUnavailable


class Dispatcher:
    """The line, the running attempts, and the turns that keep them together."""

    def __init__(
        self,
        tools: Tools,
        pool: EnginePool,
        registry: ModelRegistry,
        gate: Gate,
        rules: Rules | None = None,
    ) -> None:
        self._judging = Judging(tools.finisher, self._bound)
        tools = replace(tools, finisher=self._judging, unread=self._judging.unread)
        self._tools, self._gate = tools, gate
        self._line = LiveLine(tools, pool, registry, gate, self._follow, rules=rules)
        self._registry = registry
        self.warmth = Warmth(self._line, pool, registry, tools.store, tools.larder)
        self._line.load = self.warmth.load
        self._engines = Engines(self._line, pool, self.warmth, tools.tried, tools.versions)
        self._endings = Endings(self._line, tools, pool, registry, self._engines)
        self._leases = LeaseKeeper(self._line, self._endings, tools)
        self._etas = Etas(self._line, pool, tools.store.keep, lambda: self._judging.failing)
        self._line.watch = self._etas.heard
        self._turns = self._line.turns

    async def start(self) -> None:
        """Rebuild the line from the store, then listen to the engines."""
        async with self._turns.take():
            await self._line.restore()
            self._etas.restore(await self._tools.store.note(NOTE))
            await self._gate.restore()
            await self.warmth.restore()
            for job in await self._tools.store.unfinished():
                if job.state is not JobState.IN_REVIEW:  # that is over for the line
                    await self._take_back(job)
        self._turns.run(self._engines.listen(), "calotype-dispatch")
        self._turns.run(self._leases.run(), "calotype-leases")
        self._turns.run(self._tools.store.stay_alone(), "calotype-alone")

    async def stop(self) -> None:
        """Stop listening and drop what runs; the store keeps it for the next start."""
        self._line.attempts.clear()
        self._line.stop()
        self._judging.stop()
        await self._turns.stop()

    async def queue(
        self,
        tenant: str,
        tier: Tier,
        spec: Spec,
        once: IdempotencyKey | None = None,
        *,
        user: str = "",
        job_id: str | None = None,
    ) -> Job:
        """Put a new job into the line and the store; it may start in the same turn.

        Raises what the gate does, which is asked in that turn, so that what it counts still holds
        when the job is written.
        """
        return await self._turns.whole(
            self._queue(job_id or new_id("job"), tenant, tier, spec=spec, once=once, user=user)
        )

    async def cancel(self, job_id: str, *, by: str) -> Job:
        """Cancel a job wherever it is; raises IllegalMove when it is over."""
        return await self._turns.whole(self._cancel(job_id, by))

    def depths(self) -> dict[str, dict[str, int]]:
        """How many jobs wait, and run, in each tier."""
        run = [attempt.job for attempt in self._line.attempts.values()]
        return {
            name: {tier.value: sum(job.tier is tier for job in jobs) for tier in Tier}
            for name, jobs in (("waiting", [*self._line.waiting.values()]), ("running", run))
        }

    async def models_seen(self) -> None:
        """Forget models that are gone, once no job wants them, and pin those that are pinned."""
        if self.warmth.removed:
            async with self._turns.take():
                await self.warmth.forget_removed()
        if self.warmth.has_other_pins:
            async with self._turns.take():
                await self.warmth.pin()

    def position(self, job_id: str) -> int | None:
        """The place in the line, 1 = next; None when it doesn't wait."""
        return self._etas.position(job_id)

    def eta(self, job: Job) -> Eta | None:
        """When a job that waits or runs will be done, and what it waits for; None of any other."""
        return self._etas.of(job.id, job.spec.model, job.tier)

    def progress(self, job_id: str) -> float:
        """Of a running job, 0..1; 0 for any other."""
        attempt = self._line.attempts.get(job_id)
        return attempt.progress if attempt else 0.0

    async def give_notice(self, engine: str, seconds: float) -> None:
        """An engine is to be taken away so soon: it gets no more work, and hands back what is left.

        Raises NotFound, InvalidInput, Conflict.
        """
        await self._engines.notices.give(engine, seconds)

    @property
    def fault(self) -> str | None:
        """Why nothing is dispatched any more; None while all is well."""
        return self._turns.fault

    async def broken(self) -> str:
        """Wait for a fault that only a restart can mend, and return it."""
        return await self._turns.broken()

    @property
    def checks_failing(self) -> dict[str, str]:
        """Safety checks that rest for a while, with the reason; nothing starts meanwhile."""
        return self._judging.failing

    def check_judged(self, down_s_max: float) -> None:
        """Refuse a new job while a check has been down for longer: it would only wait.

        Unless none waits: one has to be there to show that the check works again. Raises
        SafetyUnavailable.
        """
        down_s, failing = self._judging.down_s, self._judging.failing
        if down_s <= down_s_max or not (
            self._line.waiting or self._line.attempts or self._endings.held
        ):
            return
        names = ", ".join(failing) or "a check"
        raise SafetyUnavailable(
            f"pictures can't be judged ({names}: {next(iter(failing.values()), '')}); it has been "
            f"so for {down_s:,.0f} s, and no new jobs are taken until it works again",
            field=next(iter(failing), None),
            limit={"checks_down_s_max": down_s_max},
        )

    def _bound(self, running_max: int | None) -> None:
        self._turns.run(self._bound_starts(running_max), "calotype-bound")

    async def _bound_starts(self, running_max: int | None) -> None:
        async with self._turns.take():
            await self._line.tell(StartsBounded(running_max))

    async def _follow(self, attempt: Attempt) -> None:
        await self._endings.run(attempt)

    # Requests.

    async def _queue(
        self,
        job_id: str,
        tenant: str,
        tier: Tier,
        *,
        spec: Spec,
        once: IdempotencyKey | None,
        user: str,
    ) -> Job:
        async with self._turns.take_asked():
            line = self._line
            let = await self._gate.ask(job_id, tenant, tier, line.costs.predict_s(spec))
            with self._turns.part_of_one():
                await self.warmth.asked(self._registry.get(spec.model))
            decisions = line.on(line.queued(job_id, tenant, let.tier, spec, user=user))
            try:
                job = await patiently(
                    lambda: self._tools.store.insert(
                        tenant,
                        let.tier,
                        spec,
                        job_id=job_id,
                        once=once,
                        user=user,
                        fell_from=let.fell_from,
                        charged_s=let.charged_s,
                    )
                )
            except Exception:
                await self._forget(job_id, decisions)
                raise
            line.waiting[job_id] = job
            if self._tools.recorder:
                self._tools.recorder.asked(job)
            with self._turns.part_of_one():
                await line.carry_out(decisions)
            return job

    async def _forget(self, job_id: str, decisions: list[Decision]) -> None:
        """A job couldn't be written: take it out again, and carry out what concerns others."""
        line = self._line
        others = [it for it in decisions if getattr(it, "job_id", None) != job_id]
        with self._turns.part_of_one():
            line.over(job_id, 0.0)
            forget = line.on(JobCancelled(job_id)) + line.on(JobSettled(job_id, 0.0))
            await line.carry_out(others + forget)

    async def _cancel(self, job_id: str, by: str) -> Job:
        async with self._turns.take_asked():
            job = await patiently(lambda: self._tools.store.get(job_id))
            move(JOB_MOVES, job.state, JobState.CANCELLED)  # or it is refused, and nobody was told
            with self._turns.part_of_one():
                if job.state is JobState.IN_REVIEW:
                    return await patiently(lambda: self._tools.store.cancel(job_id, by=by))
                return await self._withdraw(job_id, by)

    async def _withdraw(self, job_id: str, by: str) -> Job:
        """Cancel a job everywhere. What it is charged is written with it: a crash parts neither."""
        line = self._line
        attempt = line.attempts.get(job_id)
        decisions, device_s = line.on(JobCancelled(job_id)), 0.0
        if attempt is not None:
            # Pictures half made were paid for too, or cancelling late would be free of charge.
            share = max(0.0, attempt.progress - attempt.begun)
            predicted_s = line.costs.predict_s(attempt.job.spec) * share
            device_s = max(attempt.device_s, predicted_s)
        device_s += self._tools.handed.of(job_id).device_s
        decisions += line.on(JobSettled(job_id, device_s))
        line.over(job_id, device_s)
        job = await patiently(lambda: self._tools.store.cancel(job_id, by=by))
        line.waiting.pop(job_id, None)
        self._endings.let_go(job_id)
        if attempt is not None:
            del line.attempts[job_id]
            await line.drop(attempt)
        await line.carry_out(decisions)
        return job

    # A restart.

    async def _take_back(self, job: Job) -> None:
        """Bring a stored, unfinished job into the line after a start, or give it up."""
        self._gate.resume(job, self._line.costs.predict_s(job.spec))
        await self._endings.take_back(job, hopeless.RESTARTED)
