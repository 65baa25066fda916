"""How many engines there should be: laws that hold for all traffic, and what is chosen when."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.events import JobQueued, ModelKnown
from calotype.core.nouns import Component, Reserve, Tier
from calotype.policy.scale import (
    LOOK_S,
    FleetLooked,
    Group,
    KeepEngines,
    Load,
    Scaler,
    ScaleRules,
    Seen,
    leaving,
)
from calotype.policy.staffing import staffed
from calotype.sim.plan import erlang_c

GB = 10**9
RULES = ScaleRules()
A100 = Group("A100", 1.0, 2.5, 56 * GB, start_s=130.0, most=50)
A10G = Group("A10G", 0.3, 0.6, 16 * GB, start_s=130.0, most=10)
SMALL = ModelKnown("small", (Component("s", "unet", 7 * GB),), 12.0)
LARGE = ModelKnown("large", (Component("l", "unet", 33 * GB),), 40.0)


def queued(model: str = "small", cost_s: float = 10.0, tier: Tier = Tier.FAST) -> JobQueued:
    return JobQueued("j", "ann", tier, model, 1, cost_s)


class Player:
    """Tells a scaler of jobs and looks, in virtual time."""

    def __init__(self, *groups: Group, rules: ScaleRules = RULES, **have: int) -> None:
        self.scaler = Scaler(groups or (A100,), rules, have)
        for model in (SMALL, LARGE):
            self.scaler.on(model, 0.0)
        self.now = 0.0
        self.moves: list[tuple[float, KeepEngines]] = []

    def looks(self, count: int = 1, every_s: float = math.inf, **waiting: float) -> dict[str, int]:
        """So many looks, with a job of 10 s every so often; ``waiting`` by model, of fast jobs."""
        came = self.now
        for _ in range(count):
            while came + every_s <= self.now + LOOK_S:
                came += every_s
                self.scaler.on(queued(), came)
            self.now += LOOK_S
            told = FleetLooked({(Tier.FAST, Load(model)): work for model, work in waiting.items()})
            self.moves += [(self.now, one) for one in self.scaler.on(told, self.now)]
        return dict(self.scaler.wanted)


# What would do


@pytest.mark.parametrize(("servers", "load"), [(10, 8.0), (50, 45.0), (200, 190.0)])
def test_the_share_that_waits_is_near_erlangs(servers: int, load: float) -> None:
    """Wanted so that no more wait at all than Erlang C says do: about as many servers."""
    assert staffed(load, load, 10.0, 0.0, 1.0 - erlang_c(servers, load)) == pytest.approx(
        servers, rel=0.03
    )


def test_a_large_fleet_needs_less_to_spare() -> None:
    spare = [staffed(load, load, 10.0, 5.0, 0.95) / load for load in (1.0, 10.0, 100.0)]
    assert spare == sorted(spare, reverse=True)
    assert staffed(0.0, 0.0, 0.0, 5.0, 0.95) == 0.0


def test_heavy_tiers_need_few_engines_when_the_rest_may_wait() -> None:
    """A turbo job waits for one of the engines, all busy with relax, to be through."""
    assert staffed(1.0, 100.0, 10.0, 5.0, 0.95) == pytest.approx(1.0 + 10.0 * math.log(20) / 5.0)


def test_steady_traffic_has_its_engines_and_they_stay() -> None:
    player = Player()
    player.looks(200, every_s=1.0)  # 10 devices at work
    wanted = player.looks(400, every_s=1.0)["A100"]
    assert 12 <= wanted <= 16
    assert not [one for at, one in player.moves if at > 200 * LOOK_S]


def test_a_backlog_is_worked_off_within_its_wait_or_a_start() -> None:
    slow_start = Player(A100).looks(small=1_300.0)["A100"]
    assert slow_start == 10, "130 s until another is there"
    quick = replace(A100, start_s=5.0)
    assert Player(quick).looks(small=1_300.0)["A100"] == 50, "10 s: more than there may be"


def test_a_fleet_that_nobody_asks_is_empty_in_the_end_and_wakes_for_one_job() -> None:
    player = Player(A100)
    player.looks(100, every_s=1.0)
    assert player.looks(200) == {"A100": 0}
    player.scaler.on(queued(), player.now)
    assert player.looks(small=10.0) == {"A100": 1}


# Which kind


def test_the_cheapest_kind_that_holds_a_model_comes_first() -> None:
    player = Player(A100, A10G)
    assert player.looks(small=130.0) == {"A100": 0, "A10G": 4}
    assert Player(A100, A10G).looks(large=130.0) == {"A100": 1, "A10G": 0}


def test_what_the_cheapest_has_no_room_for_goes_to_the_next() -> None:
    assert Player(A100, A10G).looks(small=1_300.0) == {"A100": 7, "A10G": 10}


def test_engines_that_are_there_anyway_come_before_cheaper_ones() -> None:
    there = replace(A100, least=2)
    assert Player(there, A10G).looks(small=250.0) == {"A100": 2, "A10G": 0}


def test_a_model_that_fits_nowhere_has_no_engine() -> None:
    assert Player(A10G).looks(large=1e6) == {"A10G": 0}


def wanted_for(job: Load, *groups: Group, known: ModelKnown | None = None) -> dict[str, int]:
    """What would do for 130 device-seconds of such jobs, in the time of a start."""
    scaler = Scaler(groups or (A100, A10G), RULES)
    for model in (SMALL, LARGE, *([known] if known else ())):
        scaler.on(model, 0.0)
    scaler.on(FleetLooked({(Tier.FAST, job): 130.0}), LOOK_S)
    return dict(scaler.wanted)


def test_adapters_count_past_what_is_kept_free_for_them() -> None:
    """Beside 7 GB of a model 9 GB are free on the small kind."""
    jobs = [Load("small", (Reserve("controls", gb * GB),)) for gb in (9, 10)]
    assert [wanted_for(job) for job in jobs] == [{"A100": 0, "A10G": 4}, {"A100": 1, "A10G": 0}]
    keeps = replace(A10G, kept={"controls": GB, "loras": 5 * GB})
    assert wanted_for(jobs[1], A100, keeps) == {"A100": 0, "A10G": 4}
    assert wanted_for(Load("small", (Reserve("loras", 60 * GB),))) == {"A100": 0, "A10G": 0}


def test_what_is_pinned_counts_against_a_model_as_it_does_in_the_line() -> None:
    pins = replace(A10G, pinned=("small",))
    other = replace(SMALL, model="other", components=(Component("o", "unet", 10 * GB),))
    assert wanted_for(Load("other"), A100, A10G, known=other) == {"A100": 0, "A10G": 4}
    assert wanted_for(Load("other"), A100, pins, known=other) == {"A100": 1, "A10G": 1}
    assert wanted_for(Load("small"), A100, pins) == {"A100": 0, "A10G": 4}


def test_the_hour_that_needs_more_is_known_after_two_days() -> None:
    player = Player()
    for _ in range(2):
        player.looks(20 * 240, every_s=20.0)
        player.looks(4 * 240, every_s=5.0)  # from 20 to 24 o'clock
    player.looks(20 * 240 - 40, every_s=20.0)
    before = player.scaler.wanted["A100"]
    player.looks(38, every_s=20.0)  # until half a minute before the hour
    assert player.scaler.wanted["A100"] > before


# Laws

GROUPS = st.lists(
    st.builds(
        Group,
        name=st.sampled_from("abc"),
        power=st.sampled_from([0.3, 1.0, 1.9]),
        price_per_hour=st.sampled_from([0.5, 1.0, 4.0]),
        capacity_bytes=st.sampled_from([10 * GB, 40 * GB]),
        start_s=st.sampled_from([0.0, 60.0, 300.0]),
        least=st.integers(0, 3),
        most=st.integers(3, 20),
        pinned=st.sampled_from([(), ("small",), ("small", "large")]),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda it: it.name,
)
HISTORY = st.lists(
    st.tuples(st.integers(0, 30), st.floats(0, 3_000), st.sampled_from(["small", "large"])),
    max_size=120,
)


@given(GROUPS, HISTORY)
@settings(max_examples=200, deadline=None)
def test_bounds_pins_and_no_flapping_whatever_comes(
    groups: list[Group], history: list[tuple[int, float, str]]
) -> None:
    """A group that grew doesn't shrink for ``down_s``; a pinned model always has an engine."""
    player = Player(*groups)
    for jobs, work, model in history:
        for _ in range(jobs):
            player.scaler.on(queued(model), player.now)
        wanted = player.looks(1, **{model: work})
        for group in groups:
            assert group.least <= wanted[group.name] <= group.most
        for name in ("small", "large"):
            having = [group for group in groups if name in group.pinned]
            assert not having or any(wanted[group.name] for group in having)
    for group in groups:
        counts = [(at, one.count) for at, one in player.moves if one.group == group.name]
        counts.insert(0, (0.0, Player(*groups).scaler.wanted[group.name]))
        grew_at = -math.inf
        for (_, before), (at, after) in pairwise(counts):
            assert after != before, "a decision that changes nothing"
            if after > before:
                grew_at = at
            else:
                assert at - grew_at > RULES.down_s


