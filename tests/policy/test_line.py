"""The line: fair order, places and failures."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from calotype.core.decisions import FailJob, RequeueJob, StartAttempt
from calotype.core.events import AttemptFailed, EngineGone, EngineUp, JobCancelled, JobSettled
from calotype.core.limits import (
    ATTEMPTS_MAX,
    POSITIONS_EXACT_MAX,
    QUEUED_JOBS_MAX,
    RELAX_WAIT_S_MAX,
)
from calotype.core.nouns import Tier
from calotype.policy.line import Line
from tests.policy.fleet import Clockwork, Fleet, queued

TIERS = (Tier.TURBO, Tier.FAST, Tier.RELAX)


# Fair order


def saturated(noise: random.Random, jobs: int, rows_max: int) -> dict[tuple[str, str], float]:
    """Device-seconds used while three tenants in each tier always have jobs waiting."""
    fleet = Fleet()
    numbers = iter(range(10**9))

    def top_up(tier: Tier, tenant: str) -> None:
        costs = {"ann": 1.0, "bob": 4.0, "eve": 0.3}  # sizes differ: shares must not
        rows = noise.randint(1, 2)
        cost_s = costs[tenant] * rows * noise.uniform(0.5, 1.5)
        fleet.feed(queued(f"j{next(numbers)}", tenant=tenant, tier=tier, rows=rows, cost_s=cost_s))

    for tier in TIERS:
        for tenant in ("ann", "bob", "eve"):
            for _ in range(6):
                top_up(tier, tenant)
    fleet.up("e0", rows_max=rows_max)
    fleet.up("e1", rows_max=rows_max)
    clockwork = Clockwork(fleet, lambda job: job.cost_s * noise.uniform(0.7, 1.6))
    for at in range(jobs):
        if at == jobs // 4:  # by then relax has had all that it may have on credit
            clockwork.used_s.clear()
        ended = clockwork.step()
        top_up(ended.tier, ended.tenant)
    return clockwork.used_s


@pytest.mark.parametrize("rows_max", [2, 6])
def test_saturated_tiers_share_device_seconds_ten_to_five_to_one(rows_max: int) -> None:
    used = saturated(random.Random(7), 9_000, rows_max)
    whole = sum(used.values())
    for tier, share in zip(TIERS, (10 / 16, 5 / 16, 1 / 16), strict=True):
        of_tier = [used[tier, tenant] for tenant in ("ann", "bob", "eve")]
        assert sum(of_tier) / whole == pytest.approx(share, rel=0.05)
        for one in of_tier:
            assert one / sum(of_tier) == pytest.approx(1 / 3, rel=0.08)


def test_tier_with_nothing_waiting_leaves_its_share_to_the_others() -> None:
    fleet = Fleet()
    for at in range(60):
        fleet.feed(queued(f"f{at}", tier=Tier.FAST))
        fleet.feed(queued(f"r{at}", tier=Tier.RELAX))
    fleet.up()
    clockwork = Clockwork(fleet, lambda job: job.cost_s)
    ended = Counter(clockwork.step().tier for _ in range(60))
    assert ended == {Tier.FAST: 50, Tier.RELAX: 10}


def test_tenant_gets_no_credit_for_having_been_idle() -> None:
    fleet = Fleet()
    fleet.feed(queued("b-early", tenant="bob"))
    for at in range(100):
        fleet.feed(queued(f"a{at}", tenant="ann"))
    fleet.up()
    clockwork = Clockwork(fleet, lambda job: job.cost_s)
    for _ in range(50):
        clockwork.step()
    for at in range(20):
        fleet.feed(queued(f"b{at}", tenant="bob"))
    ended = Counter(clockwork.step().tenant for _ in range(21))
    assert abs(ended["ann"] - ended["bob"]) <= 1, "bob's hour of silence buys him nothing"


def test_tier_gets_no_credit_for_having_been_idle() -> None:
    fleet = Fleet()
    for at in range(100):
        fleet.feed(queued(f"f{at}", tier=Tier.FAST))
    fleet.up()
    clockwork = Clockwork(fleet, lambda job: job.cost_s)
    for _ in range(50):
        clockwork.step()
    for at in range(20):
        fleet.feed(queued(f"r{at}", tier=Tier.RELAX))
    ended = Counter(clockwork.step().tier for _ in range(18))
    assert ended[Tier.RELAX] == 3, "relax has its sixth from now on, and nothing for before"


def test_job_that_cost_more_than_predicted_sets_its_tenant_back() -> None:
    fleet = Fleet()
    for at in range(20):
        fleet.feed(queued(f"a{at}", tenant="ann"))
        fleet.feed(queued(f"b{at}", tenant="bob"))
    fleet.up()
    clockwork = Clockwork(fleet, lambda job: 3.0 if job.tenant == "ann" else 1.0)
    ended = Counter(clockwork.step().tenant for _ in range(16))
    assert ended == {"ann": 4, "bob": 12}


def test_cancelled_run_is_charged_what_it_used() -> None:
    def bobs_position(measured_s: float) -> int | None:
        fleet = Fleet()
        for at in range(10):
            fleet.feed(queued(f"a{at}", tenant="ann", cost_s=5.0))
        fleet.up()
        fleet.feed(queued("b0", tenant="bob", cost_s=5.0))
        fleet.feed(JobCancelled("a0"))
        fleet.feed(JobSettled("a0", measured_s))
        fleet.feed(queued("b1", tenant="bob", cost_s=5.0))
        return fleet.line.position("b1")

    assert bobs_position(5.0) == 2  # b0 runs: even now, and a1 came first
    assert bobs_position(60.0) == 1
    assert bobs_position(0.1) == 2


def test_equals_start_in_order_of_arrival() -> None:
    fleet = Fleet()
    names = [f"j{at}" for at in range(6)]
    for at, name in enumerate(names):
        fleet.feed(queued(name, tenant=f"t{5 - at}"))
    fleet.up()
    clockwork = Clockwork(fleet, lambda job: job.cost_s)
    while fleet.running:
        clockwork.step()
    assert fleet.starts == names


# Places


def test_all_rows_of_a_job_go_to_the_engine_with_most_room() -> None:
    line = Line()
    line.on(EngineUp("e0", ("m",), 4), 0)
    line.on(EngineUp("e1", ("m",), 6), 0)
    assert line.on(queued("a", rows=3), 0) == [StartAttempt("a", "e1")]
    assert line.on(queued("b", rows=3), 0) == [StartAttempt("b", "e0")]
    assert line.on(queued("c", rows=2), 0) == [StartAttempt("c", "e1")]
    assert line.on(queued("d", rows=2), 0) == []


def test_job_of_many_rows_is_not_passed_for_ever_by_jobs_of_one() -> None:
    fleet = Fleet()
    fleet.up(rows_max=4)
    for at in range(4):
        fleet.feed(queued(f"s{at}", tenant="ann"))
    fleet.feed(queued("big", tenant="bob", rows=4, cost_s=4.0))
    for at in range(4, 50):
        fleet.feed(queued(f"s{at}", tenant="ann"))
    clockwork = Clockwork(fleet, lambda job: job.cost_s)
    for _ in range(4):
        clockwork.step()
    assert fleet.starts[4] == "big"


def test_job_whose_model_is_warm_nowhere_lets_others_pass() -> None:
    fleet = Fleet()
    fleet.up(models=("m",))
    fleet.feed(queued("cold", model="x"))
    assert fleet.feed(queued("warm")) == [StartAttempt("warm", "e0")]
    assert fleet.line.position("cold") == 1
    assert fleet.feed(EngineUp("e1", ("x",), 1)) == [StartAttempt("cold", "e1")]


def test_full_line_answers_for_positions() -> None:
    line = Line()
    for at in range(QUEUED_JOBS_MAX):
        line.on(queued(f"j{at}", tenant=f"t{at % 50}", tier=TIERS[at % 3]), 0)
    positions = [line.position(f"j{at}") for at in range(QUEUED_JOBS_MAX)]
    assert sorted(positions) == list(range(1, QUEUED_JOBS_MAX + 1))  # type: ignore[type-var]
    assert line.next_deadline() == RELAX_WAIT_S_MAX


def test_place_in_a_very_long_line_is_an_upper_estimate() -> None:
    line = Line()
    many = POSITIONS_EXACT_MAX + 1
    for at in range(many):
        line.on(queued(f"j{at}", tenant=f"t{at % 10}", tier=TIERS[at % 3]), 0)
    first, last = line.position("j0"), line.position(f"j{many - 1}")
    assert first is not None
    assert 1 <= first <= many
    assert last is not None
    assert last <= many


# Failures


def test_retryable_failure_is_tried_again_until_attempts_run_out() -> None:
    fleet = Fleet()
    fleet.feed(queued("j"))
    fleet.up()
    for _ in range(ATTEMPTS_MAX - 1):
        decisions = fleet.feed(AttemptFailed("j", "out of memory", is_retryable=True))
        assert decisions == [RequeueJob("j", "out of memory"), StartAttempt("j", "e0")]
    fleet.feed(AttemptFailed("j", "out of memory", is_retryable=True))
    assert fleet.failed == {"j": "out of memory (attempt 3 of 3)"}


def test_failure_for_good_is_final_and_frees_the_engine_for_the_next() -> None:
    fleet = Fleet()
    fleet.feed(queued("bad"))
    fleet.feed(queued("next"))
    fleet.up()
    decisions = fleet.feed(AttemptFailed("bad", "no such sampler", is_retryable=False))
    assert decisions == [FailJob("bad", "no such sampler"), StartAttempt("next", "e0")]


def test_death_of_the_engine_is_an_attempt_and_its_jobs_come_before_younger_ones() -> None:
    fleet = Fleet()
    fleet.up(rows_max=2)
    for name in ("a", "b", "c"):
        fleet.feed(queued(name))
    for _ in range(ATTEMPTS_MAX - 1):
        decisions = fleet.feed(EngineGone("e0", "exit code 9"))
        reason = "e0 is gone: exit code 9"
        assert decisions == [RequeueJob("a", reason), RequeueJob("b", reason)]
        assert [fleet.line.position(name) for name in "abc"] == [1, 2, 3]
        fleet.up(rows_max=2)
    fleet.feed(EngineGone("e0"))
    assert fleet.failed == {"a": "e0 is gone (attempt 3 of 3)"}


def test_job_that_kills_its_engine_dies_alone_and_its_neighbours_live() -> None:
    fleet = Fleet()
    names = ["ann", "killer", "bob"]
    for name in names:
        fleet.feed(queued(name, tenant=name))
    fleet.up(rows_max=4)
    while "killer" not in fleet.failed:
        if "killer" in fleet.running:
            fleet.feed(EngineGone("e0"))
            if "killer" not in fleet.failed:
                fleet.up(rows_max=4)
        else:
            (job,) = fleet.running
            fleet.feed(JobSettled(job, 1.0))
    fleet.up(rows_max=4)
    assert fleet.starts == [*names, *names, *names]
    assert list(fleet.running) == ["bob"], "it waited for the killer to be through"
    fleet.feed(JobSettled("bob", 1.0))
    assert list(fleet.failed) == ["killer"]
    assert not fleet.jobs


def test_nobody_joins_a_last_attempt_and_it_waits_for_an_empty_engine() -> None:
    fleet = Fleet()
    fleet.up(rows_max=4)
    fleet.feed(queued("runs"))
    fleet.feed(queued("last", attempt=ATTEMPTS_MAX - 1))
    fleet.feed(queued("next"))
    assert list(fleet.running) == ["runs"], "the engine is held for the last attempt"
    fleet.feed(JobSettled("runs", 1.0))
    assert list(fleet.running) == ["last"]
    fleet.feed(JobSettled("last", 1.0))
    assert list(fleet.running) == ["next"]


def test_lost_attempt_costs_its_tenant_nothing() -> None:
    fleet = Fleet()
    fleet.up()
    fleet.feed(queued("a0", tenant="ann", cost_s=100.0))
    fleet.feed(queued("b0", tenant="bob"))
    fleet.feed(EngineGone("e0"))
    fleet.up()
    assert fleet.starts == ["a0", "a0"]


def test_engine_that_comes_up_again_without_a_word_has_lost_its_jobs() -> None:
    fleet = Fleet()
    fleet.up()
    fleet.feed(queued("j"))
    decisions = fleet.feed(EngineUp("e0", ("m",), 1))
    assert decisions == [RequeueJob("j", "e0 is gone"), StartAttempt("j", "e0")]


def test_words_about_unknown_jobs_change_nothing() -> None:
    line = Line()
    line.on(EngineUp("e0", ("m",), 1), 0)
    line.on(queued("j"), 0)
    line.on(queued("waits"), 0)
    before = line.standing()
    for event in (
        JobCancelled("?"),
        JobSettled("?", 3.0),
        JobSettled("waits", 3.0),
        AttemptFailed("?", "late", is_retryable=True),
        AttemptFailed("waits", "late", is_retryable=False),
        EngineGone("e9"),
        queued("j"),
        queued("waits", cost_s=9.0),
    ):
        assert line.on(event, 0) == []
    assert line.standing() == before
    assert line.waiting == 1
    assert line.position("?") is None


def test_job_that_lost_every_attempt_with_the_server_is_given_up_on_return() -> None:
    decisions = Line().on(queued("j", attempt=ATTEMPTS_MAX), 0)
    assert decisions == [FailJob("j", "every attempt was lost (attempt 3 of 3)")]
