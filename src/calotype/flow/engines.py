"""What engines say: one that is warm or lost is a turn, a row's report goes to its attempt."""

from __future__ import annotations

import structlog

from calotype.core.errors import ModelBroken
from calotype.core.events import EngineGone, EngineUp, JobCancelled
from calotype.core.messages import RowDone, RowFailed, RowStarted, StepDone
from calotype.flow import hopeless
from calotype.flow.line import LiveLine
from calotype.pool.pool import EnginePool
from calotype.pool.reports import EngineLost, EngineWarm, Report

log = structlog.get_logger("calotype.dispatch")


class Engines:
    """Listens to the pool, and has the line know its engines."""

    def __init__(self, line: LiveLine, pool: EnginePool) -> None:
        self._line, self._pool = line, pool

    async def listen(self) -> None:
        """Take in every report, until the pool stops."""
        async for report in self._pool.reports():
            match report.message:
                case EngineWarm() as warm:
                    await self._warm(report.engine, warm)
                case EngineLost(reason=reason):
                    log.error("engine_lost", engine=report.engine, reason=reason)
                    async with self._line.turns.take():
                        await self._line.tell(EngineGone(report.engine, reason))
                case RowStarted() | StepDone() | RowDone() | RowFailed():
                    await self._deliver(report)
                case _:
                    log.warning("report_ignored", report=type(report.message).__name__)

    async def _warm(self, engine: str, warm: EngineWarm) -> None:
        async with self._line.turns.take():
            self._line.costs.begin(warm.costs)
            await self._fail_unloadable()
            await self._line.tell(EngineUp(engine, warm.models, warm.rows_max, rows_spare=warm.rows_spare))

    async def _fail_unloadable(self) -> None:
        """Give up the jobs that wait for a model which no engine could load."""
        line, failed = self._line, hopeless.unloadable(self._pool.health())
        for job in [job for job in line.waiting.values() if job.spec.model in failed]:
            decisions = line.on(JobCancelled(job.id))
            model = job.spec.model
            error = ModelBroken(f"no engine could load {model}: {failed[model]}", field="model")
            await line.fail(job.id, error)
            await line.carry_out(decisions)

    async def _deliver(self, report: Report) -> None:
        """Put a row's report into its attempt's inbox; late ones of older attempts are dropped."""
        row: str = report.message.row  # type: ignore[union-attr]
        job_id, token, _ = row.split("/")
        attempt = self._line.attempts.get(job_id)
        if attempt is not None and str(attempt.lease.token) == token:
            await attempt.hear(report)
