"""What the dispatcher asks of whoever lets jobs in: the bounds, and a word when a job is over.

All of it is called inside a turn, so what a gate counts holds when the job is written; and before
the turn's write to the store, so that a note it keeps there is of one moment with the job.
"""

from __future__ import annotations

from typing import Protocol

from calotype.core.errors import TooMany
from calotype.core.nouns import Job, Tier
from calotype.jobs.store import JobStore
from calotype.policy.admit import Let


class Gate(Protocol):
    """Lets jobs in and counts them; each job it let in or resumed ends once."""

    async def ask(self, job_id: str, tenant: str, tier: Tier, cost_s: float) -> Let:
        """Let a job in, or raise why not (TooMany). ``cost_s`` is predicted, device-seconds."""

    def resume(self, job: Job, cost_s: float) -> None:
        """Count an unfinished job that was let in before a restart, with what it should cost."""

    def ended(self, job_id: str, device_s: float) -> None:
        """The job is over, however it went, also one that couldn't be written after all.

        ``device_s`` was measured; 0.0 for what the tenant doesn't pay.
        """


class RoomGate:
    """Bounds how many jobs wait, of a tenant and in all."""

    def __init__(self, store: JobStore, *, most: int, most_of_tenant: int) -> None:
        self._store, self._most, self._most_of_tenant = store, most, most_of_tenant

    async def ask(self, job_id: str, tenant: str, tier: Tier, cost_s: float) -> Let:
        """Raises TooMany when the line is full, or the tenant's part of it."""
        if await self._store.count_queued() >= self._most:
            raise TooMany(f"the line is full: {self._most:,} jobs wait", limit=self._most)
        most = self._most_of_tenant
        if await self._store.count_queued(tenant) >= most:
            raise TooMany(f"{most:,} of your jobs wait already", limit=most)
        return Let(tier)

    def resume(self, job: Job, cost_s: float) -> None:
        """Nothing to count: the store knows who waits."""

    def ended(self, job_id: str, device_s: float) -> None:
        """Nothing to count."""
