"""Whether a job is let in, as what, and if not, when it is worth asking again.

Four bounds, each asked in turn; nothing is counted for a job that is turned away:

- *rate*: jobs a minute, for each tenant and tier, evenly, with a burst. The generic cell rate
  algorithm (ITU-T I.371): one number a bucket, the time at which it would be even again.
- *concurrency*: unfinished jobs, for each tenant and tier.
- *queue*: waiting jobs, of a tenant and in all.
- *budget*: device-seconds of the faster tiers in a period ("fast hours"). The predicted cost is
  taken at admission, the measured one settles it. When it is spent, a tenant that chose so falls to
  relax, which costs nothing; others are refused until the period is over.

``retry_after_s`` is honest: for rates and budgets, asking again then finds that bound met, if
nothing was let in meanwhile; for the queue and concurrency, it is when the next job should end, by
the pace at which the last ones did.

It is pure: times come in, in seconds that never go back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calotype.core import limits
from calotype.core.nouns import Tier

_BUCKETS_KEPT = 1_000  # before those that are even again are dropped
_SLACK_S = 1e-6  # of a rate: sums of seconds don't come out whole


@dataclass(frozen=True)
class TierLimits:
    """What each tenant may do in a tier; None: no such bound."""

    jobs_per_minute: float | None = None
    burst: int = 1  # jobs at once, within the rate
    unfinished_max: int | None = None  # jobs that wait or run


@dataclass(frozen=True)
class Budget:
    """Device-seconds of turbo and fast that a tenant may use in each period."""

    device_s: float
    period_s: float = 30 * 86_400.0
    falls_to_relax: bool = False  # when spent; else refused until the next period


@dataclass(frozen=True)
class AdmitRules:
    """What an operator can set."""

    tiers: Mapping[Tier, TierLimits] = field(default_factory=dict)
    budgets: Mapping[str, Budget] = field(default_factory=dict)  # by tenant
    budget: Budget | None = None  # of every other tenant
    queued_max: int = limits.QUEUED_JOBS_MAX
    queued_per_tenant_max: int = limits.QUEUED_JOBS_PER_TENANT_MAX


@dataclass(frozen=True)
class Let:
    """The job is let in, in this tier."""

    tier: Tier
    fell: bool = False  # from the tier that was asked for: the budget is spent


@dataclass(frozen=True)
class TurnAway:
    """The job isn't let in; nothing was counted."""

    bound: str  # "rate", "concurrency", "queue", "tenant_queue", "budget"
    limit: float
    detail: str  # a sentence for the person
    retry_after_s: int  # whole seconds, at least 1


