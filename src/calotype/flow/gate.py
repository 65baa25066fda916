"""Who is let in: the policy's gate with the real clock, the stored budgets, and a note of its own.

All of it is called inside a turn, so what is counted holds when the job is written; and before the
turn's write to the store, so that the note is of one moment with the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from calotype.core.errors import TooMany
from calotype.core.nouns import Budget, Job, Tier
from calotype.jobs.store import JobStore
from calotype.policy import admit
from calotype.policy.admit import AdmitRules, Balance, Let, TurnAway

GATE = "gate"  # the name of the store's note


class Gate:
    """Lets jobs in and counts them; each job it let in or resumed ends once."""

    def __init__(
        self,
        store: JobStore,
        rules: AdmitRules,
        devices: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``devices`` says how many work; ``clock`` is the wall's: budgets outlive starts."""
        self._store, self._rules, self._devices, self._clock = store, rules, devices, clock
        self._latest = 0.0
        self._gate = admit.Gate(rules)

    async def restore(self) -> None:
        """Take up what was used of budgets and rates, from the store; jobs are then resumed."""
        self._gate = admit.Gate(self._rules, await self._store.note(GATE), self._now())

    async def ask(self, job_id: str, tenant: str, tier: Tier, cost_s: float) -> Let:
        """Let a job in, or raise why not (TooMany). ``cost_s`` is predicted, device-seconds."""
        answer = self._gate.ask(
            job_id,
            tenant,
            tier,
            cost_s,
            self._now(),
            budget=await self._store.budgets.of(tenant),
            queued=await self._store.count_queued(),
            queued_of=await self._store.count_queued(tenant),
            devices=self._devices(),
        )
        if isinstance(answer, TurnAway):
            raise _too_many(answer)
        self._store.keep(GATE, self._gate.standing)
        return answer

    def resume(self, job: Job, cost_s: float) -> None:
        """Count an unfinished job that was let in before a restart, with what it should cost."""
        at = job.created_at.timestamp()
        self._gate.resume(job.id, job.tenant, job.tier, cost_s, charged_s=job.charged_s, at=at)

    def ended(self, job_id: str, device_s: float) -> None:
        """The job is over, however it went, also one that couldn't be written after all.

        ``device_s`` was measured; 0.0 for what the tenant doesn't pay.
        """
        self._gate.ended(job_id, device_s, self._now())
        self._store.keep(GATE, self._gate.standing)

    def _now(self) -> float:
        self._latest = max(self._latest, self._clock())  # a wall clock can be set back
        return self._latest


async def balances(store: JobStore) -> dict[str, tuple[Budget, Balance]]:
    """Every tenant's budget and what is left of it, as the store has them, also of a server's."""
    gate, now = admit.Gate(standing=await store.note(GATE)), time.time()
    budgets = await store.budgets.every()
    return {tenant: (each, gate.balance(tenant, each, now)) for tenant, each in budgets.items()}


def _too_many(away: TurnAway) -> TooMany:
    extra = {} if away.retry_after_s is None else {"retry_after_s": away.retry_after_s}
    said = f"{away.detail}; try again in {in_words(away.retry_after_s)}" if extra else away.detail
    of_a_tier = away.bound not in ("queue", "tenant_queue")  # in another there may be room
    field = "tier" if of_a_tier else None
    return TooMany(said, field=field, limit=away.limit, bound=away.bound, **extra)


def in_words(seconds: int | None) -> str:
    """A wait for people, in one unit, never less than it is."""
    left = seconds or 0
    for unit, unit_s in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if left > 2 * unit_s:
            return f"{-(-left // unit_s)} {unit}"
    return "1 second" if left == 1 else f"{left} seconds"
