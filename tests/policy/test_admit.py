"""Admission: rates, concurrency, queues and budgets, and when to ask again."""

from __future__ import annotations

import json
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core.nouns import Budget, Tier, WhenSpent
from calotype.policy.admit import AdmitRules, Gate, Let, TierLimits, TurnAway

DAY_S = 86_400.0
TEN = Budget(10.0)
numbers = count()


def ask(
    gate: Gate,
    now: float,
    tier: Tier = Tier.FAST,
    cost_s: float = 1.0,
    tenant: str = "ann",
    budget: Budget | None = None,
    job: str | None = None,
) -> Let | TurnAway:
    return gate.ask(job or f"job-{next(numbers)}", tenant, tier, cost_s, now, budget=budget)


def limited(**bounds: float) -> Gate:
    return Gate(AdmitRules(tiers={Tier.FAST: TierLimits(**bounds)}))  # type: ignore[arg-type]


def budgeted() -> Gate:
    return Gate(AdmitRules(period_s=DAY_S))


def left_s(gate: Gate, now: float, tenant: str = "ann", budget: Budget = TEN) -> float:
    return gate.balance(tenant, budget, now).left_s


def restarted(gate: Gate, now: float = 0.0) -> Gate:
    return Gate(gate.rules, json.loads(json.dumps(gate.standing())), now)


def test_without_bounds_everyone_is_let_in() -> None:
    gate = Gate()
    assert all(ask(gate, 0.0) == Let(Tier.FAST) for _ in range(1_000))


# Rates.


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


def test_a_rate_of_less_than_one_an_hour_is_told_as_it_is() -> None:
    gate = limited(jobs_per_minute=0.01)
    ask(gate, 0.0)
    refused = ask(gate, 0.0)
    assert isinstance(refused, TurnAway)
    assert refused.retry_after_s == 6_000


@given(
    st.lists(st.floats(0, 30), max_size=80),
    st.sampled_from([1.0, 7.0, 60.0, 90.0]),
    st.integers(1, 5),
    st.integers(0, 80),
)
def test_never_more_than_the_rate_and_the_burst_and_retry_after_is_honest(
    gaps: list[float], rate: float, burst: int, restart_at: int
) -> None:
    gate, now, let = limited(jobs_per_minute=rate, burst=burst), 0.0, []
    for number, gap in enumerate(gaps):
        now += gap
        if number == restart_at:
            gate = restarted(gate, now)
        answer = ask(gate, now)
        if isinstance(answer, TurnAway):
            assert answer.retry_after_s is not None
            now += answer.retry_after_s
            assert ask(gate, now) == Let(Tier.FAST)
        let.append(now)
    for first in range(len(let)):
        for last in range(first, len(let)):
            most = burst + (let[last] - let[first]) * rate / 60 + 1e-3
            assert last - first + 1 <= most


# Concurrency and queues.


def test_concurrency_counts_what_is_not_over() -> None:
    gate = limited(unfinished_max=2)
    assert ask(gate, 0.0, job="first") == ask(gate, 0.0) == Let(Tier.FAST)
    refused = ask(gate, 0.0)
    assert isinstance(refused, TurnAway)
    assert refused.bound == "concurrency"
    assert ask(gate, 0.0, tenant="bob") == Let(Tier.FAST)
    gate.ended("first", 1.0, 5.0)
    gate.ended("first", 1.0, 5.0)
    assert ask(gate, 5.0) == Let(Tier.FAST)
    assert isinstance(ask(gate, 5.0), TurnAway), "the same end, told twice, is one"


def test_jobs_of_before_a_restart_count() -> None:
    gate = limited(unfinished_max=1)
    gate.resume("before", "ann", Tier.FAST, 1.0, charged_s=None, at=0.0)
    assert isinstance(ask(gate, 0.0), TurnAway)
    gate.ended("before", 1.0, 2.0)
    assert ask(gate, 2.0) == Let(Tier.FAST)


