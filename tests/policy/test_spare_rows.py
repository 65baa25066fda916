"""Rows that lighter tiers leave to heavier ones, so that an urgent job needn't wait for an end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core.events import EngineGone, EngineUp, JobSettled
from calotype.core.nouns import Tier
from calotype.policy.line import Line
from tests.policy.fleet import Fleet, queued


def ask(fleet: Fleet, tier: Tier, count: int) -> int:
    """How many of so many jobs of one picture start at once."""
    before = len(fleet.starts)
    for at in range(count):
        fleet.feed(queued(f"{tier}-{before}-{at}", tier=tier))
    return len(fleet.starts) - before


def test_relax_leaves_room_for_fast_and_fast_for_turbo() -> None:
    fleet = Fleet()
    fleet.feed(EngineUp("e0", ("m",), 12, rows_spare=4))
    assert ask(fleet, Tier.RELAX, 20) == 8
    assert ask(fleet, Tier.FAST, 20) == 2
    assert ask(fleet, Tier.TURBO, 20) == 2


def test_the_heaviest_tier_may_have_all_rows() -> None:
    fleet = Fleet()
    fleet.feed(EngineUp("e0", ("m",), 12, rows_spare=4))
    assert ask(fleet, Tier.TURBO, 20) == 12
    assert ask(fleet, Tier.RELAX, 20) == 0


def test_relax_does_not_take_what_fast_left() -> None:
    fleet = Fleet()
    fleet.feed(EngineUp("e0", ("m",), 12, rows_spare=4))
    assert ask(fleet, Tier.FAST, 20) == 10
    assert ask(fleet, Tier.RELAX, 20) == 0
    assert ask(fleet, Tier.TURBO, 1) == 1


def test_an_engine_that_spares_nothing_after_one_that_did_takes_all() -> None:
    fleet = Fleet()
    fleet.feed(EngineUp("e0", ("m",), 3, rows_spare=1))
    assert ask(fleet, Tier.RELAX, 3) == 2
    fleet.feed(EngineGone("e0"))
    fleet.feed(EngineUp("e1", ("m",), 3))
    assert len(fleet.running) == 3


@given(
    st.lists(st.tuples(st.sampled_from(Tier), st.integers(1, 4)), max_size=60),
    st.integers(1, 3),
)
def test_a_turbo_job_finds_a_row_whatever_the_others_ask(
    asked: list[tuple[Tier, int]], engines: int
) -> None:
    fleet = Fleet(Line())
    for at in range(engines):
        fleet.feed(EngineUp(f"e{at}", ("m",), 24, rows_spare=8))
    for at, (tier, rows) in enumerate(asked):
        if tier is not Tier.TURBO:
            fleet.feed(queued(f"j{at}", tier=tier, rows=rows))
    fleet.feed(queued("urgent", tier=Tier.TURBO))
    assert fleet.starts[-1] == "urgent"


@pytest.mark.parametrize("tier", [Tier.FAST, Tier.RELAX])
def test_a_full_tier_goes_on_when_one_of_its_rows_ends(tier: Tier) -> None:
    fleet = Fleet()
    fleet.feed(EngineUp("e0", ("m",), 6, rows_spare=2))
    ask(fleet, tier, 10)
    running = len(fleet.running)
    assert running < 6
    fleet.feed(JobSettled(next(iter(fleet.running)), 1.0))
    assert len(fleet.running) == running
