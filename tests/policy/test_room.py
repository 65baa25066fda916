"""Room for a job's adapters beside what is warm: made, kept, found elsewhere, or learnt of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.decisions import Decision, FailJob, RequeueJob, ReturnJob, StartAttempt
from calotype.core.events import (
    AttemptFailed,
    JobQueued,
    JobSettled,
    ModelGone,
    ModelsPinned,
    ModelWarmed,
)
from calotype.core.limits import ATTEMPTS_MAX, ROOM_REFUSALS_MAX
from calotype.core.nouns import Reserve, Tier
from tests.policy.warm import Pool, needs

MODEL = 10  # bytes, of each


def job(name: str, model: str = "m", adapters: int = 0, *, cost_s: float = 1.0) -> JobQueued:
    """One whose ControlNets take so many bytes."""
    lines = (Reserve("controls", adapters),) if adapters else ()
    return JobQueued(name, "ann", Tier.FAST, model, 1, cost_s, adapters=lines)


def pool_of(*models: str) -> Pool:
    return Pool(*(needs(model, MODEL) for model in models))


def starts(decisions: list[Decision]) -> list[tuple[str, str]]:
    return [(it.job_id, it.engine) for it in decisions if isinstance(it, StartAttempt)]


def loads(pool: Pool) -> list[tuple[str, str, tuple[str, ...], str]]:
    return [(it.engine, it.model, it.evict, it.why) for it in pool.loads]


def test_an_idle_model_makes_room_and_the_job_starts_at_once() -> None:
    pool = pool_of("m", "x")
    pool.up("e0", 30, ("m", "x"))
    assert starts(pool.tell(job("a", adapters=15))) == [("a", "e0")]
    assert loads(pool) == [("e0", "m", ("x",), "room")]
    assert pool.loads[0].load_s == 0.0
    pool.run(until=100.0)
    assert not pool.jobs


def test_what_makes_room_is_worth_least_and_none_too_many() -> None:
    pool = pool_of("m", "x", "y", "z")
    pool.up("e0", 60, ("m", "x", "y", "z"))
    for at, model in enumerate(("x", "x", "z")):  # nobody asks for y
        pool.tell(job(f"{at}", model))
        pool.run(until=10.0 * at + 10)
    pool.tell(job("a", adapters=30))
    assert loads(pool) == [("e0", "m", ("y",), "room")]


def test_another_engine_that_has_the_room_is_chosen() -> None:
    pool = pool_of("m", "x")
    pool.up("full", 30, ("m", "x"))
    pool.up("free", 30, ("m",))
    assert starts(pool.tell(job("a", adapters=15))) == [("a", "free")]
    assert not pool.loads


def test_a_model_that_others_use_is_not_taken_from_them_and_is_claimed_in_turn() -> None:
    pool = pool_of("m", "x")
    pool.up("e0", 30, ("m", "x"), rows=4)
    for at in range(40):
        pool.tell(job(f"x{at}", "x", cost_s=3.0))
    assert not starts(pool.tell(job("a", adapters=15)))
    assert starts(pool.tell(job("b"))) == []  # rows are full; it is no large job's fault
    pool.run(until=5.0)
    assert "a" in pool.jobs
    pool.run(until=30.0)
    assert "a" not in pool.jobs, "patience, then the longest job, then it"
    assert ("e0", "m", ("x",), "room") in loads(pool)
    pool.run(until=300.0)
    assert not pool.jobs


def test_no_model_is_loaded_into_the_room_of_a_job_that_runs() -> None:
    pool = pool_of("m", "x")
    pool.up("e0", 30, ("m",), rows=2)
    pool.tell(job("a", adapters=15, cost_s=50.0))
    pool.tell(job("x", "x"))
    assert not pool.loads
    pool.run(until=49.0)
    assert not pool.loads, "there are 20 bytes, and 15 are lent"
    assert pool.line.devices()[0].lines["adapters"] == 15
    pool.run(until=200.0)
    assert loads(pool) == [("e0", "x", (), "queued")]
    assert not pool.jobs
    assert "adapters" not in pool.line.devices()[0].lines


def test_a_model_is_loaded_where_its_jobs_adapters_have_room_too() -> None:
    pool = pool_of("m", "x", "y")
    pool.up("e0", 30, ("x", "y"))
    pool.tell(job("a", adapters=18))
    assert loads(pool) == [("e0", "m", ("x", "y"), "queued")]
    pool.run(until=100.0)
    assert not pool.jobs


def test_what_is_kept_free_for_adapters_makes_nobody_leave() -> None:
    pool = pool_of("m", "x")
    pool.up("e0", 36, ("m", "x"), reserves=(Reserve("controls", 16),))
    assert starts(pool.tell(job("a", adapters=15))) == [("a", "e0")]
    assert not pool.loads


def refused(pool: Pool, name: str, short: int = 5) -> list[Decision]:
    """The engine had so much less room for its adapters."""
    del pool.running[name]
    return pool.tell(AttemptFailed(name, "5 bytes too few", is_retryable=True, short_bytes=short))


def test_a_refusal_for_room_costs_no_attempt_and_more_room_is_made() -> None:
    pool = pool_of("m", "x")
    pool.up("e0", 40, ("m", "x"))
    assert starts(pool.tell(job("a", adapters=15))) == [("a", "e0")]
    told = refused(pool, "a")
    assert ReturnJob("a", "5 bytes too few") in told
    assert starts(told) == [("a", "e0")]
    assert loads(pool) == [("e0", "m", ("x",), "room")], "20 bytes were too few"
    for _ in range(ATTEMPTS_MAX):  # now nothing else is there: these count
        told = refused(pool, "a")
    assert [type(it) for it in told] == [FailJob]


def test_a_refusal_for_room_that_was_kept_free_is_learnt_of_too() -> None:
    pool = pool_of("m", "x")
    pool.up("e0", 40, ("m", "x"), reserves=(Reserve("controls", 18),))
    pool.tell(job("a", adapters=15))
    assert starts(refused(pool, "a")) == [("a", "e0")]
    assert loads(pool) == [("e0", "m", ("x",), "room")]


def test_refusals_for_room_are_bounded() -> None:
    pool = pool_of("m", "x")
    pool.up("e0", 10_000, ("m", "x"))
    pool.tell(job("a", adapters=15, cost_s=1_000.0))
    ends = []
    while "a" in pool.running:
        told = refused(pool, "a", 1)
        ends += [type(it) for it in told if isinstance(it, ReturnJob | RequeueJob | FailJob)]
        pool.run(until=pool.now + 1.0)
        if "x" not in pool.models["e0"]:  # somebody has it loaded again
            pool.models["e0"].append("x")
            pool.tell(ModelWarmed("e0", "x"))
    assert ends == [ReturnJob] * ROOM_REFUSALS_MAX + [RequeueJob] * (ATTEMPTS_MAX - 1) + [FailJob]


def test_a_job_beside_what_is_pinned_is_to_blame_itself() -> None:
    pool = pool_of("m", "x")
    pool.up("e0", 40, ("m", "x"))
    pool.tell(ModelsPinned(("x",)))
    pool.tell(job("a", adapters=15))
    assert RequeueJob("a", "5 bytes too few") in refused(pool, "a")


@pytest.mark.parametrize("rows", [1, 3])
@given(
    st.lists(
        st.tuples(st.sampled_from("mxyz"), st.integers(0, 45), st.integers(1, 20)),
        min_size=1,
        max_size=16,
    ),
    st.lists(st.integers(10, 60), min_size=1, max_size=3),
)
@settings(max_examples=120)
def test_all_that_fits_somewhere_is_done_and_nothing_starts_without_room(
    rows: int, jobs: list[tuple[str, int, int]], budgets: list[int]
) -> None:
    pool = pool_of(*"mxyz")  # which asserts the second
    for at, budget in enumerate(budgets):
        pool.up(f"e{at}", budget, rows=rows)
    for at, (model, adapters, cost_s) in enumerate(jobs):
        if MODEL + adapters <= max(budgets):  # others aren't admitted
            pool.tell(job(f"j{at}", model, adapters, cost_s=cost_s))
        pool.run(until=3.0 * at)
    pool.run(until=3_000.0)
    assert not pool.jobs


def test_a_cold_job_with_adapters_has_its_turn_however_many_others_come() -> None:
    pool = pool_of("m", "x", "y")
    pool.up("e0", 30, ("x", "y"), rows=2)
    for at in range(200):
        pool.tell(job(f"x{at}", "xy"[at % 2], cost_s=2.0))
    pool.tell(job("a", adapters=18))
    pool.run(until=60.0)
    assert "a" not in pool.jobs
    pool.run(until=2_000.0)
    assert not pool.jobs


def test_a_settled_job_gives_its_room_back() -> None:
    pool = pool_of("m")
    pool.up("e0", 40, ("m",), rows=2)
    pool.tell(job("a", adapters=15))
    pool.tell(job("b", adapters=25))
    assert pool.line.devices()[0].lines["adapters"] == 25, "they take turns: the largest counts"
    del pool.running["b"], pool.jobs["b"]
    pool.tell(JobSettled("b", 1.0))
    assert pool.line.devices()[0].lines["adapters"] == 15


def test_a_model_that_is_lost_while_others_leave_it_room_has_no_other_load_begun_there() -> None:
    pool = pool_of("m", "x")
    pool.up("e0", 30, ("m", "x"))
    assert starts(pool.tell(job("a", adapters=15))) == [("a", "e0")]
    del pool.running["a"], pool.jobs["a"]
    pool.tell(JobSettled("a", 1.0))
    pool.tell(ModelGone("e0", "m"))  # which was asked for the room, and has yet to answer
    pool.tell(job("b"))  # asserted: one load at a time
    pool.run(until=60.0)
    assert not pool.jobs
