"""Places: the best engine quickly, retries elsewhere, models loaded where they are wanted."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.decisions import FailJob, RequeueJob, StartAttempt
from calotype.core.events import AttemptFailed, EngineGone, EngineUp, JobSettled
from calotype.core.limits import ATTEMPTS_MAX
from calotype.policy.kinds import Kind
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
            size = 10 * (number % 3)
            places.up(EngineUp(name, tuple(models), 2 + number, budget_bytes=size))
            known[name] = {"models": models, "max": 2 + number, "jobs": {}, "size": size}
        elif what == "gone":
            places.gone(name)
            known.pop(name, None)
        elif what == "take":
            if engine := places.warm(models, number):
                places.take(engine.name, f"j{at}", Kind(models), number)
                known[engine.name]["jobs"][f"j{at}"] = number
        elif held := [(one, job) for one, it in known.items() for job in it["jobs"]]:
            one, job = held[number % len(held)]
            places.free(one, job, known[one]["jobs"].pop(job))
        for model in "mx":
            for rows in (1, 3, WHOLE_ENGINE):
                found = places.warm(model, rows)
                assert (found.name if found else None) == by_hand(known, model, rows)
                kind = Kind(model, avoid=("e0", "e3"))
                others = {one: it for one, it in known.items() if one not in kind.avoid}
                found = places.warm(model, rows, None, kind)
                assert (found.name if found else None) == by_hand(others, model, rows)


def by_hand(known: dict[str, dict[str, Any]], model: str, rows: int) -> str | None:
    fitting = {}
    for name, it in known.items():
        taken = sum(it["jobs"].values())
        if model in it["models"] and (not taken or taken + rows <= it["max"]):
            fitting[name] = taken > 0, it["size"], taken - it["max"]
    return min(fitting, key=lambda name: fitting[name], default=None)


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
