"""Places: the best engine quickly, retries elsewhere, models loaded where they are wanted."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.decisions import FailJob, RequeueJob, StartAttempt
from calotype.core.events import AttemptFailed, EngineGone, EngineUp, JobSettled
from calotype.core.limits import AFFINITY_PASSES_MAX, AFFINITY_S_MAX, ATTEMPTS_MAX
from calotype.core.nouns import Tier
from calotype.policy.line import Line
from calotype.policy.place import WHOLE_ENGINE
from calotype.policy.place import Fleet as Places
from tests.policy.fleet import Fleet, queued

# The best engine


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("up"), st.integers(0, 5), st.sampled_from(["m", "x", "mx"])),
        st.tuples(st.just("gone"), st.integers(0, 5), st.just("")),
        st.tuples(st.just("take"), st.integers(1, 5), st.sampled_from("mx")),
        st.tuples(st.just("free"), st.integers(0, 100), st.just("")),
    ),
    max_size=60,
)


@given(MOVES)
@settings(max_examples=200, deadline=None)
def test_best_engine_is_what_a_look_at_all_of_them_finds(moves: list[tuple[str, int, str]]) -> None:
    places = Places()
    known: dict[str, dict[str, Any]] = {}  # in the order they came up
    for at, (what, number, models) in enumerate(moves):
        name = f"e{number}"
        if what == "up":
            places.gone(name)
            known.pop(name, None)
            places.up(EngineUp(name, tuple(models), 2 + number))
            known[name] = {"models": models, "max": 2 + number, "jobs": {}}
        elif what == "gone":
            places.gone(name)
            known.pop(name, None)
        elif what == "take":
            if engine := places.warm(models, number):
                places.take(engine.name, f"j{at}", models, number)
                known[engine.name]["jobs"][f"j{at}"] = number
        elif held := [(one, job) for one, it in known.items() for job in it["jobs"]]:
            one, job = held[number % len(held)]
            places.free(one, job, known[one]["jobs"].pop(job))
        for model in "mx":
            for rows in (1, 3, WHOLE_ENGINE):
                found = places.warm(model, rows)
                assert (found.name if found else None) == by_hand(known, model, rows)


def by_hand(known: dict[str, dict[str, Any]], model: str, rows: int) -> str | None:
    fitting = {}
    for name, it in known.items():
        taken = sum(it["jobs"].values())
        if model in it["models"] and (not taken or taken + rows <= it["max"]):
            fitting[name] = it["max"] - taken
    return max(fitting, key=lambda name: fitting[name], default=None)


# Again, elsewhere


def test_a_job_that_failed_is_tried_on_another_engine_where_there_is_one() -> None:
    fleet = Fleet()
    fleet.up("e0")
    fleet.feed(queued("j"))
    fleet.up("e1")
    decisions = fleet.feed(AttemptFailed("j", "out of memory", is_retryable=True))
    assert decisions == [RequeueJob("j", "out of memory"), StartAttempt("j", "e1")]


def test_it_waits_for_another_engine_that_is_busy_and_others_take_the_one_it_failed_on() -> None:
    fleet = Fleet()
    fleet.up("e0")
    fleet.up("e1")
    for name in ("j", "busy", "next"):
        fleet.feed(queued(name))
    decisions = fleet.feed(AttemptFailed("j", "failed", is_retryable=True))
    assert decisions == [RequeueJob("j", "failed"), StartAttempt("next", "e0")]
    assert fleet.feed(JobSettled("busy", 1.0)) == [StartAttempt("j", "e1")]


def test_it_goes_back_where_it_failed_when_the_other_engine_is_gone() -> None:
    fleet = Fleet()
    fleet.up("e0")
    fleet.up("e1")
    fleet.feed(queued("j"))
    fleet.feed(queued("busy"))
    assert fleet.feed(AttemptFailed("j", "failed", is_retryable=True)) == [
        RequeueJob("j", "failed")
    ]
    decisions = fleet.feed(EngineGone("e1"))
    assert StartAttempt("j", "e0") in decisions


def test_poison_job_is_quarantined_with_the_reason_after_ending_every_engine() -> None:
    fleet = Fleet()
    fleet.feed(queued("killer"))
    for at in range(ATTEMPTS_MAX):
        fleet.up(f"e{at}")
        decisions = fleet.feed(EngineGone(f"e{at}", "exit code 9"))
    assert decisions == [
        FailJob("killer", "e2 is gone: exit code 9 (attempt 3 of 3)", is_poison=True)
    ]


def test_a_job_that_failed_in_other_ways_is_no_poison() -> None:
    fleet = Fleet()
    fleet.feed(queued("j"))
    fleet.up("e0")
    fleet.feed(EngineGone("e0"))
    fleet.up("e0")
    fleet.feed(AttemptFailed("j", "no memory", is_retryable=True))
    decisions = fleet.feed(AttemptFailed("j", "no memory", is_retryable=True))
    assert decisions == [FailJob("j", "no memory (attempt 3 of 3)")]


# Engines that load


def loading(*names: str, models: tuple[str, ...] = (), models_max: int = 2) -> Line:
    line = Line()
    for name in names:
        line.on(EngineUp(name, models, 1, models_max), 0.0)
    return line


def test_an_empty_engine_loads_what_the_job_whose_turn_it_is_needs() -> None:
    line = loading("e0", "e1")
    assert line.on(queued("a"), 0.0) == [StartAttempt("a", "e0", is_cold=True)]
    line.on(JobSettled("a", 1.0), 1.0)
    assert line.on(queued("b"), 1.0) == [StartAttempt("b", "e0")], "warm there now"
    assert line.on(queued("c"), 1.0) == [StartAttempt("c", "e1", is_cold=True)]


def test_the_model_used_longest_ago_makes_room() -> None:
    line = loading("e0")
    seen = []
    for at, model in enumerate("mxmymx"):
        (start,) = line.on(queued(f"j{at}", model=model), float(at))
        assert isinstance(start, StartAttempt)
        seen.append(start.is_cold)
        line.on(JobSettled(f"j{at}", 1.0), at + 0.5)
    assert seen == [True, True, False, True, False, True], "x made room for y, not m"


def passed_by(line: Line, end_s: float, step_s: float) -> int:
    """Jobs of the warm model that start before the cold one, one each ``step_s``."""
    now, passes, running = 0.0, 0, "w0"
    while now < end_s:
        now += step_s
        decisions = line.on(JobSettled(running, step_s), now)
        (start,) = [it for it in decisions if isinstance(it, StartAttempt)]
        if start.job_id == "cold":
            assert start.is_cold
            return passes
        running, passes = start.job_id, passes + 1
    raise AssertionError("the cold job never started")


def waiting_behind_a_warm_model() -> Line:
    line = loading("e0", models=("m",), models_max=1)
    line.on(queued("w0", tenant="t0"), 0.0)
    line.on(queued("cold", model="x", tenant="ann"), 0.0)
    for at in range(1, 300):
        line.on(queued(f"w{at}", tenant=f"t{at}"), 0.0)
    return line


def test_a_cold_job_is_passed_by_so_many_warm_ones_and_no_more() -> None:
    assert passed_by(waiting_behind_a_warm_model(), 100.0, 0.1) == AFFINITY_PASSES_MAX


def test_a_cold_job_is_passed_for_so_long_and_no_longer() -> None:
    passes = passed_by(waiting_behind_a_warm_model(), 100.0, 3.0)
    assert passes == int(AFFINITY_S_MAX / 3.0) + 1


def test_affinity_never_passes_a_job_by_one_of_another_tier() -> None:
    line = loading("e0", models=("m",), models_max=1)
    line.on(queued("w0", tier=Tier.RELAX), 0.0)
    line.on(queued("cold", model="x", tier=Tier.TURBO), 0.0)
    line.on(queued("w1", tier=Tier.RELAX), 0.0)
    assert line.on(JobSettled("w0", 1.0), 1.0) == [StartAttempt("cold", "e0", is_cold=True)]


def test_no_engine_idles_for_the_sake_of_affinity() -> None:
    line = loading("e0", "e1", models=("m",), models_max=1)
    line.on(queued("a"), 0.0)
    assert line.on(queued("b", model="x"), 0.0) == [StartAttempt("b", "e1", is_cold=True)]


def test_a_retry_loads_its_model_on_another_engine() -> None:
    line = loading("e0", "e1")
    line.on(queued("j"), 0.0)
    decisions = line.on(AttemptFailed("j", "failed", is_retryable=True), 1.0)
    assert decisions == [RequeueJob("j", "failed"), StartAttempt("j", "e1", is_cold=True)]
    assert line.on(queued("k", model="x"), 1.0) == [StartAttempt("k", "e0", is_cold=True)]