@given(st.lists(st.floats(0, 6_000), min_size=2, max_size=int(RULES.down_s / LOOK_S)))
@settings(max_examples=100, deadline=None)
def test_what_swings_within_the_window_changes_nothing_once_it_is_known(work: list[float]) -> None:
    """However wildly: what was wanted most lately is there."""
    player = Player()
    for waiting in work * 3:
        player.looks(small=waiting)
    assert not [one for at, one in player.moves if at > len(work) * LOOK_S]


@given(st.floats(0, 5_000), st.floats(0, 5_000), st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_more_that_waits_never_needs_fewer(less: float, more: float, jobs: int) -> None:
    def wanted(work: float) -> int:
        player = Player()
        for _ in range(jobs):
            player.scaler.on(queued(), 0.0)
        return player.looks(small=work)["A100"]

    assert wanted(less) <= wanted(less + more)


# Which of them leave


def test_the_emptiest_and_youngest_leave_first() -> None:
    engines = [Seen("a", 0), Seen("b", 2), Seen("c", 0), Seen("d", 1)]
    assert leaving(engines, 3) == ["c", "a", "d"]
    assert leaving(engines, 0) == []


def test_the_last_home_of_a_pinned_model_never_leaves() -> None:
    engines = [Seen("a", 0, ("m",)), Seen("b", 0, ("m",)), Seen("c", 5)]
    assert leaving(engines, 3) == ["b", "c"]
    assert leaving(engines, 3, others=[Seen("d", 0, ("m",))]) == ["b", "a", "c"]