class Gate:
    """Counts what tenants do, and says who is let in."""

    def __init__(
        self, rules: AdmitRules | None = None, standing: Mapping[str, Any] | None = None
    ) -> None:
        """With nothing counted, or the budgets as ``standing`` returned them before a restart."""
        self.rules = rules or AdmitRules()
        self._even_at: dict[tuple[str, Tier], float] = {}  # of each rate's bucket
        self._buckets_max = _BUCKETS_KEPT
        self._unfinished: dict[tuple[str, Tier], int] = {}
        self._ends: deque[float] = deque(maxlen=limits.ENDS_REMEMBERED)  # when jobs ended
        self._used: dict[str, list[float]] = {  # by tenant: period's begin, device-seconds
            tenant: [float(begin), float(used)]
            for tenant, (begin, used) in (standing or {}).items()
        }

    def ask(
        self, tenant: str, tier: Tier, cost_s: float, now: float, *, queued: int, queued_of: int
    ) -> Let | TurnAway:
        """Let a job in, which counts it, or turn it away.

        ``cost_s`` is predicted, in device-seconds; ``queued`` jobs wait in all, ``queued_of`` of
        them the tenant's.
        """
        let = self._by_budget(tenant, tier, now)
        if isinstance(let, TurnAway):
            return let
        refused = (
            self._by_queue(now, queued, queued_of)
            or self._by_concurrency(tenant, let.tier, now)
            or self._by_rate(tenant, let.tier, now)
        )
        if refused:
            return refused
        self._count(tenant, let.tier, cost_s, now)
        return let

    def resume(self, tenant: str, tier: Tier) -> None:
        """Count a job let in before a restart that isn't over; its cost is in the standing."""
        self._unfinished[tenant, tier] = self._unfinished.get((tenant, tier), 0) + 1

    def ended(
        self, tenant: str, tier: Tier, predicted_s: float, measured_s: float, now: float
    ) -> None:
        """A job that was let in is over, however: its budget is settled with what was measured."""
        left = self._unfinished.get((tenant, tier), 0) - 1
        if left > 0:
            self._unfinished[tenant, tier] = left
        else:
            self._unfinished.pop((tenant, tier), None)
        self._ends.append(now)
        if tier is not Tier.RELAX and (budget := self._budget(tenant)):
            used = self._period(tenant, budget, now)
            used[1] = max(0.0, used[1] + measured_s - predicted_s)

    def left_s(self, tenant: str, now: float) -> float | None:
        """Device-seconds that the tenant's budget still has; None: it has no budget."""
        budget = self._budget(tenant)
        return budget.device_s - self._period(tenant, budget, now)[1] if budget else None

    def standing(self) -> dict[str, Any]:
        """What was used of budgets, as JSON, to keep over a restart. Rates begin even."""
        return {tenant: list(used) for tenant, used in self._used.items()}

    def _by_budget(self, tenant: str, tier: Tier, now: float) -> Let | TurnAway:
        budget = self._budget(tenant)
        if tier is Tier.RELAX or budget is None:
            return Let(tier)
        begin, used_s = self._period(tenant, budget, now)
        if used_s < budget.device_s:
            return Let(tier)
        if budget.falls_to_relax:
            return Let(Tier.RELAX, fell=True)
        hours = budget.device_s / 3600
        return _away(
            "budget",
            budget.device_s,
            f"the {hours:g} fast hours of this period are used; relax costs none",
            begin + budget.period_s - now,
        )

    def _by_queue(self, now: float, queued: int, queued_of: int) -> TurnAway | None:
        mine, all_ = self.rules.queued_per_tenant_max, self.rules.queued_max
        if queued_of >= mine:
            said = f"{queued_of} jobs of this tenant wait already"
            return _away("tenant_queue", mine, said, self._until_an_end(now))
        if queued >= all_:
            said = f"{queued} jobs wait already"
            return _away("queue", all_, said, self._until_an_end(now))
        return None

    def _by_concurrency(self, tenant: str, tier: Tier, now: float) -> TurnAway | None:
        most = self.rules.tiers.get(tier, TierLimits()).unfinished_max
        has = self._unfinished.get((tenant, tier), 0)
        if most is None or has < most:
            return None
        said = f"{has} jobs of this tenant in {tier} aren't over yet"
        return _away("concurrency", most, said, self._until_an_end(now))

    def _by_rate(self, tenant: str, tier: Tier, now: float) -> TurnAway | None:
        bounds = self.rules.tiers.get(tier, TierLimits())
        if bounds.jobs_per_minute is None:
            return None
        interval_s = 60.0 / bounds.jobs_per_minute
        even_at = max(self._even_at.get((tenant, tier), now), now)
        free_at = even_at - (bounds.burst - 1) * interval_s
        if free_at <= now + _SLACK_S:
            return None
        said = f"more than {bounds.jobs_per_minute:g} jobs a minute in {tier}"
        return _away("rate", bounds.jobs_per_minute, said, free_at - now)

    def _count(self, tenant: str, tier: Tier, cost_s: float, now: float) -> None:
        key = (tenant, tier)
        self._unfinished[key] = self._unfinished.get(key, 0) + 1
        rate = self.rules.tiers.get(tier, TierLimits()).jobs_per_minute
        if rate is not None:
            self._even_at[key] = max(self._even_at.get(key, now), now) + 60.0 / rate
            if len(self._even_at) > self._buckets_max:
                self._even_at = {one: at for one, at in self._even_at.items() if at > now}
                self._buckets_max = max(_BUCKETS_KEPT, 2 * len(self._even_at))
        if tier is not Tier.RELAX and (budget := self._budget(tenant)):
            self._period(tenant, budget, now)[1] += cost_s

    def _budget(self, tenant: str) -> Budget | None:
        return self.rules.budgets.get(tenant, self.rules.budget)

    def _period(self, tenant: str, budget: Budget, now: float) -> list[float]:
        used = self._used.setdefault(tenant, [now, 0.0])
        if now >= used[0] + budget.period_s:
            over = math.floor((now - used[0]) / budget.period_s)
            used[0], used[1] = used[0] + over * budget.period_s, 0.0
        return used

    def _until_an_end(self, now: float) -> float:
        """Seconds until a job should end: the mean time between the last ends, or since them."""
        if not self._ends:
            return 60.0  # nothing is known of this server's pace yet
        return (now - self._ends[0]) / len(self._ends)


def _away(bound: str, limit: float, detail: str, after_s: float) -> TurnAway:
    whole = min(limits.RETRY_AFTER_S_MAX, max(1, math.ceil(after_s)))
    if bound == "budget":  # told as it is, though it is long
        whole = max(1, math.ceil(after_s))
    return TurnAway(bound, limit, detail, whole)
