"""Drives the line with the real clock, and carries out what it decides.

Every fact (a job queued, an engine warm, an attempt over) is one *turn*: the policy is told of it
and its decisions are carried out, in order, before the next fact is looked at. So the policy's view
and the store's can't drift apart: a job's state and the line change in the same turn. With them
goes a note of what everyone has been charged and what jobs were found to cost, so that the line
that a restart builds decides as this one would have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import structlog

from calotype.core import limits
from calotype.core.decisions import Decision, FailJob, RequeueJob, StartAttempt
from calotype.core.errors import CalotypeError, InternalError, ModelBroken
from calotype.core.events import (
    AttemptFailed,
    EngineGone,
    EngineUp,
    JobCancelled,
    JobQueued,
    JobSettled,
    PolicyEvent,
)
from calotype.core.ids import new_id
from calotype.core.messages import CancelRow, RowDone, RowFailed, RowStarted, StepDone
from calotype.core.nouns import Job, Spec, Tier
from calotype.core.states import AttemptState, JobState
from calotype.flow import hopeless
from calotype.flow.attempt import Attempt, Machine, Picture, RowsFailed, Tools
from calotype.flow.costs import Costs
from calotype.flow.turns import Turns
from calotype.jobs.patience import patiently
from calotype.policy.line import Line
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry
from calotype.pool.reports import EngineDown, EngineLost, EngineWarm, Report
from calotype.safety.errors import SafetyUnavailable

log = structlog.get_logger("calotype.dispatch")

LINE, COSTS = "line", "costs"  # the names of the store's notes


async def _no_check() -> None:
    """For a job that is let in as it is."""


class Dispatcher:
    """The line, the running attempts, and the turns that keep them together."""

    def __init__(self, tools: Tools, pool: EnginePool, registry: ModelRegistry) -> None:
        self._tools, self._pool, self._registry = tools, pool, registry
        self._line, self._costs = Line(), Costs()
        self._turns = Turns()
        self._attempts: dict[str, Attempt] = {}  # by job id
        self._jobs: dict[str, Job] = {}  # that wait in the line, by id
        self._held: dict[str, asyncio.Task[None]] = {}  # by job id: brings it back into the line

    async def start(self) -> None:
        """Rebuild the line from the store, then listen to the engines."""
        store = self._tools.store
        async with self._turns.take():
            self._line = Line(await store.note(LINE))
            self._costs = Costs(await store.note(COSTS))
            for job in await store.unfinished():
                await self._take_back(job)
        self._turns.run(self._listen(), "calotype-dispatch")

    async def stop(self) -> None:
        """Stop listening and drop what runs; the store keeps it for the next start."""
        self._attempts.clear()
        await self._turns.stop()

    async def queue(
        self,
        tenant: str,
        tier: Tier,
        spec: Spec,
        check: Callable[[], Awaitable[None]] = _no_check,
    ) -> Job:
        """Put a new job into the line and the store; it may start in the same turn.

        What ``check`` raises keeps it out: it is asked in that turn, so that what it counts still
        holds when the job is written.
        """
        return await self._turns.whole(self._queue(tenant, tier, spec, check))

    async def cancel(self, job_id: str, *, by: str) -> Job:
        """Cancel a job wherever it is; raises IllegalMove when it is over."""
        return await self._turns.whole(self._cancel(job_id, by))

    def position(self, job_id: str) -> int | None:
        """The place in the line, 1 = next; None when it doesn't wait."""
        return self._line.position(job_id)

    def progress(self, job_id: str) -> float:
        """Of a running job, 0..1; 0 for any other."""
        attempt = self._attempts.get(job_id)
        return attempt.progress if attempt else 0.0

    @property
    def fault(self) -> str | None:
        """Why nothing is dispatched any more; None while all is well."""
        return self._turns.fault

    async def broken(self) -> str:
        """Wait for a fault that only a restart can mend, and return it."""
        return await self._turns.broken()

    # Requests.

    async def _queue(
        self, tenant: str, tier: Tier, spec: Spec, check: Callable[[], Awaitable[None]]
    ) -> Job:
        async with self._turns.take_asked():
            await check()
            job_id = new_id("job")
            decisions = self._on(self._queued(job_id, tenant, tier, spec))
            position = self._line.position(job_id) or 1  # a job that starts at once was next
            try:
                job = await patiently(
                    lambda: self._tools.store.insert(
                        tenant, tier, spec, position=position, job_id=job_id
                    )
                )
            except Exception:
                others = [it for it in decisions if it.job_id != job_id]
                with self._turns.part_of_one():
                    forget = self._on(JobCancelled(job_id)) + self._on(JobSettled(job_id, 0.0))
                    await self._carry_out(others + forget)
                raise
            self._jobs[job_id] = job
            with self._turns.part_of_one():
                await self._carry_out(decisions)
            return job

    async def _cancel(self, job_id: str, by: str) -> Job:
        async with self._turns.take_asked():
            job = await patiently(lambda: self._tools.store.cancel(job_id, by=by))
            with self._turns.part_of_one():
                await self._withdraw(job_id)
            return job

    async def _withdraw(self, job_id: str) -> None:
        """A job was cancelled in the store; so it is everywhere else."""
        self._jobs.pop(job_id, None)
        if (held := self._held.pop(job_id, None)) is not None:
            held.cancel()
        attempt = self._attempts.pop(job_id, None)
        if attempt is not None:
            await self._drop(attempt)
        decisions = self._on(JobCancelled(job_id))
        if attempt is not None:
            # Pictures half made were paid for too, or cancelling late would be free of charge.
            predicted_s = self._costs.predict_s(attempt.job.spec) * attempt.progress
            decisions += self._on(JobSettled(job_id, max(attempt.device_s, predicted_s)))
        await self._carry_out(decisions)
        await patiently(self._tools.store.write_notes)

    # Turns.

    def _on(self, event: PolicyEvent) -> list[Decision]:
        """Tell the line; what everyone is charged after it is written with the next change."""
        decisions = self._line.on(event, time.monotonic())
        self._tools.store.keep(LINE, self._line.standing)
        return decisions

    async def _tell(self, event: PolicyEvent) -> None:
        is_reported = isinstance(event, AttemptFailed)
        outcome = AttemptState.FAILED if is_reported else AttemptState.LOST
        await self._carry_out(self._on(event), outcome)

    async def _carry_out(
        self, decisions: Iterable[Decision], outcome: AttemptState = AttemptState.LOST
    ) -> None:
        """Carry out decisions in order; ``outcome`` is that of the attempts they end."""
        for decision in decisions:
            match decision:
                case StartAttempt(job_id=job_id, engine=engine):
                    await self._start(job_id, engine)
                case RequeueJob(job_id=job_id, reason=reason):
                    await self._requeue(job_id, reason, outcome)
                case FailJob(job_id=job_id, reason=reason):
                    error = InternalError(f"the picture couldn't be made: {reason}")
                    await self._fail(job_id, error)

    async def _start(self, job_id: str, engine: str) -> None:
        job = self._jobs.pop(job_id)
        lease = await patiently(lambda: self._tools.store.lease(job_id, engine))
        machine = next(
            Machine(health.torch or "", health.device or "")
            for health in self._pool.health()
            if health.name == engine
        )
        model = self._registry.get(job.spec.model)
        attempt = Attempt(job, lease, model, machine, self._tools)
        self._attempts[job_id] = attempt
        attempt.task = self._turns.run(self._run(attempt), f"attempt-{job_id}")

    async def _requeue(self, job_id: str, reason: str, outcome: AttemptState) -> None:
        attempt = self._attempts.pop(job_id)
        await self._drop(attempt)
        position = self._line.position(job_id) or 1
        self._jobs[job_id] = await patiently(
            lambda: self._tools.store.requeue(
                attempt.lease, reason, position=position, outcome=outcome
            )
        )
        log.warning("attempt_lost", job=job_id, attempt=attempt.lease.attempt, reason=reason)

    async def _fail(self, job_id: str, error: CalotypeError) -> None:
        self._jobs.pop(job_id, None)
        attempt = self._attempts.pop(job_id, None)
        if attempt is not None:
            await self._drop(attempt)
        lease = attempt.lease if attempt else None
        await patiently(lambda: self._tools.store.fail(job_id, error.problem(), lease=lease))
        log.warning("job_failed", job=job_id, reason=error.detail)

    async def _drop(self, attempt: Attempt) -> None:
        """End an attempt that is over for the line: its task, and its rows on the engine."""
        if attempt.task is not None and attempt.task is not asyncio.current_task():
            attempt.task.cancel()
            await asyncio.gather(attempt.task, return_exceptions=True)
        try:
            for row in attempt.row_ids():
                await self._pool.send(attempt.lease.engine, CancelRow(row))
        except EngineDown:
            pass  # then it holds no rows

    # Attempts.

    async def _run(self, attempt: Attempt) -> None:
        """Follow one attempt to its end, then take the turn that ends it."""
        try:
            await self._follow(attempt)
        finally:
            await attempt.clean_up()

    async def _follow(self, attempt: Attempt) -> None:
        job_id = attempt.job.id
        try:
            await attempt.send(self._pool.send)
            pictures = await attempt.follow()
        except RowsFailed as error:
            failed = AttemptFailed(job_id, error.reason, error.is_retryable)
            await self._end(attempt, failed)
        except SafetyUnavailable as error:
            await self._hold(attempt, error)
        except CalotypeError as error:
            log.error("attempt_failed", job=job_id, reason=error.detail)
            await self._end(attempt, AttemptFailed(job_id, error.detail, is_retryable=True))
        except Exception as error:  # a fault of ours: the job must not hang
            log.exception("attempt_broke", job=job_id)
            reason = f"{type(error).__name__} while its pictures were followed"
            await self._end(attempt, AttemptFailed(job_id, reason, is_retryable=True))
        else:
            await self._complete(attempt, pictures)

    async def _end(self, attempt: Attempt, failed: AttemptFailed) -> None:
        async with self._turn_of(attempt) as is_current:
            if is_current:
                await self._tell(failed)

    async def _hold(self, attempt: Attempt, error: SafetyUnavailable) -> None:
        """No verdict, no picture: the job waits, and is run again, until it can be judged."""
        job_id, store = attempt.job.id, self._tools.store
        async with self._turn_of(attempt) as is_current:
            if not is_current:
                return
            log.error("pending_safety", job=job_id, reason=error.detail)
            tries = await patiently(lambda: store.attempts(job_id))
            decisions = self._on(JobSettled(job_id, 0.0))  # it isn't the tenant's check that fails
            if tries.get(AttemptState.HELD, 0) + 1 < limits.SAFETY_TRIES_MAX:
                del self._attempts[job_id]
                await self._drop(attempt)
                job = await patiently(lambda: store.hold(attempt.lease, error.detail))
                self._held[job_id] = self._turns.run(self._run_again(job), f"held-{job_id}")
            else:
                await self._fail(job_id, hopeless.unjudged(error.detail))
            await self._carry_out(decisions)

    async def _run_again(self, held: Job) -> None:
        await asyncio.sleep(limits.SAFETY_RETRY_S)
        async with self._turns.take():
            if self._held.pop(held.id, None) is not None:  # else cancelled meanwhile
                tries = await patiently(lambda: self._tools.store.attempts(held.id))
                await self._put_back(held, tries, "its pictures are made again, to be judged")

    async def _complete(self, attempt: Attempt, pictures: list[Picture]) -> None:
        job = attempt.job
        async with self._turn_of(attempt) as is_current:
            if not is_current:
                return
            self._costs.learn(job.spec, attempt.device_s)
            self._tools.store.keep(COSTS, self._costs.kept)
            decisions = self._on(JobSettled(job.id, attempt.device_s))
            await attempt.record(pictures)
            del self._attempts[job.id]
            await self._carry_out(decisions)

    @asynccontextmanager
    async def _turn_of(self, attempt: Attempt) -> AsyncIterator[bool]:
        """The turn that ends an attempt; False if another has ended it.

        Looked at before as well: who ends an attempt waits for its task, in a turn of his own.
        """
        if not self._is_current(attempt):
            yield False
            return
        async with self._turns.take():
            yield self._is_current(attempt)

    def _is_current(self, attempt: Attempt) -> bool:
        return self._attempts.get(attempt.job.id) is attempt

    # Engines.

    async def _listen(self) -> None:
        async for report in self._pool.reports():
            match report.message:
                case EngineWarm(models=models, rows_max=rows_max, costs=costs):
                    async with self._turns.take():
                        self._costs.begin(costs)
                        await self._fail_unloadable()
                        await self._tell(EngineUp(report.engine, models, rows_max))
                case EngineLost(reason=reason):
                    log.error("engine_lost", engine=report.engine, reason=reason)
                    async with self._turns.take():
                        await self._tell(EngineGone(report.engine, reason))
                case RowStarted() | StepDone() | RowDone() | RowFailed():
                    await self._deliver(report)
                case _:
                    log.warning("report_ignored", report=type(report.message).__name__)

    async def _fail_unloadable(self) -> None:
        """Give up the jobs that wait for a model which no engine could load."""
        failed = hopeless.unloadable(self._pool.health())
        for job in [job for job in self._jobs.values() if job.spec.model in failed]:
            decisions = self._on(JobCancelled(job.id))
            model = job.spec.model
            error = ModelBroken(f"no engine could load {model}: {failed[model]}", field="model")
            await self._fail(job.id, error)
            await self._carry_out(decisions)

    async def _deliver(self, report: Report) -> None:
        """Put a row's report into its attempt's inbox; late ones of older attempts are dropped."""
        row: str = report.message.row  # type: ignore[union-attr]
        job_id, token, _ = row.split("/")
        attempt = self._attempts.get(job_id)
        if attempt is not None and str(attempt.lease.token) == token:
            await attempt.hear(report)

    # Jobs as the policy sees them.

    async def _take_back(self, job: Job) -> None:
        """Bring a stored, unfinished job into the line after a start, or give it up."""
        tries = await self._tools.store.attempts(job.id) if job.attempt else {}
        error = hopeless.after_restart(job, tries, self._registry)
        if error is None:
            await self._put_back(job, tries, "the server was restarted")
        else:
            await self._fail(job.id, error)

    async def _put_back(self, job: Job, tries: hopeless.Tries, reason: str) -> None:
        """Have a stored job wait in the line, as new or after an attempt that nobody holds."""
        store, begun = self._tools.store, hopeless.charged(job, tries)
        decisions = self._on(self._queued(job.id, job.tenant, job.tier, job.spec, begun))
        if job.state is not JobState.QUEUED:
            position = self._line.position(job.id) or 1
            job = await patiently(lambda: store.requeue_orphan(job.id, reason, position=position))
        self._jobs[job.id] = job
        await self._carry_out(decisions)

    def _queued(
        self, job_id: str, tenant: str, tier: Tier, spec: Spec, attempt: int = 0
    ) -> JobQueued:
        return JobQueued(
            job_id=job_id,
            tenant=tenant,
            tier=tier,
            model=spec.model,
            rows=spec.n,
            cost_s=self._costs.predict_s(spec),
            # A server that was stopped is no fault of the job: it has one more attempt.
            attempt=min(attempt, limits.ATTEMPTS_MAX - 1),
        )