def turned_away(
    gate: Gate, now: float, *, queued: int, queued_of: int = 0, devices: int = 1
) -> TurnAway:
    answer = gate.ask(
        "one more", "ann", Tier.FAST, 1.0, now,
        queued=queued, queued_of=queued_of, devices=devices,
    )  # fmt: skip
    assert isinstance(answer, TurnAway)
    return answer


def test_a_full_queue_tells_when_by_the_predicted_work_a_job_should_end() -> None:
    gate = Gate(AdmitRules(queued_max=10, queued_per_tenant_max=5))
    for each in range(10):
        ask(gate, 0.0, cost_s=12.0, tenant="bob", job=f"bob's {each}")
    full = turned_away(gate, 0.0, queued=10)
    assert (full.bound, full.limit, full.retry_after_s) == ("queue", 10, 12)
    assert turned_away(gate, 0.0, queued=10, devices=4).retry_after_s == 3
    assert turned_away(gate, 30.0, queued=10).retry_after_s == 30, "nothing has ended for long"
    gate.ended("bob's 0", 12.0, 30.0)
    assert turned_away(gate, 31.0, queued=10).retry_after_s == 12
    assert turned_away(gate, 10**6, queued=10).retry_after_s == 3_600, "an estimate has a bound"


def test_a_tenants_turn_comes_by_its_share() -> None:
    gate = Gate(AdmitRules(queued_per_tenant_max=2))
    for each in range(4):
        ask(gate, 0.0, cost_s=2.0, tenant=f"tenant {each}")
        ask(gate, 0.0, cost_s=2.0, tenant=f"tenant {each}", tier=Tier.TURBO)
    ask(gate, 0.0, cost_s=2.0)
    mine = turned_away(gate, 0.0, queued=9, queued_of=2)
    assert (mine.bound, mine.limit) == ("tenant_queue", 2)
    assert mine.retry_after_s == 30, "a fifth of fast's third of jobs of two seconds"


def test_who_is_turned_away_is_not_counted() -> None:
    gate = Gate(
        AdmitRules(
            tiers={Tier.FAST: TierLimits(jobs_per_minute=1, unfinished_max=5)}, period_s=DAY_S
        )
    )
    ask(gate, 0.0, budget=TEN)
    for _ in range(10):
        assert isinstance(ask(gate, 1.0, budget=TEN), TurnAway)
    assert left_s(gate, 1.0) == 9.0
    assert ask(gate, 60.0, budget=TEN) == Let(Tier.FAST, charged_s=1.0)


# Budgets.


def test_a_spent_budget_is_refused_until_the_period_is_over() -> None:
    gate = budgeted()
    for _ in range(2):
        assert ask(gate, 0.0, cost_s=6.0, budget=TEN) == Let(Tier.FAST, charged_s=6.0)
    refused = ask(gate, 3600.0, budget=TEN)
    assert isinstance(refused, TurnAway)
    assert (refused.bound, refused.limit, refused.retry_after_s) == ("budget", 10.0, 23 * 3600)
    assert ask(gate, 3600.0, tier=Tier.RELAX, budget=TEN) == Let(Tier.RELAX), "relax costs none"
    assert ask(gate, 3600.0, tenant="bob", budget=TEN) == Let(Tier.FAST, charged_s=1.0)
    assert ask(gate, DAY_S, budget=TEN) == Let(Tier.FAST, charged_s=1.0)


def test_a_tenant_that_chose_so_falls_to_relax() -> None:
    gate, falling = budgeted(), Budget(10.0, WhenSpent.RELAX)
    ask(gate, 0.0, cost_s=10.0, budget=falling)
    assert ask(gate, 0.0, tier=Tier.TURBO, budget=falling) == Let(Tier.RELAX, Tier.TURBO)
    assert ask(gate, 0.0, tier=Tier.TURBO, tenant="bob") == Let(Tier.TURBO)


