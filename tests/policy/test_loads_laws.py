"""What is loaded where: laws that hold for any history."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.events import JobCancelled
from calotype.core.limits import AFFINITY_S_MAX
from calotype.core.nouns import Component, Tier
from tests.policy.fleet import queued
from tests.policy.warm import Pool, needs

JOBS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 3.0, 20.0]),  # after the one before, seconds
        st.sampled_from("abcde"),  # model
        st.sampled_from(list(Tier)),
        st.integers(1, 3),  # rows
        st.sampled_from([0.5, 2.0, 8.0]),  # cost
        st.sampled_from(["", "cancel"]),
    ),
    max_size=25,
)
ENGINES = st.lists(
    st.tuples(
        st.sampled_from([0, 16, 21, 30, 47]),  # budget
        st.integers(1, 4),  # rows
        st.sampled_from(["", "a", "ab"]),  # warm
        st.booleans(),  # pins the first of them
    ),
    min_size=1,
    max_size=3,
)
TEXT = Component("text", "text_encoder", 5)
FIVE = [
    needs("a", 10, 6.0, TEXT, room=1),
    needs("b", 10, 6.0, TEXT, room=2),
    needs("c", 16, 12.0, TEXT),
    needs("d", 9, 4.0, room=3),
    needs("e", 20, 15.0),
]


@given(JOBS, ENGINES, st.booleans())
@settings(max_examples=150, deadline=None)
def test_laws_hold_and_no_job_that_fits_somewhere_waits_for_ever(
    jobs: list[Any], engines: list[Any], foresees: bool
) -> None:
    pool = Pool(*FIVE, foresees=foresees)
    for at, (budget, rows, warm, is_pinned) in enumerate(engines):
        held = tuple(warm) if budget in (0, 30, 47) else tuple(warm[:1])
        pinned = held[:1] if is_pinned and budget else ()
        pool.up(f"e{at}", budget, held, rows=rows, pinned=pinned)
    pool.up("large", 25, rows=4)
    for at, (after_s, model, tier, rows, cost_s, what) in enumerate(jobs):
        pool.run(pool.now + after_s)
        job = queued(
            f"j{at}", tenant=f"t{at % 3}", model=model, tier=tier, rows=rows, cost_s=cost_s
        )
        pool.tell(job)
        if what == "cancel" and at % 3 == 0:
            pool.tell(JobCancelled(f"j{at}"))
    pool.run()
    assert not pool.jobs, "some wait for ever"


@given(st.integers(1, 3), st.sampled_from([1.0, 5.0, 12.0]), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_a_cold_job_starts_within_its_bound_however_many_warm_ones_come(
    rows: int, cost_s: float, others: int
) -> None:
    """Its turn, the patience, the longest job and the load; others' loads that go before."""
    pool = Pool(*FIVE)
    pool.up(budget=21, models=("a",), rows=rows)
    asked_at, at = 0.0, 0
    while "cold" not in pool.started_at:
        for _ in range(2 * rows):
            at += 1
            pool.tell(queued(f"a{at}", tenant=f"t{at}", model="a", cost_s=cost_s))
        if pool.now >= 50.0 and "cold" not in pool.jobs:
            asked_at = pool.now
            pool.tell(queued("cold", tenant="me", model="e"))
            for other in range(others):
                pool.tell(queued(f"o{other}", tenant="me", model="cd"[other]))
        pool.run(pool.now + cost_s)
        assert pool.now < 1_000.0
    slowest = max(AFFINITY_S_MAX, 15.0) + cost_s + 15.0
    each = (max(AFFINITY_S_MAX, 15.0) + cost_s + 15.0) * others
    assert pool.started_at["cold"] - asked_at <= slowest + each + cost_s


@given(JOBS)
@settings(max_examples=40, deadline=None)
def test_the_same_history_gives_the_same_loads(jobs: list[Any]) -> None:
    def decisions() -> list[Any]:
        said: list[Any] = []
        pool = Pool(*FIVE, foresees=True)
        pool.up(budget=30, rows=2)
        for at, (after_s, model, tier, rows, cost_s, _) in enumerate(jobs):
            pool.run(pool.now + after_s)
            job = queued(f"j{at}", model=model, tier=tier, rows=rows, cost_s=cost_s)
            said += pool.tell(job)
        return [said, pool.loads]

    assert decisions() == decisions()
