"""What engines say: one that is warm, silent or lost is a turn, a row's report goes to its attempt.

An engine that is slow is drained: nothing more starts there, and once its jobs are over it is begun
anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import structlog

from calotype.core import limits
from calotype.core.events import (
    EngineGone,
    EnginePaused,
    EngineResumed,
    EngineUp,
    PolicyEvent,
)
from calotype.core.messages import (
    CheckSettled,
    MemoryLies,
    MemoryShort,
    ModelUnloaded,
    RowDone,
    RowFailed,
    RowParked,
    RowRefused,
    RowStarted,
    StepDone,
    TrialSeen,
)
from calotype.flow.attempt import Attempt
from calotype.flow.line import LiveLine
from calotype.flow.notices import Notices
from calotype.flow.tools import WatchesVersions
from calotype.flow.warm import Warmth, seen
from calotype.policy.slowness import Slowness
from calotype.pool.pool import EnginePool
from calotype.pool.reports import (
    EngineBack,
    EngineLost,
    EngineSuspect,
    EngineWarm,
    ModelNotLoaded,
    ModelWarm,
    Report,
)

log = structlog.get_logger("calotype.dispatch")


class Engines:
    """Listens to the pool, and has the line know its engines."""

    def __init__(
        self,
        line: LiveLine,
        pool: EnginePool,
        warmth: Warmth,
        tried: Callable[[TrialSeen], None],
        versions: WatchesVersions,
    ) -> None:
        """``tried`` is told what checks on trial say; it mustn't wait or raise. ``versions`` is
        told of engines, and of what they say of checks' versions."""
        self._line, self._pool, self._warmth = line, pool, warmth
        self._tried, self._versions = tried, versions
        self._slowness = Slowness()
        self.notices = Notices(line, pool)

    async def listen(self) -> None:
        """Take in every report, until the pool stops."""
        async for report in self._pool.reports():
            match report.message:
                case EngineWarm() as warm:
                    await self._versions.warm(report.engine)
                    coming = partial(self._warm, report.engine, warm)
                    if not self.notices.hold_back(report.engine, coming):
                        await coming()
                case EngineLost(reason=reason):
                    log.error("engine_lost", engine=report.engine, reason=reason)
                    self._warmth.gone(report.engine)
                    self.notices.gone(report.engine)
                    self._versions.gone(report.engine)
                    await self._tell(EngineGone(report.engine, reason))
                case EngineSuspect(reason=reason):
                    log.warning("engine_suspect", engine=report.engine, reason=reason)
                    await self._tell(EnginePaused(report.engine))
                case EngineBack():
                    log.warning("engine_back", engine=report.engine)
                    await self._tell(EngineResumed(report.engine))
                case ModelWarm() | ModelNotLoaded() | ModelUnloaded() | MemoryLies() as said:
                    await self._warmth.hear(report.engine, said)
                case MemoryShort() as short:
                    self._warmth.ran_short(report.engine, short)
                case (
                    RowStarted() | StepDone() | RowParked() | RowDone() | RowFailed() | RowRefused()
                ):
                    await self._deliver(report)
                case TrialSeen() as told:
                    self._tried(told)
                case CheckSettled() as settled:
                    self._versions.heard(report.engine, settled)
                case _:
                    log.warning("report_ignored", report=type(report.message).__name__)

    async def ran(self, attempt: Attempt, predicted_s: float | None) -> None:
        """An attempt is done, in its turn; it should have cost this, if that is known."""
        engine, measured_s = attempt.lease.engine, attempt.device_s
        if predicted_s is None:
            return
        if not self._slowness.ran(engine, predicted_s, measured_s, time.monotonic()):
            return
        reason = (
            f"it is slow: its last {limits.SLOW_JOBS} jobs took more than "
            f"{limits.SLOW_FACTOR:g} times what they should"
        )
        if self._pool.drain(engine, reason):
            log.warning("engine_slow", engine=engine, predicted_s=predicted_s, took_s=measured_s)
            await self._line.tell(EnginePaused(engine))
            self._line.turns.run(self._begin_anew(engine), f"drain-{engine}")

    async def _begin_anew(self, engine: str) -> None:
        """Restart a drained engine when its last job is over, its pictures stored."""
        attempts = [one for one in self._line.attempts.values() if one.lease.engine == engine]
        if tasks := [attempt.task for attempt in attempts if attempt.task is not None]:
            await asyncio.wait(tasks)
        self._pool.restart(engine)

    async def _tell(self, event: PolicyEvent) -> None:
        async with self._line.turns.take():
            await self._line.tell(event)

    async def _warm(self, engine: str, warm: EngineWarm) -> None:
        self._slowness.began(engine)
        async with self._line.turns.take():
            self._line.costs.begin(warm.costs)
            await self._warmth.learn(warm.measured)
            await self._warmth.came_up()
            up = EngineUp(
                engine,
                warm.models,
                warm.rows_max,
                rows_spare=warm.rows_spare,
                budget_bytes=warm.budget_bytes,
                reserves=warm.reserves,
                pinned=warm.pinned,
                staging_bytes=warm.staging_bytes,
                pool=self._pool.pool_of(engine),
            )
            await self._line.tell(up)
            if warm.lies is not None:
                await self._line.tell(seen(engine, warm.lies))

    async def _deliver(self, report: Report) -> None:
        """Put a row's report into its attempt's inbox; late ones of older attempts are dropped."""
        row: str = report.message.row  # type: ignore[union-attr]
        job_id, token, _ = row.split("/")
        attempt = self._line.attempts.get(job_id)
        if attempt is not None and str(attempt.lease.token) == token:
            await attempt.hear(report)
