"""Whether a job is let in, as what, and if not, when it is worth asking again.

Four bounds, each asked in turn; nothing is counted for a job that is turned away:

- *budget*: device-seconds of the faster tiers in a period ("fast hours"). The predicted cost is
  taken at admission, the measured one settles it. When it is spent, a tenant that chose so falls to
  relax, which costs nothing; others are refused until the period is over. While anything is left a
  job is let in, so a budget is overdrawn by one job at most.
- *queue*: waiting jobs, of a tenant and in all.
- *concurrency*: unfinished jobs, for each tenant and tier.
- *rate*: jobs a minute, for each tenant and tier, evenly, with a burst. The generic cell rate
  algorithm (ITU-T I.371): one number a bucket, the time at which it would be even again.

``retry_after_s`` is honest. For rates and budgets it is exact: asking again then finds that bound
met, if nothing was let in meanwhile. For the queue and concurrency it is an estimate by the
predicted work: unfinished jobs end one after the other on so many devices, and a tenant's turn
comes by its share of them. If nothing has ended for longer than that, so long is told.

It is pure: times come in, in seconds that never go back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calotype.core import limits
from calotype.core.nouns import TIER_WEIGHTS, Budget, Tier, WhenSpent

_BUCKETS_KEPT = 1_000  # before those that are even again are dropped
_SLACK_S = 1e-6  # of a rate: sums of seconds don't come out whole


@dataclass(frozen=True)
class TierLimits:
    """What each tenant may do in a tier; None: no such bound."""

    jobs_per_minute: float | None = None
    burst: int = 1  # jobs at once, within the rate
    unfinished_max: int | None = None  # jobs that wait or run


@dataclass(frozen=True)
class AdmitRules:
    """What an operator can set."""

    tiers: Mapping[Tier, TierLimits] = field(default_factory=dict)
    weights: Mapping[Tier, int] = field(default_factory=lambda: dict(TIER_WEIGHTS))  # of the line
    period_s: float = limits.BUDGET_PERIOD_S  # of budgets: from a tenant's first job in it
    queued_max: int = limits.QUEUED_JOBS_MAX
    queued_per_tenant_max: int = limits.QUEUED_JOBS_PER_TENANT_MAX


@dataclass(frozen=True)
class Let:
    """The job is let in, in this tier."""

    tier: Tier
    fell_from: Tier | None = None  # the tier that was asked for: its budget is spent
    charged_s: float | None = None  # device-seconds that were taken from a budget


@dataclass(frozen=True)
class TurnAway:
    """The job isn't let in; nothing was counted."""

    bound: str  # "rate", "concurrency", "queue", "tenant_queue", "budget"
    limit: float
    detail: str  # a sentence for the person
    retry_after_s: int | None  # whole seconds, at least 1; None: waiting won't help


@dataclass(frozen=True)
class Balance:
    """What is left of a budget."""

    used_s: float  # device-seconds in this period
    left_s: float  # below zero when the last job overdrew it
    renews_at: float | None  # when the period is over; None: nothing was used in one yet


@dataclass(frozen=True)
class _Open:
    """A job that was let in and isn't over."""

    tenant: str
    tier: Tier
    predicted_s: float  # device-seconds
    charged_s: float | None
    at: float  # when it was let in


