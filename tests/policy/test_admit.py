"""Admission: rates, concurrency, queues and budgets, and when to ask again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core.nouns import Tier
from calotype.policy.admit import AdmitRules, Budget, Gate, Let, TierLimits, TurnAway

DAY_S = 86_400.0


def ask(
    gate: Gate, now: float, tier: Tier = Tier.FAST, cost_s: float = 1.0, tenant: str = "ann"
) -> Let | TurnAway:
    return gate.ask(tenant, tier, cost_s, now, queued=0, queued_of=0)


def limited(**bounds: float) -> Gate:
    return Gate(AdmitRules(tiers={Tier.FAST: TierLimits(**bounds)}))  # type: ignore[arg-type]


def test_without_bounds_everyone_is_let_in() -> None:
    gate = Gate()
    assert all(ask(gate, 0.0) == Let(Tier.FAST) for _ in range(1_000))


def test_a_burst_is_let_in_and_then_one_for_each_interval() -> None:
    gate = limited(jobs_per_minute=6, burst=3)
    assert [isinstance(ask(gate, 0.0), Let) for _ in range(4)] == [True, True, True, False]
    refused = ask(gate, 4.0)
    assert isinstance(refused, TurnAway)
    assert (refused.bound, refused.limit, refused.retry_after_s) == ("rate", 6, 6)
    assert ask(gate, 10.0) == Let(Tier.FAST)
    assert isinstance(ask(gate, 10.0), TurnAway)


def test_rates_are_each_tenants_and_each_tiers_own() -> None:
    gate = limited(jobs_per_minute=1)
    assert ask(gate, 0.0) == Let(Tier.FAST)
    assert isinstance(ask(gate, 0.0), TurnAway)
    assert ask(gate, 0.0, tenant="bob") == Let(Tier.FAST)
    assert ask(gate, 0.0, tier=Tier.TURBO) == Let(Tier.TURBO)


@given(
    st.lists(st.floats(0, 30), max_size=80),
    st.sampled_from([1.0, 7.0, 60.0, 90.0]),
    st.integers(1, 5),
)
def test_never_more_than_the_rate_and_the_burst_and_retry_after_is_honest(
    gaps: list[float], rate: float, burst: int
) -> None:
    gate, now, let = limited(jobs_per_minute=rate, burst=burst), 0.0, []
    for gap in gaps:
        now += gap
        answer = ask(gate, now)
        if isinstance(answer, TurnAway):
            now += answer.retry_after_s
            assert ask(gate, now) == Let(Tier.FAST)
        let.append(now)
    for first in range(len(let)):
        for last in range(first, len(let)):
            most = burst + (let[last] - let[first]) * rate / 60 + 1e-3
            assert last - first + 1 <= most


def test_concurrency_counts_what_is_not_over() -> None:
    gate = limited(unfinished_max=2)
    assert ask(gate, 0.0) == ask(gate, 0.0) == Let(Tier.FAST)
    refused = ask(gate, 0.0)
    assert isinstance(refused, TurnAway)
    assert refused.bound == "concurrency"
    gate.ended("ann", Tier.FAST, 1.0, 1.0, 5.0)
    assert ask(gate, 5.0) == Let(Tier.FAST)


def test_jobs_of_before_a_restart_count() -> None:
    gate = limited(unfinished_max=1)
    gate.resume("ann", Tier.FAST)
    assert isinstance(ask(gate, 0.0), TurnAway)


def test_a_full_queue_tells_when_the_next_job_should_end() -> None:
    gate = Gate(AdmitRules(queued_max=10, queued_per_tenant_max=5))
    for at in range(20):
        gate.ended("bob", Tier.FAST, 1.0, 1.0, at * 4.0)
    full = gate.ask("ann", Tier.FAST, 1.0, 80.0, queued=10, queued_of=0)
    assert isinstance(full, TurnAway)
    assert (full.bound, full.limit, full.retry_after_s) == ("queue", 10, 4)
    mine = gate.ask("ann", Tier.FAST, 1.0, 80.0, queued=9, queued_of=5)
    assert isinstance(mine, TurnAway)
    assert (mine.bound, mine.limit) == ("tenant_queue", 5)
    stalled = gate.ask("ann", Tier.FAST, 1.0, 800.0, queued=10, queued_of=0)
    assert isinstance(stalled, TurnAway)
    assert stalled.retry_after_s == 40, "nothing has ended for long, and it says so"


def test_spent_budget_is_refused_until_the_period_is_over() -> None:
    gate = Gate(AdmitRules(budget=Budget(device_s=10.0, period_s=DAY_S)))
    assert ask(gate, 0.0, cost_s=6.0) == ask(gate, 0.0, cost_s=6.0) == Let(Tier.FAST)
    refused = ask(gate, 3600.0)
    assert isinstance(refused, TurnAway)
    assert (refused.bound, refused.retry_after_s) == ("budget", 23 * 3600)
    assert ask(gate, 3600.0, tier=Tier.RELAX) == Let(Tier.RELAX), "relax costs none"
    assert ask(gate, DAY_S) == Let(Tier.FAST)


def test_a_tenant_that_chose_so_falls_to_relax() -> None:
    rules = AdmitRules(budgets={"ann": Budget(10.0, DAY_S, falls_to_relax=True)})
    gate = Gate(rules)
    ask(gate, 0.0, cost_s=10.0)
    assert ask(gate, 0.0, tier=Tier.TURBO) == Let(Tier.RELAX, fell=True)
    assert ask(gate, 0.0, tier=Tier.TURBO, tenant="bob") == Let(Tier.TURBO)
    assert gate.left_s("bob", 0.0) is None


@pytest.mark.parametrize(("measured_s", "left_s"), [(9.0, 1.0), (2.0, 8.0), (0.0, 10.0)])
def test_budget_is_settled_with_what_was_measured(measured_s: float, left_s: float) -> None:
    gate = Gate(AdmitRules(budget=Budget(10.0, DAY_S)))
    ask(gate, 0.0, cost_s=6.0)
    assert gate.left_s("ann", 0.0) == 4.0
    gate.ended("ann", Tier.FAST, 6.0, measured_s, 5.0)
    assert gate.left_s("ann", 5.0) == left_s


def test_budgets_are_kept_over_a_restart() -> None:
    rules = AdmitRules(budget=Budget(10.0, DAY_S))
    gate = Gate(rules)
    ask(gate, 0.0, cost_s=7.0)
    again = Gate(rules, json.loads(json.dumps(gate.standing())))
    assert again.left_s("ann", 60.0) == 3.0


def test_who_is_turned_away_is_not_counted() -> None:
    gate = Gate(
        AdmitRules(
            tiers={Tier.FAST: TierLimits(jobs_per_minute=1, unfinished_max=5)},
            budget=Budget(100.0, DAY_S),
        )
    )
    ask(gate, 0.0)
    for _ in range(10):
        assert isinstance(ask(gate, 1.0), TurnAway)
    assert gate.left_s("ann", 1.0) == 99.0
    assert ask(gate, 60.0) == Let(Tier.FAST)