def test_a_budget_counts_as_it_is_now() -> None:
    gate = budgeted()
    ask(gate, 0.0, cost_s=10.0, budget=TEN)
    assert isinstance(ask(gate, 0.0, budget=TEN), TurnAway)
    assert isinstance(ask(gate, 0.0, budget=Budget(20.0)), Let)


def test_a_budget_is_told_as_people_write_it() -> None:
    gate, large = budgeted(), Budget(1_500_000.5)
    ask(gate, 0.0, cost_s=2e6, budget=large)
    refused = ask(gate, 0.0, budget=large)
    assert isinstance(refused, TurnAway)
    assert "the 1,500,000.5 device-seconds in turbo and fast are spent" in refused.detail


def test_nothing_at_all_is_worth_no_waiting() -> None:
    refused = ask(budgeted(), 0.0, budget=Budget(0.0))
    assert isinstance(refused, TurnAway)
    assert refused.retry_after_s is None


@pytest.mark.parametrize(("measured_s", "left"), [(9.0, 1.0), (2.0, 8.0), (0.0, 10.0)])
def test_a_budget_is_settled_with_what_was_measured(measured_s: float, left: float) -> None:
    gate = budgeted()
    ask(gate, 0.0, cost_s=6.0, budget=TEN, job="one")
    assert left_s(gate, 0.0) == 4.0
    gate.ended("one", measured_s, 5.0)
    assert left_s(gate, 5.0) == left


def test_what_was_let_in_uncharged_is_not_settled() -> None:
    gate = budgeted()
    ask(gate, 0.0, job="before there was a budget")
    ask(gate, 0.0, Tier.RELAX, budget=TEN, job="relax")
    ask(gate, 0.0, cost_s=4.0, budget=TEN)
    gate.ended("before there was a budget", 0.0, 1.0)
    gate.ended("relax", 9.0, 1.0)
    assert left_s(gate, 1.0) == 6.0


def test_a_job_of_a_period_that_is_over_gives_nothing_back_to_the_next() -> None:
    gate = budgeted()
    ask(gate, 0.0, cost_s=8.0, budget=TEN, job="long")
    ask(gate, DAY_S + 1, cost_s=5.0, budget=TEN)
    gate.ended("long", 1.0, DAY_S + 2)
    assert left_s(gate, DAY_S + 2) == 5.0


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["ask", "end", "restart", "wait"]),
        st.sampled_from(["ann", "bob"]),
        st.floats(0.1, 8.0),
    ),
    max_size=60,
)


@given(MOVES)
def test_a_balance_is_what_was_measured_and_what_is_still_out(
    moves: list[tuple[str, str, float]],
) -> None:
    """Of one period; each tenant's is its own, over restarts too."""
    gate, now = Gate(AdmitRules(period_s=1e9)), 0.0
    measured, out = {"ann": 0.0, "bob": 0.0}, dict[str, tuple[str, float, float]]()
    for kind, tenant, amount in moves:
        now += amount
        if kind == "ask":
            job = f"job-{len(out)}-{now}"
            answer = ask(gate, now, cost_s=amount, tenant=tenant, budget=TEN, job=job)
            spent = measured[tenant] + sum(cost for of, cost, _ in out.values() if of == tenant)
            if abs(spent - 10.0) > 1e-6:
                assert isinstance(answer, Let) is (spent < 10.0)
            if isinstance(answer, Let):
                out[job] = tenant, amount, now
        elif kind == "end" and out:
            job = next(iter(out))
            of, _, _ = out.pop(job)
            gate.ended(job, amount, now)
            measured[of] += amount
        elif kind == "restart":
            gate = restarted(gate, now)
            for job, (of, cost, at) in out.items():
                gate.resume(job, of, Tier.FAST, cost, charged_s=cost, at=at)
    for tenant, ended_s in measured.items():
        out_s = sum(cost for of, cost, _ in out.values() if of == tenant)
        assert left_s(gate, now, tenant) == pytest.approx(10.0 - ended_s - out_s, abs=1e-6)