class Gate:
    """Counts what tenants do, and says who is let in."""

    def __init__(
        self,
        rules: AdmitRules | None = None,
        standing: Mapping[str, Any] | None = None,
        now: float = 0.0,
    ) -> None:
        """With nothing counted, or budgets and rates as ``standing`` gave them before a restart."""
        self.rules = rules or AdmitRules()
        self._even_at: dict[tuple[str, Tier], float] = {}  # of each rate's bucket
        self._buckets_max = _BUCKETS_KEPT
        self._used: dict[str, tuple[float, float]] = {}  # by tenant: period's begin, device-seconds
        self._open: dict[str, _Open] = {}  # by job id
        self._unfinished: Counter[tuple[str, Tier]] = Counter()  # jobs; no zeros are kept
        self._tenants: Counter[Tier] = Counter()  # that have unfinished jobs in a tier
        self._work_s = 0.0  # predicted, of all unfinished jobs
        self._quiet_since = now  # the last end, or when there was work again
        self._now = now
        if standing is not None:
            self._restore(standing)

    def ask(
        self,
        job_id: str,
        tenant: str,
        tier: Tier,
        cost_s: float,
        now: float,
        *,
        budget: Budget | None = None,
        queued: int = 0,
        queued_of: int = 0,
        devices: int = 1,
    ) -> Let | TurnAway:
        """Let a job in, which counts it, or turn it away.

        ``cost_s`` is predicted, in device-seconds; ``budget`` is the tenant's as it is now, None if
        it has none; ``queued`` jobs wait in all, ``queued_of`` of them the tenant's; ``devices``
        work on them.
        """
        self._now = now
        let = self._by_budget(tenant, tier, cost_s, now, budget)
        if isinstance(let, TurnAway):
            return let
        refused = (
            self._by_queue(tenant, now, queued, queued_of, devices)
            or self._by_concurrency(tenant, let.tier, now, devices)
            or self._by_rate(tenant, let.tier, now)
        )
        if refused:
            return refused
        self._charge(tenant, let, now)
        self._enter(job_id, _Open(tenant, let.tier, cost_s, let.charged_s, now))
        return let

    def resume(
        self,
        job_id: str,
        tenant: str,
        tier: Tier,
        cost_s: float,
        *,
        charged_s: float | None,
        at: float,
    ) -> None:
        """Count a job that was let in (``at``) before a restart and isn't over.

        What it was charged is in the standing already.
        """
        self._enter(job_id, _Open(tenant, tier, cost_s, charged_s, at))

    def ended(self, job_id: str, measured_s: float, now: float) -> None:
        """A job that was let in is over, however: its budget is settled with what was measured."""
        self._now = now
        job = self._leave(job_id)
        if job is None:
            return
        self._quiet_since = now
        if job.charged_s is not None and (used := self._period(job.tenant, now)):
            begin, used_s = used
            if job.at >= begin:  # else it belongs to a period that is over
                settled = max(0.0, used_s + measured_s - job.charged_s)
                self._used[job.tenant] = begin, settled

    def balance(self, tenant: str, budget: Budget, now: float) -> Balance:
        """What the tenant has left of this budget."""
        begin, used_s = self._period(tenant, now) or (None, 0.0)
        renews_at = None if begin is None else begin + self.rules.period_s
        return Balance(used_s, budget.fast_s - used_s, renews_at)

    def standing(self) -> dict[str, Any]:
        """What was used of budgets and rates, as JSON by whose it is, to keep over a restart."""
        periods = {tenant: self._period(tenant, self._now) for tenant in self._used}
        self._used = {tenant: used for tenant, used in periods.items() if used and used[1]}
        used = {f"used/{tenant}": [*each] for tenant, each in self._used.items()}
        rates = {
            f"rate/{tier}/{tenant}": at
            for (tenant, tier), at in self._even_at.items()
            if at > self._now
        }
        return used | rates

    def _restore(self, standing: Mapping[str, Any]) -> None:
        for entry, value in standing.items():
            what, _, of = entry.partition("/")
            if what == "used":
                begin, used_s = value
                self._used[of] = begin, used_s
            else:
                tier, _, tenant = of.partition("/")
                self._even_at[tenant, Tier(tier)] = value

    def _by_budget(
        self, tenant: str, tier: Tier, cost_s: float, now: float, budget: Budget | None
    ) -> Let | TurnAway:
        if tier is Tier.RELAX or budget is None:
            return Let(tier)
        balance = self.balance(tenant, budget, now)
        if balance.left_s > 0:
            return Let(tier, charged_s=cost_s)
        if budget.when_spent is WhenSpent.RELAX:
            return Let(Tier.RELAX, fell_from=tier)
        if not budget.fast_s:
            said = "this tenant has no device-seconds in turbo and fast; relax costs none"
            return TurnAway("budget", 0.0, said, None)
        said = (
            f"the {_number(budget.fast_s)} device-seconds in turbo and fast are spent; "
            "relax costs none"
        )
        # Nothing used, and nothing left, is only so with a budget of nothing.
        assert balance.renews_at is not None, "it was spent in a period"
        return TurnAway("budget", budget.fast_s, said, _whole(balance.renews_at - now))

    def _by_queue(
        self, tenant: str, now: float, queued: int, queued_of: int, devices: int
    ) -> TurnAway | None:
        mine, all_ = self.rules.queued_per_tenant_max, self.rules.queued_max
        if queued_of >= mine:
            share = sum(self._share(tenant, tier) for tier in Tier)
            said = f"{queued_of:,} jobs of this tenant wait already"
            return TurnAway("tenant_queue", mine, said, self._until_an_end(now, devices, share))
        if queued >= all_:
            said = f"the line is full: {queued:,} jobs wait"
            return TurnAway("queue", all_, said, self._until_an_end(now, devices))
        return None

    def _by_concurrency(self, tenant: str, tier: Tier, now: float, devices: int) -> TurnAway | None:
        most = self.rules.tiers.get(tier, TierLimits()).unfinished_max
        has = self._unfinished[tenant, tier]
        if most is None or has < most:
            return None
        said = f"{has:,} jobs of this tenant in {tier} aren't over yet"
        wait_s = self._until_an_end(now, devices, self._share(tenant, tier))
        return TurnAway("concurrency", most, said, wait_s)

    def _by_rate(self, tenant: str, tier: Tier, now: float) -> TurnAway | None:
        bounds = self.rules.tiers.get(tier, TierLimits())
        if bounds.jobs_per_minute is None:
            return None
        interval_s = 60.0 / bounds.jobs_per_minute
        even_at = max(self._even_at.get((tenant, tier), now), now)
        free_at = even_at - (bounds.burst - 1) * interval_s
        if free_at <= now + _SLACK_S:
            return None
        said = f"this tenant may have {_number(bounds.jobs_per_minute)} jobs a minute in {tier}"
        return TurnAway("rate", bounds.jobs_per_minute, said, _whole(free_at - now))

    def _charge(self, tenant: str, let: Let, now: float) -> None:
        key = (tenant, let.tier)
        rate = self.rules.tiers.get(let.tier, TierLimits()).jobs_per_minute
        if rate is not None:
            self._even_at[key] = max(self._even_at.get(key, now), now) + 60.0 / rate
            if len(self._even_at) > self._buckets_max:
                self._even_at = {one: at for one, at in self._even_at.items() if at > now}
                self._buckets_max = max(_BUCKETS_KEPT, 2 * len(self._even_at))
        if let.charged_s is not None:
            begin, used_s = self._period(tenant, now) or (now, 0.0)
            self._used[tenant] = begin, used_s + let.charged_s

    def _enter(self, job_id: str, job: _Open) -> None:
        assert job_id not in self._open, "let in twice"
        if not self._open:
            self._work_s, self._quiet_since = 0.0, self._now
        self._open[job_id] = job
        key = (job.tenant, job.tier)
        self._tenants[job.tier] += key not in self._unfinished
        self._unfinished[key] += 1
        self._work_s += job.predicted_s

    def _leave(self, job_id: str) -> _Open | None:
        job = self._open.pop(job_id, None)
        if job is not None:
            key = (job.tenant, job.tier)
            self._work_s -= job.predicted_s
            self._unfinished[key] -= 1
            if not self._unfinished[key]:
                del self._unfinished[key]
                self._tenants[job.tier] -= 1
        return job

    def _period(self, tenant: str, now: float) -> tuple[float, float] | None:
        """The begin of the tenant's period and what it used in it; None before the first."""
        used = self._used.get(tenant)
        if used is None:
            return None
        over = math.floor((now - used[0]) / self.rules.period_s)
        return used if over <= 0 else (used[0] + over * self.rules.period_s, 0.0)

    def _share(self, tenant: str, tier: Tier) -> float:
        """Of the jobs that end, the tenant's part in this tier, by fair shares; 0..1."""
        if (tenant, tier) not in self._unfinished:
            return 0.0
        weights = sum(self.rules.weights[each] for each in Tier if self._tenants[each])
        return self.rules.weights[tier] / weights / self._tenants[tier]

    def _until_an_end(self, now: float, devices: int, share: float = 1.0) -> int:
        """Seconds until a job should end: any, or one of whom such a share is due."""
        mean_s = self._work_s / len(self._open) if self._open else 0.0
        pace_s = mean_s / max(1, devices) / (share or 1.0)
        return min(limits.RETRY_AFTER_S_MAX, _whole(max(pace_s, now - self._quiet_since)))


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


def _number(value: float) -> str:
    return f"{value:,.6f}".rstrip("0").rstrip(".")
