"""What is loaded where: for jobs that wait, in their turn, and for those to be expected."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from calotype.core.decisions import LoadModel, PromoteJob, StartAttempt
from calotype.core.events import (
    EnginePaused,
    EngineResumed,
    JobCancelled,
    JobSettled,
    ModelGone,
    ModelKnown,
    ModelsPinned,
    TimePassed,
)
from calotype.core.limits import (
    AFFINITY_PASSES_MAX,
    AFFINITY_S_MAX,
    RELAX_WAIT_S_MAX,
)
from calotype.core.nouns import Component, Reserve, Tier
from tests.policy.fleet import queued
from tests.policy.warm import Pool, by_engine, needs

M, X, Y = needs("m"), needs("x"), needs("y")  # 10 bytes and 10 s each


def loaded(pool: Pool) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(load.engine, load.model, load.evict) for load in pool.loads]


# For jobs that wait


def test_a_cold_model_is_loaded_and_its_job_starts_when_it_is_warm() -> None:
    pool = Pool(M)
    pool.up()
    assert pool.tell(queued("a")) == [LoadModel("e0", "m", load_s=10.0)]
    assert pool.tell(queued("b")) == []
    pool.run(9.9)
    assert not pool.started_at
    pool.run()
    assert pool.started_at == {"a": 10.0, "b": 11.0}


def test_an_engine_goes_on_with_its_rows_while_it_loads() -> None:
    pool = Pool(M, X)
    pool.up(models=("m",), rows=4)
    pool.tell(queued("a", cost_s=30.0))
    assert pool.tell(queued("cold", model="x")) == [LoadModel("e0", "x", load_s=10.0)]
    assert pool.tell(queued("b")) == [StartAttempt("b", "e0")]
    pool.run(10.0)
    assert pool.running == {"a": "e0", "cold": "e0"}


def test_an_engine_without_a_budget_loads_nothing() -> None:
    pool = Pool(M, X)
    pool.up(budget=0, models=("m",))
    assert pool.tell(queued("cold", model="x")) == []
    assert pool.line.next_deadline() is None
    assert not pool.line.loads_on_demand
    pool.up("e1", budget=10)
    assert pool.line.loads_on_demand


def test_a_model_of_which_nothing_was_told_is_loaded_nowhere_until_it_is() -> None:
    pool = Pool()
    pool.up()
    assert pool.tell(queued("a")) == []
    pool.known["m"] = M
    assert pool.tell(M) == [LoadModel("e0", "m", load_s=10.0)]


def test_what_is_not_in_use_makes_room_and_no_more_than_needed() -> None:
    pool = Pool(M, X, needs("large", 15))
    pool.up(budget=25, models=("m", "x"))
    pool.tell(queued("first", model="m", cost_s=5.0))
    pool.tell(queued("a", model="large"))
    assert loaded(pool) == [("e0", "large", ("x",))], "m has rows"


def test_what_is_asked_for_least_makes_room() -> None:
    pool = Pool(M, X, Y)
    pool.up(models=("m", "x"))
    for at, model in enumerate("mxmxmmm"):
        pool.run(pool.now + 60.0)
        pool.tell(queued(f"j{at}", model=model))
    pool.run(pool.now + 60.0)
    pool.tell(queued("new", model="y"))
    assert loaded(pool) == [("e0", "y", ("x",))]


def test_a_pinned_model_is_loaded_first_and_never_makes_room() -> None:
    pool = Pool(M, X, Y)
    assert pool.up(pinned=("m",)) == [LoadModel("e0", "m", why="pinned", load_s=10.0)]
    pool.run()
    for at, model in enumerate("xyxy"):
        pool.tell(queued(f"j{at}", model=model))
        pool.run()
        assert "m" in pool.models["e0"]
    assert len(pool.loads) == 5
    pool.tell(ModelGone("e0", "m"))
    assert pool.loads[-1] == LoadModel("e0", "m", why="pinned", load_s=10.0)


def test_a_shared_component_is_neither_counted_nor_loaded_twice() -> None:
    text = Component("t", "text_encoder", 30)
    pool = Pool(needs("m", 10, 8.0, text), needs("x", 10, 8.0, text))
    pool.up(budget=50, models=("m",))
    assert pool.tell(queued("a", model="x")) == [LoadModel("e0", "x", load_s=2.0)]


def test_reserves_and_room_are_kept_free() -> None:
    pool = Pool(needs("m", 10, 10.0, room=5), needs("x", 10, 10.0, room=7))
    pool.up(budget=36, models=("m",), reserves=(Reserve("LoRA", 10),))
    pool.tell(queued("a", model="x"))
    assert loaded(pool) == [("e0", "x", ("m",))], "10 + 10 + 7 of 26"
    roomy = Pool(needs("m", 10, 10.0, room=5), needs("x", 10, 10.0, room=7))
    roomy.up(budget=37, models=("m",), reserves=(Reserve("LoRA", 10),))
    roomy.tell(queued("a", model="x"))
    assert loaded(roomy) == [("e0", "x", ())]


def test_small_devices_are_taken_first_and_large_models_only_where_they_fit() -> None:
    pool = Pool(M, needs("large", 40))
    pool.up("big", budget=50)
    pool.up("small", budget=12)
    pool.tell(queued("a"))
    pool.tell(queued("b", model="large"))
    assert by_engine(pool.loads) == {"small": ["m"], "big": ["large"]}
    pool.tell(ModelKnown("giant", (Component("giant", "base", 51),), 10.0))
    assert pool.tell(queued("c", model="giant")) == []
    assert pool.line.next_deadline() is None


def test_another_home_is_loaded_when_the_line_is_longer_than_the_load() -> None:
    pool = Pool(M, X)
    pool.up("e0", models=("m",))
    pool.up("e1", models=("x",))
    for at in range(11):
        pool.tell(queued(f"j{at}", cost_s=1.0))
    assert not pool.loads, "10 s of work wait: a load takes as long"
    pool.tell(queued("more", cost_s=1.0))
    assert loaded(pool) == [("e1", "m", ())]
    pool.run()
    assert max(pool.started_at.values()) < 12.0


def test_what_an_evicted_model_leaves_in_host_memory_is_quicker_to_load() -> None:
    models = [needs(name, 10, 10.0, staged_s=1.0) for name in ("m", "x", "y")]
    pool = Pool(*models)
    pool.up(budget=10, staging_bytes=15)
    for at, model in enumerate("mxm"):
        pool.tell(queued(f"j{at}", model=model))
        pool.run()
    first, second, third = pool.loads
    assert (first.stage, first.load_s) == ((), 10.0)
    assert (second.evict, second.stage, second.load_s) == (("m",), ("m",), 10.0)
    assert (third.evict, third.stage, third.load_s) == (("x",), (), 1.0), "m's copy is in use"
    pool.tell(queued("y", model="y"))
    assert pool.loads[-1].stage == ("m",)


# In their turn


def waiting_behind_a_warm_model(load_s: float = 5.0, **more: Any) -> Pool:
    pool = Pool(M, needs("x", 10, load_s))
    pool.up(budget=10, models=("m",), **more)
    pool.tell(queued("w0", tenant="t0"))
    pool.tell(queued("cold", model="x", tenant="ann"))
    return pool


def warm_jobs(pool: Pool, cost_s: float, count: int = 300) -> None:
    for at in range(1, count):
        pool.tell(queued(f"w{at}", tenant=f"t{at}", cost_s=cost_s))


def test_a_cold_job_is_passed_by_so_many_warm_ones_and_no_more() -> None:
    pool = waiting_behind_a_warm_model()
    warm_jobs(pool, 0.1)
    pool.run()
    passed = [job for job, at in pool.started_at.items() if at < pool.started_at["cold"]]
    assert len(passed) == AFFINITY_PASSES_MAX + 1
    assert len(pool.started_at) == 301


def test_a_cold_job_is_passed_for_so_long_and_no_longer() -> None:
    pool = waiting_behind_a_warm_model()
    warm_jobs(pool, 3.0)
    pool.run(100.0)
    # The job that runs when the time has come ends at 13.
    assert pool.started_at["cold"] == pytest.approx(AFFINITY_S_MAX + 3.0 + 5.0)


def test_a_model_that_loads_slowly_is_patient_for_as_long() -> None:
    pool = waiting_behind_a_warm_model(load_s=30.0)
    warm_jobs(pool, 1.0)
    pool.run(200.0)
    assert pool.started_at["cold"] == pytest.approx(61.0)


def test_nothing_starts_where_a_model_has_to_leave_and_others_go_on() -> None:
    pool = Pool(M, Y, X)
    pool.up(budget=20, models=("m", "y"), rows=4)
    for at in range(2):
        pool.tell(queued(f"m{at}", cost_s=40.0))
    pool.tell(queued("y0", model="y", cost_s=15.0))
    pool.tell(queued("cold", model="x"))
    pool.run(10.0)
    assert pool.tell(queued("late", model="y", cost_s=1.0)) == [], "y leaves"
    pool.run(14.0)
    assert pool.tell(queued("m2", cost_s=2.0)) == [StartAttempt("m2", "e0")]
    pool.run(25.0)
    assert pool.loads[0] == LoadModel("e0", "x", evict=("y",), load_s=10.0)
    assert pool.started_at["cold"] == 25.0


def test_what_was_to_leave_stays_if_nobody_waits_any_more() -> None:
    pool = Pool(M, X)
    pool.up(budget=10, models=("m",), rows=2)
    pool.tell(queued("m0", cost_s=40.0))
    pool.tell(queued("cold", model="x"))
    pool.run(12.0)
    pool.tell(queued("m1"))
    assert "m1" not in pool.running
    assert pool.tell(JobCancelled("cold")) == [StartAttempt("m1", "e0")]
    assert not pool.loads


def test_what_was_loaded_for_a_job_stays_until_it_has_started() -> None:
    pool = Pool(M, X, Y)
    pool.up(budget=20, models=("m",), rows=1)
    for at in range(3):
        pool.tell(queued(f"m{at}", cost_s=30.0))
    pool.tell(queued("cold", model="x"))
    pool.run(10.5)
    assert pool.models["e0"] == ["m", "x"], "it is warm, and the engine's only row is taken"
    pool.tell(queued("colder", model="y", tier=Tier.TURBO))
    pool.run(29.0)
    assert "x" in pool.models["e0"]
    pool.run()
    assert {"cold", "colder"} <= set(pool.started_at)


def test_a_promoted_job_claims_at_once() -> None:
    pool = Pool(M, X, Y)
    pool.up(budget=10, models=("m",))
    pool.tell(queued("m0", cost_s=RELAX_WAIT_S_MAX + 5.0))
    pool.tell(queued("other", model="y", tier=Tier.TURBO))
    pool.tell(queued("cold", model="x", tier=Tier.RELAX))
    pool.run(20.0)
    pool.tell(JobCancelled("other"))
    pool.now = RELAX_WAIT_S_MAX
    decisions = pool.tell(TimePassed())
    assert isinstance(decisions[0], PromoteJob)
    pool.run()
    assert pool.started_at["cold"] == RELAX_WAIT_S_MAX + 5.0 + 10.0


def test_what_was_loaded_for_waiting_jobs_stays_as_long_as_its_load_took() -> None:
    pool = Pool(M, X)
    pool.up(budget=10, models=("m",))
    for at in range(100):
        pool.tell(queued(f"m{at}", tenant="ann", cost_s=4.0))
        pool.tell(queued(f"x{at}", tenant="bob", model="x", cost_s=4.0))
    pool.run(600.0)
    started = [sum(job.startswith(kind) for job in pool.started_at) for kind in "mx"]
    assert sum(started) * 4.0 >= 0.5 * 600
    assert min(started) > 0.4 * sum(started)


def test_a_promoted_job_takes_the_place_of_what_was_just_loaded() -> None:
    pool = Pool(needs("m", 10, 1.0), needs("x", 10, 100.0))
    pool.up(budget=10, models=("m",))
    pool.tell(queued("first", cost_s=250.0))
    for at in range(1000):
        pool.tell(queued(f"x{at}", model="x", cost_s=5.0))
    pool.run(80.0)
    pool.tell(queued("late", tier=Tier.RELAX))
    pool.run(360.0)
    assert pool.models["e0"] == ["x"], "warm since 350.0, and would stay until 450.0"
    pool.run()
    assert 80.0 + RELAX_WAIT_S_MAX < pool.started_at["late"] < 80.0 + RELAX_WAIT_S_MAX + 7.0


def test_two_kinds_that_want_all_engines_share_them_without_loading_all_the_time() -> None:
    pool = Pool(M, X)
    for at in range(4):
        pool.up(f"e{at}", budget=10, models=("m",))
    for at in range(400):
        pool.tell(queued(f"m{at}", tenant="ann", cost_s=4.0))
        pool.tell(queued(f"x{at}", tenant="bob", model="x", cost_s=4.0))
    pool.run(600.0)
    started = [pool.started_at.get(f"{name}{at}") for name in "mx" for at in range(400)]
    counts = [
        sum(at is not None for at in started[:400]),
        sum(at is not None for at in started[400:]),
    ]
    assert sum(counts) > 0.8 * 4 * 600 / 4.0, "a fifth of the time goes to loads at most"
    assert min(counts) > 0.35 * sum(counts)


def test_one_that_no_engine_can_make_room_for_now_holds_up_no_other() -> None:
    pool = Pool(M, X, needs("slow", 40, 1000.0), needs("giant", 40))
    pool.up("big", budget=40)
    pool.tell(queued("loads", model="slow"))
    pool.up("small", budget=10, models=("m",))
    for at in range(100):
        pool.tell(queued(f"m{at}", cost_s=5.0))
    pool.tell(queued("first", model="giant"))
    pool.tell(queued("second", model="x"))
    pool.run(100.0)
    assert by_engine(pool.loads)["big"] == ["slow"], "no room for the giant until it is there"
    assert 10.0 < pool.started_at["second"] < 30.0
    pool.run()
    assert "first" in pool.started_at


# For those to come


def habit(pool: Pool, days: float = 0.5) -> None:
    """Jobs of m every two minutes, of x every ten; y is asked for once, by a guest."""
    names = itertools.count()
    while pool.now < days * 86_400.0:
        at = next(names)
        pool.tell(queued(f"h{at}", tenant=f"t{at % 9}", model="x" if at % 5 == 4 else "m"))
        pool.run(pool.now + 120.0)
    pool.tell(queued("last", tenant="guest", model="y"))
    pool.run(pool.now + 30.0)


def test_what_is_to_be_expected_is_back_before_it_is_asked_for() -> None:
    pool = Pool(M, X, Y, foresees=True)
    pool.up(budget=10, models=("m",))
    habit(pool)
    pool.tell(TimePassed())
    pool.run(pool.now + 60.0)
    assert pool.models["e0"] == ["m"]
    assert (pool.loads[-1].why, pool.loads[-1].evict) == ("predicted", ("y",))


def test_a_guess_takes_no_room_from_what_is_worth_as_much() -> None:
    pool = Pool(M, X, foresees=True)
    pool.up(budget=10, models=("m",))
    for at in range(200):
        pool.tell(queued(f"m{at}", model="m"))
        pool.run(pool.now + 60.0)
    guesses = len(pool.loads)
    for _ in range(100):
        pool.tell(TimePassed())
        pool.run(pool.now + 60.0)
    assert len(pool.loads) == guesses == 0


def test_a_settled_job_of_an_unknown_engine_changes_nothing() -> None:
    pool = Pool(M)
    assert pool.tell(JobSettled("gone", 1.0)) == []
    assert pool.tell(ModelGone("e9", "m")) == []


def test_what_is_pinned_on_a_running_engine_is_loaded_and_kept_until_unpinned() -> None:
    pool = Pool(needs("a"), needs("b"), needs("p"))
    pool.up("e0", budget=20, models=("a", "b"))
    pool.tell(ModelsPinned(("p",)))
    assert [(load.model, load.why) for load in pool.loads] == [("p", "pinned")]
    pool.run(until=20.0)
    pool.tell(queued("j", model="a"))
    pool.tell(queued("k", model="b"))
    pool.run(until=100.0)
    assert not pool.jobs
    assert "p" in pool.models["e0"], "others take turns beside it"
    pool.tell(ModelsPinned(()))
    for at, model in enumerate("ab" * 3):
        pool.tell(queued(f"l{at}", model=model))
        pool.run(until=200.0 + 100.0 * at)
    assert set(pool.models["e0"]) == {"a", "b"}


def test_a_pin_on_a_paused_engine_counts_once_it_goes_on() -> None:
    pool = Pool(needs("a"), needs("p"))
    pool.up("e0", budget=10, models=("a",))
    pool.tell(EnginePaused("e0"))
    pool.tell(ModelsPinned(("p",)))
    assert not pool.loads
    pool.tell(EngineResumed("e0"))
    assert [(load.model, load.evict) for load in pool.loads] == [("p", ("a",))]
    pool.run(until=20.0)
    pool.tell(queued("j", model="a"))
    assert not pool.running, "there is no room beside what is pinned"
    assert len(pool.loads) == 1
