"""Fair shares: bounds that hold for any traffic; reserves, floors, promotions."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.decisions import Decision, PromoteJob, StartAttempt
from calotype.core.errors import OperatorError
from calotype.core.events import EngineUp, JobQueued, JobSettled, TimePassed
from calotype.core.limits import PROMOTED_S_MAX, RELAX_SHARE_MIN, RELAX_WAIT_S_MAX
from calotype.core.nouns import TIER_WEIGHTS, Tier
from calotype.policy.line import Line
from calotype.policy.rules import Rules
from tests.policy.fleet import Clockwork, Fleet, Quick, queued

TIERS = tuple(Tier)
COST_S_MAX = 8.0


# A shop: engines of one row, traffic given beforehand, every start recorded.


@dataclass(frozen=True)
class Start:
    job: JobQueued
    arrived: float
    at: float
    why: str


class Shop:
    """Plays traffic in virtual time; jobs take what was predicted."""

    def __init__(self, engines: int = 1, rules: Rules | None = None) -> None:
        self.line = Line(rules=rules)
        self.now = 0.0
        self.starts: list[Start] = []
        self.arrived: dict[str, float] = {}
        self.jobs: dict[str, JobQueued] = {}  # waiting
        self.running: list[tuple[float, str, Tier]] = []  # ends at
        self.costs: dict[str, float] = {}
        for at in range(engines):
            self.take(self.line.on(EngineUp(f"e{at}", ("m",), 1), 0.0))

    def take(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, StartAttempt):
                job = self.jobs.pop(decision.job_id)
                self.check(job, decision.why)
                self.starts.append(Start(job, self.arrived[job.job_id], self.now, decision.why))
                self.running.append((self.now + job.cost_s, job.job_id, job.tier))
        self.running.sort()

    def check(self, job: JobQueued, why: str) -> None:
        """What must hold at every start."""

    def send(self, job: JobQueued) -> None:
        self.jobs[job.job_id] = job
        self.costs[job.job_id] = job.cost_s
        self.arrived[job.job_id] = self.now
        self.take(self.line.on(job, self.now))

    def run_until(self, then: float) -> None:
        while self.running and self.running[0][0] <= then:
            self.now, job_id, _ = self.running.pop(0)
            took_s = self.now - next(
                one.at for one in reversed(self.starts) if one.job.job_id == job_id
            )
            self.take(self.line.on(JobSettled(job_id, took_s), self.now))
        self.now = max(self.now, then) if then < float("inf") else self.now


COST = st.sampled_from([0.1, 0.5, 1.0, 3.0, COST_S_MAX])
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.2, 1.0, 5.0, 60.0, 400.0]),  # after the one before, seconds
        st.sampled_from(TIERS),
        st.sampled_from(["ann", "bob", "eve"]),
        COST,
    ),
    max_size=60,
)


def play(shop: Shop, arrivals: list[tuple[float, Tier, str, float]]) -> None:
    for at, (after_s, tier, tenant, cost_s) in enumerate(arrivals):
        shop.run_until(shop.now + after_s)
        shop.send(queued(f"j{at}", tier=tier, tenant=tenant, cost_s=cost_s))
    shop.run_until(float("inf"))


# Shares


def test_shares_converge_to_ten_to_five_to_one_within_two_per_cent() -> None:
    noise, fleet, numbers = random.Random(3), Quick(), iter(range(10**9))

    def top_up(tier: Tier, tenant: str, user: str) -> None:
        cost_s = {"ann": 1.0, "bob": 4.0}[tenant] * noise.uniform(0.5, 1.5)
        name = f"j{next(numbers)}"
        fleet.feed(queued(name, tier=tier, tenant=tenant, user=user, cost_s=cost_s))

    for tier in TIERS:
        for tenant in ("ann", "bob"):
            for user in ("u", "v"):
                for _ in range(8):
                    top_up(tier, tenant, user)
    for name in ("e0", "e1", "e2", "e3"):
        fleet.up(name)
    clockwork = Clockwork(fleet, lambda job: job.cost_s * noise.uniform(0.7, 1.6))
    users: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for at in range(30_000):
        if at == 3_000:  # by then relax has had all that promotion gives on credit
            clockwork.used_s.clear()
            users.clear()
        ended = clockwork.step()
        users[ended.tier, ended.tenant, ended.user] += ended.cost_s
        top_up(ended.tier, ended.tenant, ended.user)
    whole = sum(clockwork.used_s.values())
    for tier, share in zip(TIERS, (10 / 16, 5 / 16, 1 / 16), strict=True):
        of_tier = [clockwork.used_s[tier, tenant] for tenant in ("ann", "bob")]
        assert sum(of_tier) / whole == pytest.approx(share, rel=0.02)
        assert of_tier[0] == pytest.approx(of_tier[1], rel=0.05)
        for tenant in ("ann", "bob"):
            assert users[tier, tenant, "u"] == pytest.approx(users[tier, tenant, "v"], rel=0.08)


@given(st.lists(st.tuples(COST, COST, COST), min_size=5, max_size=120), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_no_tier_with_work_falls_behind_its_share_over_any_window(
    costs: list[tuple[float, float, float]], engines: int
) -> None:
    """Pairwise, service per weight differs by no more than two largest jobs and the credit."""
    shop = Shop(engines)
    for at, of_tiers in enumerate(costs):
        for tier, cost_s in zip(TIERS, of_tiers, strict=True):
            shop.send(queued(f"{tier}{at}", tier=tier, cost_s=cost_s))
    shop.run_until(float("inf"))
    left = Counter({tier: len(costs) for tier in TIERS})
    served = dict.fromkeys(TIERS, 0.0)
    gaps: defaultdict[tuple[Tier, Tier], list[float]] = defaultdict(lambda: [0.0])
    for start in shop.starts[engines:]:  # the first ones met an empty line
        served[start.job.tier] += start.job.cost_s
        left[start.job.tier] -= 1
        if min(left.values()) <= engines:
            break  # from here on one has no work
        for one in TIERS:
            for other in TIERS:
                gap = served[one] / TIER_WEIGHTS[one] - served[other] / TIER_WEIGHTS[other]
                gaps[one, other].append(gap)
    credit_s = PROMOTED_S_MAX * engines + COST_S_MAX  # relax alone promotes
    for (one, other), seen in gaps.items():
        jobs = COST_S_MAX / TIER_WEIGHTS[one] + COST_S_MAX / TIER_WEIGHTS[other]
        credit = credit_s / TIER_WEIGHTS[Tier.RELAX] if Tier.RELAX in (one, other) else 0.0
        assert max(seen) - min(seen) <= jobs + credit + 1e-6


def wait_s_max(start: Start, ahead_s: float, tenants: int) -> float:
    """How long a job can wait on one engine, by its own tenant's work ahead of it alone.

    Until it starts each other tenant of its tier gets at most as much as its own and two largest
    jobs; meanwhile each other tier gets that by weight and two jobs; its tier pays a quarter for
    earlier promotions, and those of others run on credit.
    """
    weight = TIER_WEIGHTS[start.job.tier]
    of_tier_s = tenants * (ahead_s + 2 * COST_S_MAX) * 1.25
    others_s = sum(
        TIER_WEIGHTS[tier] / weight * (of_tier_s + COST_S_MAX) + COST_S_MAX
        for tier in TIERS
        if tier is not start.job.tier
    )
    return of_tier_s + others_s + PROMOTED_S_MAX + 2 * COST_S_MAX


@given(ARRIVALS)
@settings(max_examples=150, deadline=None)
def test_no_job_waits_beyond_its_bound_whatever_the_others_send(
    arrivals: list[tuple[float, Tier, str, float]],
) -> None:
    shop = Shop()
    play(shop, arrivals)
    assert len(shop.starts) == len(arrivals), "a job never started"
    for start in shop.starts:
        ahead_s = sum(
            other.job.cost_s
            for other in shop.starts
            if (other.job.tier, other.job.tenant) == (start.job.tier, start.job.tenant)
            and other.arrived <= start.arrived
            and other.at >= start.arrived
            and other is not start
        )
        assert start.at - start.arrived <= wait_s_max(start, ahead_s, tenants=3) + 1e-6


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("flood", [1_000, 20])
def test_a_tenant_sending_a_thousand_times_more_slows_another_by_one_job_at_most(
    tier: Tier, flood: int
) -> None:
    shop = Shop()
    for at in range(flood):
        shop.send(queued(f"a{at}", tier=tier, tenant="ann", cost_s=2.0))
    for at in range(8):
        shop.run_until(shop.now + 4.5)
        shop.send(queued(f"b{at}", tier=tier, tenant="bob", cost_s=2.0))
    shop.run_until(float("inf"))
    for bob in [start for start in shop.starts if start.job.tenant == "bob"]:
        between = [it for it in shop.starts if bob.arrived < it.at < bob.at]
        assert len(between) <= 1


def test_the_same_flood_of_late_relax_jobs_sets_the_tier_back_by_a_quarter_of_a_job() -> None:
    shop = Shop()
    for at in range(2_000):
        shop.send(queued(f"t{at}", tier=Tier.TURBO, tenant="eve", cost_s=2.0))
    for at in range(300):
        shop.send(queued(f"a{at}", tier=Tier.RELAX, tenant="ann", cost_s=2.0))
    shop.run_until(RELAX_WAIT_S_MAX + 60.0)  # ann's are late, and their credit is used up
    shop.send(queued("b", tier=Tier.RELAX, tenant="bob", cost_s=2.0))
    shop.run_until(RELAX_WAIT_S_MAX + 200.0)
    (bob,) = [it for it in shop.starts if it.job.tenant == "bob"]
    between = Counter(it.job.tenant for it in shop.starts if bob.arrived < it.at < bob.at)
    assert between["ann"] <= 2  # one in the tier's turn, one on credit paid back meanwhile
    assert between["eve"] <= 10 * 1.25 + 2


def test_users_of_a_tenant_share_what_it_gets() -> None:
    fleet = Fleet()
    for at in range(30):
        fleet.feed(queued(f"u{at}", user="u"))
    for at in range(30):
        fleet.feed(queued(f"v{at}", user="v", model="m" if at % 2 else "x"))
    fleet.up(models=("m", "x"))
    clockwork = Clockwork(fleet, lambda job: job.cost_s)
    ended = Counter(clockwork.step().user for _ in range(20))
    assert ended == {"u": 10, "v": 10}


# Promotion


def test_relax_job_is_promoted_after_its_maximum_wait_and_starts_before_turbo() -> None:
    line = Line()
    line.on(EngineUp("e0", ("m",), 1), 0.0)
    line.on(queued("t0", tier=Tier.TURBO, cost_s=1_000.0), 0.0)
    line.on(queued("r0", tier=Tier.RELAX, cost_s=5.0), 1.0)
    line.on(queued("r1", tier=Tier.RELAX, cost_s=5.0), 2.0)
    line.on(queued("t1", tier=Tier.TURBO, tenant="bob", cost_s=1.0), 3.0)
    assert line.next_deadline() == 1.0 + RELAX_WAIT_S_MAX
    assert line.on(TimePassed(), 300.9) == []
    assert line.on(TimePassed(), 301.0) == [PromoteJob("r0", RELAX_WAIT_S_MAX)]
    assert line.next_deadline() == 2.0 + RELAX_WAIT_S_MAX
    assert line.on(JobSettled("t0", 1.0), 301.5) == [StartAttempt("r0", "e0", "promoted")]
    assert line.next_deadline() == 2.0 + RELAX_WAIT_S_MAX


def test_jobs_wait_before_a_restart_counts() -> None:
    line = Line()
    line.on(JobQueued("r", "ann", Tier.RELAX, "m", 1, 1.0, waited_s=200.0), 1_000.0)
    assert line.next_deadline() == 1_000.0 + RELAX_WAIT_S_MAX - 200.0


def test_promotions_run_on_credit_that_is_bounded_and_paid_back() -> None:
    shop = Shop()
    for at in range(3_000):
        shop.send(queued(f"t{at}", tier=Tier.TURBO, tenant="eve", cost_s=1.0))
        shop.send(queued(f"r{at}", tier=Tier.RELAX, tenant="ann", cost_s=1.0))
    shop.run_until(2_000.0)
    promoted = [start for start in shop.starts if start.why == "promoted"]
    assert promoted
    assert promoted[0].at == pytest.approx(RELAX_WAIT_S_MAX, abs=1.0)
    assert len(promoted) > PROMOTED_S_MAX + 2, "what is paid back is lent again"
    share = sum(start.job.tier is Tier.RELAX for start in shop.starts) / len(shop.starts)
    assert share == pytest.approx(1 / 11, abs=(PROMOTED_S_MAX + 2) / len(shop.starts))


class Reserving(Shop):
    """Asserts that nobody takes what is reserved for a tier that wants it."""

    rules = Rules(reserved={Tier.TURBO: 0.5, Tier.FAST: 0.25})

    def __init__(self) -> None:
        super().__init__(engines=4, rules=self.rules)

    def check(self, job: JobQueued, why: str) -> None:
        held = Counter(tier for _, _, tier in self.running)
        wanting = {
            tier
            for tier in (other.tier for other in self.jobs.values())
            if held[tier] < int(4 * self.rules.reserved.get(tier, 0.0))
        }
        if why in ("turn", "promoted"):
            assert not wanting - {job.tier}, f"{job.tier} took what is reserved for {wanting}"
        if why == "reserved":
            assert held[job.tier] < int(4 * self.rules.reserved[job.tier])


@given(ARRIVALS)
@settings(max_examples=150, deadline=None)
def test_promotions_and_turns_never_invert_reserved_capacity(
    arrivals: list[tuple[float, Tier, str, float]],
) -> None:
    shop = Reserving()
    for at in range(8):
        shop.send(queued(f"r{at}", tier=Tier.RELAX, tenant="zoe", cost_s=COST_S_MAX))
    play(shop, arrivals)
    assert len(shop.starts) == len(arrivals) + 8, "reserves keep nobody from starting for ever"


def test_reserved_capacity_that_nobody_wants_is_used_by_others() -> None:
    shop = Reserving()
    for at in range(4):
        shop.send(queued(f"r{at}", tier=Tier.RELAX))
    assert len(shop.running) == 4


def test_reserve_brings_a_tier_up_to_its_devices_at_once() -> None:
    shop = Reserving()
    for at in range(20):
        shop.send(queued(f"f{at}", tier=Tier.FAST, cost_s=1.0))
    for at in range(2):
        shop.send(queued(f"t{at}", tier=Tier.TURBO, cost_s=50.0))
    shop.run_until(1.0)
    assert [it.why for it in shop.starts if it.job.tier is Tier.TURBO] == ["reserved"] * 2


def test_relax_gets_its_minimum_though_all_else_is_reserved() -> None:
    shop = Shop(1, Rules(reserved={Tier.TURBO: 0.95}))
    for at in range(19):  # devices that can't run the model: turbo never has its 19 rows
        shop.line.on(EngineUp(f"other{at}", ("x",), 1), 0.0)
    for at in range(6_000):
        shop.send(queued(f"t{at}", tier=Tier.TURBO, cost_s=1.0))
        shop.send(queued(f"r{at}", tier=Tier.RELAX, cost_s=1.0))
    shop.run_until(12_000.0)
    early = shop.starts[:6_000]
    relax = [start for start in early if start.job.tier is Tier.RELAX]
    assert {start.why for start in relax} == {"guaranteed"}
    lag_s = 10.0 * 20 / RELAX_SHARE_MIN  # FLOOR_LAG_S_MAX for each engine, in the share's time
    assert len(relax) >= RELAX_SHARE_MIN * (len(early) - lag_s)


def test_rules_that_promise_more_than_there_is_are_refused() -> None:
    with pytest.raises(OperatorError, match="105%") as raised:
        Rules(reserved={Tier.TURBO: 0.6, Tier.FAST: 0.4})
    assert raised.value.field == "reserved"
    with pytest.raises(OperatorError, match="weight"):
        Rules(weights={Tier.TURBO: 10})
    with pytest.raises(OperatorError, match="between"):
        Rules(floors={Tier.RELAX: -0.1})
