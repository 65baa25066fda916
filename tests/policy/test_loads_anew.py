"""Torn memory is laid anew: for a model that finds no block, and in a quiet moment."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.decisions import LoadModel
from calotype.core.events import CopyLost, MemorySeen, ModelKnown, ModelRemoved, TimePassed
from calotype.core.limits import FRAGMENTATION_MAX, LAID_AGAIN_S
from calotype.core.nouns import Component, Tier
from tests.policy.fleet import queued
from tests.policy.test_loads_laws import FIVE, JOBS
from tests.policy.warm import Pool, needs

A, B, C, LARGE = needs("a"), needs("b"), needs("c"), needs("large", 20)


def torn(**more: Any) -> Pool:
    """An engine of 40 with b in the middle: 10 before it, 20 behind; and it has been told."""
    pool = Pool(A, B, C, LARGE, needs("whale", 25))
    pool.up(budget=40, models=("a", "b"), blocks=True, **more)
    pool.loses("a")
    return pool


def test_what_lies_in_the_way_leaves_and_comes_back_behind_the_model_that_came() -> None:
    pool = torn()
    pool.tell(queued("job", model="whale"))
    first = pool.loads[-1]
    assert (first.model, first.evict, first.why) == ("whale", ("b",), "anew")
    pool.run()
    assert pool.models["e0"] == ["whale", "b"]
    assert [load.model for load in pool.loads] == ["whale", "b"]
    assert pool.loads[-1].why == "anew"
    assert pool.arenas["e0"].fragmentation.index == 0.0
    assert "job" in pool.started_at


def test_a_model_that_finds_a_block_is_loaded_beside_the_others() -> None:
    pool = torn()
    pool.tell(queued("job", model="large"))
    assert pool.loads[-1] == LoadModel("e0", "large", load_s=10.0)


def test_nothing_is_laid_anew_under_rows_and_it_is_the_models_turn_in_the_end() -> None:
    pool = torn(rows=4)
    pool.tell(queued("runs", model="b", cost_s=15.0))
    pool.tell(queued("job", model="whale"))
    assert not pool.loads
    pool.run(14.0)
    pool.tell(queued("late", model="b"))
    pool.run()
    assert (pool.loads[0].model, pool.loads[0].evict) == ("whale", ("b",))
    assert pool.started_at["job"] == 25.0
    assert pool.started_at["late"] > 25.0, "nothing more begins where models have to leave"


def test_while_turbo_waits_for_another_model_nothing_comes_back_by_itself() -> None:
    pool = torn()
    pool.tell(queued("job", model="whale"))
    pool.run(5.0)
    pool.tell(queued("quick", model="c", tier=Tier.TURBO))
    pool.run(10.0)
    assert [load.model for load in pool.loads] == ["whale", "c"], "b waits until it is asked for"
    pool.tell(queued("asks", model="b"))
    pool.run()
    assert {"job", "quick", "asks"} <= set(pool.started_at)


def test_a_turbo_job_whose_own_model_finds_no_block_is_what_it_is_done_for() -> None:
    pool = torn()
    pool.tell(queued("job", model="whale", tier=Tier.TURBO))
    assert pool.loads[-1].why == "anew"


def test_torn_memory_is_mended_when_nobody_waits_and_not_all_the_time() -> None:
    pool = Pool(*(needs(name) for name in "abcd"))
    pool.up(budget=70, models=tuple("abcd"), blocks=True)
    for name in "ac":
        pool.loses(name)
    assert pool.arenas["e0"].fragmentation.index < FRAGMENTATION_MAX
    assert not pool.loads, "it isn't torn enough"
    told = MemorySeen("e0", 50, 20)
    pool.tell(told)
    assert (pool.loads[-1].why, set(pool.loads[-1].evict)) == ("anew", {"b", "d"})
    pool.run()
    assert set(pool.models["e0"]) == {"b", "d"}
    assert pool.arenas["e0"].settled() == pool.models["e0"]
    assert len(pool.loads) == 2
    pool.tell(told)
    assert len(pool.loads) == 2, "it was only just done"
    pool.now += LAID_AGAIN_S
    pool.tell(TimePassed())
    assert len(pool.loads) == 3


def test_a_pinned_model_may_leave_for_a_moment_and_is_the_first_to_be_back() -> None:
    pool = torn(pinned=("b",))
    pool.tell(queued("job", model="whale"))
    assert pool.loads[-1].evict == ("b",)
    pool.run()
    assert pool.loads[1].model == "b"


def test_a_copy_that_was_lost_is_not_counted_on() -> None:
    pool = Pool(*(needs(name, 10, 10.0, staged_s=1.0) for name in "ab"))
    pool.up(budget=10, staging_bytes=30)
    for at, model in enumerate("ab"):
        pool.tell(queued(f"j{at}", model=model))
        pool.run()
    assert pool.line.devices()[0].staged == ("a",)
    pool.tell(CopyLost("e0", "a"))
    pool.tell(CopyLost("e9", "a"))
    assert pool.line.devices()[0].staged == ()
    pool.tell(queued("again", model="a"))
    assert pool.loads[-1].load_s == 10.0


def test_what_only_the_evicted_had_of_a_model_is_loaded_again() -> None:
    text = Component("text", "text_encoder", 30)
    pool = Pool(needs("a", 10, 8.0, text), needs("b", 10, 8.0, text))
    pool.up(budget=40, models=("a",))
    pool.tell(queued("job", model="b"))
    assert pool.loads == [LoadModel("e0", "b", evict=("a",), load_s=8.0)]


def test_a_removed_model_is_neither_expected_nor_kept_in_host_memory() -> None:
    pool = Pool(*(needs(name, 10, 10.0, staged_s=1.0) for name in "ab"), foresees=True)
    pool.up(budget=10, staging_bytes=30)
    for at, model in enumerate("aaaaab"):
        pool.tell(queued(f"j{at}", model=model))
        pool.run(pool.now + 20.0)
    assert pool.line.devices()[0].staged, "one of the two"
    for model in "ab":
        pool.tell(ModelRemoved(model))
    before = len(pool.loads)
    assert pool.line.devices()[0].staged == ()
    for _ in range(20):
        pool.run(pool.now + 60.0)
        pool.tell(TimePassed())
    assert len(pool.loads) == before
    pool.tell(ModelKnown("c", (Component("c", "base", 10),), 5.0))
    pool.known["c"] = needs("c", 10, 5.0)
    pool.tell(queued("other", model="c"))
    assert pool.loads[-1].model == "c", "what was removed makes room as any other"


@given(
    JOBS, st.sampled_from([22, 31, 47]), st.booleans(), st.booleans(), st.sampled_from([0, 17, 60])
)
@settings(max_examples=120, deadline=None)
def test_in_torn_memory_too_no_job_waits_for_ever_and_nothing_is_laid_under_rows(
    jobs: list[Any], budget: int, foresees: bool, is_pinned: bool, staging: int
) -> None:
    """The pool itself holds the laws: see ``_is_quiet``."""
    pool = Pool(*FIVE, foresees=foresees)
    pinned = ("d",) if is_pinned and budget > 40 else ()
    pool.up("torn", budget, pinned=pinned, rows=3, blocks=True, staging_bytes=staging)
    pool.up("large", 27, rows=2)
    for at, (after_s, model, tier, rows, cost_s, _) in enumerate(jobs):
        pool.run(pool.now + after_s)
        pool.tell(
            queued(f"j{at}", tenant=f"t{at % 3}", model=model, tier=tier, rows=rows, cost_s=cost_s)
        )
    pool.run()
    assert not pool.jobs, "some wait for ever"
