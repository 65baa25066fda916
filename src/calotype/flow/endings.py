"""How attempts end: done, failed, or held for want of a verdict; each takes the turn that ends it.

An attempt that another turn has ended meanwhile (a cancelled job, a lost engine) takes none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from calotype.core import limits
from calotype.core.errors import CalotypeError
from calotype.core.events import AttemptFailed, JobHandedBack, JobSettled
from calotype.core.nouns import Job, Verdict
from calotype.core.states import AttemptState, JobState
from calotype.flow import hopeless
from calotype.flow.attempt import Attempt, RowsFailed
from calotype.flow.darkroom import Picture
from calotype.flow.engines import Engines
from calotype.flow.follow_up import refusal
from calotype.flow.line import COSTS, LiveLine
from calotype.flow.pools import PoolMissing
from calotype.flow.tools import Tools
from calotype.flow.words import WordsRefused
from calotype.jobs.patience import patiently
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry
from calotype.safety.errors import SafetyUnavailable

log = structlog.get_logger("calotype.dispatch")


class Endings:
    """Follows attempts to their ends, and keeps the jobs whose pictures can't be judged."""

    def __init__(
        self,
        line: LiveLine,
        tools: Tools,
        pool: EnginePool,
        registry: ModelRegistry,
        engines: Engines,
    ) -> None:
        self._line, self._tools, self._pool, self._engines = line, tools, pool, engines
        self._registry = registry
        self._held: dict[str, asyncio.Task[None]] = {}  # by job id: brings it back into the line

    async def run(self, attempt: Attempt) -> None:
        """Follow one attempt to its end, then take the turn that ends it."""
        try:
            await self._follow(attempt)
        finally:
            await attempt.clean_up()

    @property
    def held(self) -> int:
        """How many jobs wait for their pictures to be made and judged again."""
        return len(self._held)

    def let_go(self, job_id: str) -> None:
        """A job that may be held was cancelled: it isn't brought back."""
        if (held := self._held.pop(job_id, None)) is not None:
            held.cancel()

    async def take_back(self, job: Job, reason: str) -> None:
        """Bring a stored, unfinished job that nobody runs back into the line, or give it up."""
        store = self._tools.store
        tries = await patiently(lambda: store.attempts(job.id)) if job.attempt else {}
        error = hopeless.given_up(job, tries, self._registry, reason)
        if job.spec.pool not in self._pool.pools:  # it was, when the job came
            error = PoolMissing(job.spec.pool)
        if error:
            await self._line.fail(job.id, error)
        else:
            await self._put_back(job, tries, reason)

    async def _put_back(self, job: Job, tries: hopeless.Tries, reason: str) -> None:
        """Have it wait, as it has since it was accepted, whatever came between.

        How long that was before this start only the wall can say.
        """
        line, store, begun = self._line, self._tools.store, hopeless.charged(job, tries)
        self._tools.handed.forget(job.id)
        waited_s = max(0.0, (datetime.now(UTC) - job.created_at).total_seconds())
        queued = line.queued(
            job.id, job.tenant, job.tier, job.spec, begun, user=job.user, waited_s=waited_s
        )
        if job.attempt:
            lost = await patiently(lambda: store.lost_on(job.id))
            avoid, deaths = hopeless.blamed(lost)
            queued = replace(queued, avoid=avoid, deaths=deaths)
        decisions = line.on(queued)
        if job.state is not JobState.QUEUED:
            job = await patiently(lambda: store.requeue_orphan(job.id, reason))
        line.waiting[job.id] = job
        await line.carry_out(decisions)

    async def _follow(self, attempt: Attempt) -> None:
        job_id = attempt.job.id
        try:
            await attempt.send(self._pool.send)
            pictures = await attempt.follow()
        except RowsFailed as error:
            failed = AttemptFailed(job_id, error.reason, error.is_retryable, error.short_bytes)
            await self._fail(attempt, failed)
        except WordsRefused as error:
            await self._refuse(attempt, error.verdict)
        except SafetyUnavailable as error:
            await self._hold(attempt, error)
        except CalotypeError as error:
            log.error("attempt_failed", job=job_id, reason=error.detail)
            await self._fail(attempt, AttemptFailed(job_id, error.detail, is_retryable=True))
        except Exception as error:  # a fault of ours: the job must not hang
            log.exception("attempt_broke", job=job_id)
            reason = f"{type(error).__name__} while its pictures were followed"
            await self._fail(attempt, AttemptFailed(job_id, reason, is_retryable=True))
        else:
            end = self._hand_back if attempt.returned else self._complete
            await end(attempt, pictures)

    async def _fail(self, attempt: Attempt, failed: AttemptFailed) -> None:
        async with self._turn_of(attempt) as is_current:
            if is_current:
                await self._line.tell(failed)

    async def _hand_back(self, attempt: Attempt, pictures: list[Picture]) -> None:
        """Its engine goes: the job waits again, with what is done of it and what is finished."""
        job, handed, darkroom = attempt.job, self._tools.handed, attempt.darkroom
        async with self._turn_of(attempt) as is_current:
            if not is_current:
                return
            attempt.is_kept = True  # what it stored is of the job's next attempt
            new = [picture for picture in pictures if picture.index not in attempt.kept.pictures]
            handed.ended(job.id, new, darkroom.logged, darkroom.stored, attempt.device_s)
            left_s = self._line.left_s(job)
            await self._line.tell(JobHandedBack(job.id, attempt.device_s, left_s))

    async def _hold(self, attempt: Attempt, error: SafetyUnavailable) -> None:
        """No verdict, no picture: the job waits, and is run again, until it can be judged."""
        job_id, line, store = attempt.job.id, self._line, self._tools.store
        async with self._turn_of(attempt) as is_current:
            if not is_current:
                return
            log.error("pending_safety", job=job_id, reason=error.detail)
            self._tools.handed.forget(job_id)
            tries = await patiently(lambda: store.attempts(job_id))
            decisions = line.on(JobSettled(job_id, 0.0))  # it isn't the tenant's check that fails
            if tries.get(AttemptState.HELD, 0) + 1 < limits.SAFETY_TRIES_MAX:
                del line.attempts[job_id]
                await line.drop(attempt)
                job = await patiently(lambda: store.hold(attempt.lease, error.detail))
                self._held[job_id] = line.turns.run(self._run_again(job), f"held-{job_id}")
            else:
                await line.fail(job_id, hopeless.unjudged(error.detail))
            await line.carry_out(decisions)

    async def _refuse(self, attempt: Attempt, verdict: Verdict) -> None:
        """Its words are refused after all, before a step was made: the job fails, and it counts."""
        job, line = attempt.job, self._line
        async with self._turn_of(attempt) as is_current:
            if not is_current:
                return
            log.warning("prompt_refused", category=verdict.category, check=verdict.check)
            self._tools.handed.forget(job.id)
            await self._tools.people.refuse(job, verdict)
            decisions = line.on(JobSettled(job.id, 0.0))
            await line.fail(job.id, refusal(verdict))
            await line.carry_out(decisions)

    async def _run_again(self, held: Job) -> None:
        await asyncio.sleep(limits.SAFETY_RETRY_S)
        async with self._line.turns.take():
            if self._held.pop(held.id, None) is not None:  # else cancelled meanwhile
                await self.take_back(held, "its pictures are made again, to be judged")

    async def _complete(self, attempt: Attempt, pictures: list[Picture]) -> None:
        job, line = attempt.job, self._line
        async with self._turn_of(attempt) as is_current:
            if not is_current:
                return
            known = line.costs.is_known(job.spec)
            predicted_s = line.costs.predict_s(job.spec) if known and not attempt.begun else None
            whole_s = attempt.kept.device_s + attempt.device_s
            line.costs.learn(job.spec, whole_s)
            self._tools.store.keep(COSTS, line.costs.kept)
            decisions = line.on(JobSettled(job.id, whole_s))
            # Its share of the devices was used; but nobody pays for what isn't delivered.
            is_paid = any(picture.image is not None for picture in pictures)
            line.over(job.id, whole_s if is_paid else 0.0, are_delivered=True)
            await attempt.record(pictures)
            del line.attempts[job.id]
            await line.carry_out(decisions)
            await self._engines.ran(attempt, predicted_s)

    @asynccontextmanager
    async def _turn_of(self, attempt: Attempt) -> AsyncIterator[bool]:
        """The turn that ends an attempt; False if another has ended it.

        Looked at before as well: who ends an attempt waits for its task, in a turn of his own.
        """
        if not self._is_current(attempt):
            yield False
            return
        async with self._line.turns.take():
            yield self._is_current(attempt)

    def _is_current(self, attempt: Attempt) -> bool:
        return self._line.attempts.get(attempt.job.id) is attempt
