"""Keeps the leases of running attempts alive in the store, and takes back what nobody keeps.

Whether an engine lives is the pool's to watch, second by second; an attempt that is running here
has one that does. A job that runs by the store though no attempt of it is here would run for ever:
once its lease has run out it goes back into the line, as after a restart.
"""

from __future__ import annotations

import asyncio

import structlog

from calotype.core import limits
from calotype.core.events import JobCancelled, JobSettled
from calotype.core.states import JobState
from calotype.flow import hopeless
from calotype.flow.endings import Endings
from calotype.flow.line import LiveLine
from calotype.flow.tools import Tools
from calotype.jobs.patience import patiently

log = structlog.get_logger("calotype.dispatch")

RENEW_S = limits.LEASE_S / 3  # two renewals may fail before a lease runs out


class LeaseKeeper:
    """Renews what this server holds, every RENEW_S."""

    def __init__(self, line: LiveLine, endings: Endings, tools: Tools) -> None:
        self._line, self._endings, self._store = line, endings, tools.store

    async def run(self) -> None:
        """Do so until it is cancelled."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._renew()
                lapsed = await self._store.leases.lapsed()
            except Exception:  # a lease that wasn't renewed is good until somebody takes it
                log.exception("leases_not_renewed")
            else:
                await self.take_back(lapsed)

    async def take_back(self, job_ids: list[str]) -> None:
        """Put those of these jobs back into the line that nobody here runs, each in its turn."""
        for job_id in job_ids:
            async with self._line.turns.take():
                if job_id not in self._line.attempts:
                    await self._put_back(job_id)

    async def _renew(self) -> None:
        held = {job_id: attempt.lease for job_id, attempt in self._line.attempts.items()}
        lost = held.keys() - await self._store.leases.renew(held.values())
        for job_id in sorted(lost & self._line.attempts.keys()):
            log.error("lease_lost", job=job_id)  # its next write is refused

    async def _put_back(self, job_id: str) -> None:
        job = await patiently(lambda: self._store.get(job_id))
        if job.state is not JobState.RUNNING:
            return
        log.error("lease_ran_out", job=job_id, attempt=job.attempt)
        line = self._line
        forget = line.on(JobCancelled(job_id)) + line.on(JobSettled(job_id, 0.0))  # if it knows it
        await self._endings.take_back(job, hopeless.LAPSED)
        await line.carry_out(forget)
