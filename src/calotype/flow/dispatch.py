"""Drives the line with the real clock, and carries out what it decides.

Every fact (a job queued, an engine warm, an attempt over) is one *turn*: the policy is told of it
and its decisions are carried out, in order, before the next fact is looked at. So the policy's view
and the store's can't drift apart: a job's state and the line change in the same turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import structlog

from calotype.core import limits
from calotype.core.cost import CostModel
from calotype.core.decisions import Decision, FailJob, RequeueJob, StartAttempt
from calotype.core.errors import CalotypeError, InternalError, Refused
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
from calotype.core.states import AttemptState
from calotype.flow.attempt import Attempt, Machine, Picture, RowsFailed, Tools
from calotype.policy.line import Line
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry
from calotype.pool.reports import EngineDown, EngineLost, EngineWarm, Report
from calotype.safety.errors import SafetyUnavailable

log = structlog.get_logger("calotype.dispatch")


class Dispatcher:
    """The line, the running attempts, and the turns that keep them together."""

    def __init__(self, tools: Tools, pool: EnginePool, registry: ModelRegistry) -> None:
        self._tools, self._pool, self._registry = tools, pool, registry
        self._line = Line()
        self._turn = asyncio.Lock()
        self._attempts: dict[str, Attempt] = {}  # by job id
        self._jobs: dict[str, Job] = {}  # that wait in the line, by id
        self._costs: dict[str, CostModel] = {}  # by model
        self._listener: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Rebuild the line from the store, then listen to the engines."""
        async with self._turn:
            for job in await self._tools.store.unfinished():
                await self._take_back(job)
        self._listener = asyncio.create_task(self._listen(), name="calotype-dispatch")

    async def stop(self) -> None:
        """Stop listening and drop what runs; the store keeps it for the next start."""
        tasks = [attempt.task for attempt in self._attempts.values() if attempt.task]
        tasks += [self._listener] if self._listener else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def queue(self, tenant: str, tier: Tier, spec: Spec) -> Job:
        """Put a new job into the line and the store; it may start in the same turn."""
        async with self._turn:
            job_id = new_id("job")
            event = self._queued(job_id, tenant, tier, spec)
            decisions = self._line.on(event, time.monotonic())
            # A job that starts at once was next.
            position = self._line.position(job_id) or 1
            try:
                job = await self._tools.store.insert(
                    tenant, tier, spec, position=position, job_id=job_id
                )
            except BaseException:
                forget = self._line.on(JobCancelled(job_id), time.monotonic())
                others = [it for it in decisions if it.job_id != job_id]
                await self._carry_out(others + forget)
                raise
            self._jobs[job_id] = job
            await self._carry_out(decisions)
            return job

    async def cancel(self, job_id: str, *, by: str) -> Job:
        """Cancel a job wherever it is; raises IllegalMove when it is over."""
        async with self._turn:
            job = await self._tools.store.cancel(job_id, by=by)
            self._jobs.pop(job_id, None)
            attempt = self._attempts.pop(job_id, None)
            if attempt is not None:
                await self._drop(attempt)
            await self._tell(JobCancelled(job_id))
            if attempt is not None:
                await self._tell(JobSettled(job_id, attempt.device_s))
            return job

    def position(self, job_id: str) -> int | None:
        """The place in the line, 1 = next; None when it doesn't wait."""
        return self._line.position(job_id)

    def progress(self, job_id: str) -> float:
        """Of a running job, 0..1; 0 for any other."""
        attempt = self._attempts.get(job_id)
        return attempt.progress if attempt else 0.0

    @property
    def fault(self) -> str | None:
        """Why nothing is dispatched any more, if a fault of ours has ended the listening."""
        if self._listener is None or not self._listener.done():
            return None
        if self._listener.cancelled():
            return "the server is stopping"
        return f"the dispatcher broke: {self._listener.exception()!r}"

    # Turns.

    async def _tell(self, event: PolicyEvent) -> None:
        decisions = self._line.on(event, time.monotonic())
        is_reported = isinstance(event, AttemptFailed)
        await self._carry_out(decisions, AttemptState.FAILED if is_reported else AttemptState.LOST)

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
        lease = await self._tools.store.lease(job_id, engine)
        machine = next(
            Machine(health.torch or "", health.device or "")
            for health in self._pool.health()
            if health.name == engine
        )
        model = self._registry.get(job.spec.model)
        attempt = Attempt(job, lease, model, machine, self._tools)
        self._attempts[job_id] = attempt
        attempt.task = asyncio.create_task(self._run(attempt), name=f"attempt-{job_id}")
        attempt.task.add_done_callback(_tell_fault)
        try:
            for row in attempt.rows():
                await self._pool.send(engine, row)
        except EngineDown:
            # Its loss is on its way as a report, and brings the job back into the line.
            log.warning("engine_down", engine=engine, job=job_id)

    async def _requeue(self, job_id: str, reason: str, outcome: AttemptState) -> None:
        attempt = self._attempts.pop(job_id)
        await self._drop(attempt)
        position = self._line.position(job_id) or 1
        self._jobs[job_id] = await self._tools.store.requeue(
            attempt.lease, reason, position=position, outcome=outcome
        )
        log.warning("attempt_lost", job=job_id, attempt=attempt.lease.attempt, reason=reason)

    async def _fail(self, job_id: str, error: CalotypeError) -> None:
        self._jobs.pop(job_id, None)
        attempt = self._attempts.pop(job_id, None)
        if attempt is not None:
            await self._drop(attempt)
        await self._tools.store.fail(
            job_id, error.problem(), lease=attempt.lease if attempt else None
        )
        log.warning("job_failed", job=job_id, reason=error.detail)

    async def _drop(self, attempt: Attempt) -> None:
        """End an attempt that is over for the line: its task, and its rows on the engine."""
        if attempt.task is not None and attempt.task is not asyncio.current_task():
            attempt.task.cancel()
            await asyncio.gather(attempt.task, return_exceptions=True)
        try:
            for row in attempt.rows():
                await self._pool.send(attempt.lease.engine, CancelRow(row.row))
        except EngineDown:
            pass  # then it holds no rows

    # Attempts.

    async def _run(self, attempt: Attempt) -> None:
        """Follow one attempt to its end, then take the turn that ends it."""
        job_id = attempt.job.id
        try:
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
        async with self._turn:
            if self._is_current(attempt):
                await self._tell(failed)

    async def _hold(self, attempt: Attempt, error: SafetyUnavailable) -> None:
        async with self._turn:
            if not self._is_current(attempt):
                return
            await self._tools.store.hold(attempt.lease, error.detail)
            log.error("pending_safety", job=attempt.job.id, reason=error.detail)
            await self._settle(attempt)

    async def _complete(self, attempt: Attempt, pictures: list[Picture]) -> None:
        images = [picture.image for picture in pictures if picture.image is not None]
        async with self._turn:
            if not self._is_current(attempt):
                return
            if images:
                await self._tools.store.succeed(attempt.lease, images)
            else:
                problem = _refused(pictures[0]).problem()
                await self._tools.store.fail(attempt.job.id, problem, lease=attempt.lease)
            await self._settle(attempt)

    async def _settle(self, attempt: Attempt) -> None:
        """The attempt is over and its rows are off the engine: charge what it used."""
        job = attempt.job
        del self._attempts[job.id]
        known = self._costs.get(job.spec.model, CostModel())
        self._costs[job.spec.model] = known.fitted(job.spec, attempt.device_s)
        await self._tell(JobSettled(job.id, attempt.device_s))

    def _is_current(self, attempt: Attempt) -> bool:
        return self._attempts.get(attempt.job.id) is attempt

    # Engines.

    async def _listen(self) -> None:
        async for report in self._pool.reports():
            match report.message:
                case EngineWarm(models=models, rows_max=rows_max):
                    async with self._turn:
                        await self._tell(EngineUp(report.engine, models, rows_max))
                case EngineLost(reason=reason):
                    log.error("engine_lost", engine=report.engine, reason=reason)
                    async with self._turn:
                        await self._tell(EngineGone(report.engine, reason))
                case RowStarted() | StepDone() | RowDone() | RowFailed():
                    await self._deliver(report)
                case _:
                    log.warning("report_ignored", report=type(report.message).__name__)

    async def _deliver(self, report: Report) -> None:
        """Put a row's report into its attempt's inbox; late ones of older attempts are dropped."""
        row: str = report.message.row  # type: ignore[union-attr]
        job_id, token, _ = row.split("/")
        attempt = self._attempts.get(job_id)
        if attempt is None or attempt.task is None or str(attempt.lease.token) != token:
            return
        putting = asyncio.ensure_future(attempt.inbox.put(report))
        # A full inbox of an attempt that ends would never be emptied: stop at whichever is first.
        await asyncio.wait({putting, attempt.task}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()

    # Jobs as the policy sees them.

    async def _take_back(self, job: Job) -> None:
        """Bring a stored, unfinished job into the line after a start."""
        event = self._queued(job.id, job.tenant, job.tier, job.spec, job.attempt)
        decisions = self._line.on(event, time.monotonic())
        if job.state.value != "queued":
            job = await self._tools.store.requeue_orphan(
                job.id, "the server was restarted", position=self._line.position(job.id) or 1
            )
        self._jobs[job.id] = job
        await self._carry_out(decisions)

    def _queued(
        self, job_id: str, tenant: str, tier: Tier, spec: Spec, attempt: int = 0
    ) -> JobQueued:
        cost = self._costs.get(spec.model, CostModel())
        return JobQueued(
            job_id=job_id,
            tenant=tenant,
            tier=tier,
            model=spec.model,
            rows=spec.n,
            cost_s=cost.predict_s(spec),
            # A server that was stopped is no fault of the job: it always has one more attempt.
            attempt=min(attempt, limits.ATTEMPTS_MAX - 1),
        )


def _tell_fault(task: asyncio.Task[None]) -> None:
    """Log what ended an attempt's task: a store that can't be written to, or a fault of ours.

    The job stays as it is in the store, and is taken back into the line by the next start.
    """
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("attempt_left", task=task.get_name(), exc_info=error)


def _refused(picture: Picture) -> Refused:
    verdict = picture.verdict
    return Refused(
        verdict.detail or "the picture may not be delivered",
        category=verdict.category,
        check=verdict.check,
        version=verdict.version,
    )
