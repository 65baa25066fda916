"""The line's laws, for any history: who may run, the same decisions again, and a line rebuilt."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.decisions import FailJob
from calotype.core.events import AttemptFailed, EngineGone, EngineUp, JobCancelled, JobSettled
from calotype.core.nouns import Tier
from calotype.policy.line import Line
from tests.policy.fleet import Fleet, queued

TIERS = tuple(Tier)

JOB = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(["ann", "bob", "eve"]),
        "user": st.sampled_from(["", "", "u"]),
        "tier": st.sampled_from(TIERS),
        "model": st.sampled_from(["m", "m", "x"]),
        "rows": st.integers(1, 4),
        "cost_s": st.sampled_from([0.0, 0.5, 1.0, 2.5]),
    }
)
PICK = st.integers(0, 10**6)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("queue"), JOB),
        st.tuples(st.just("settle"), PICK),
        st.tuples(st.just("fail"), PICK),
        st.tuples(st.just("fail for good"), PICK),
        st.tuples(st.just("cancel"), PICK),
        st.tuples(st.just("gone"), PICK),
        st.tuples(st.just("up"), PICK),
    ),
    max_size=60,
)
ENGINES = (("e0", ("m", "x"), 4), ("e1", ("m",), 7), ("e2", ("x",), 5))


def play(fleet: Fleet, moves: list[tuple[str, Any]], engines: int = 3) -> None:
    """Make something of each move that makes sense at that time."""
    for at, (what, given_) in enumerate(moves):
        fleet.now += 1.0
        if what == "queue":
            fleet.feed(queued(f"j{at}", **given_))
        elif what == "up":
            fleet.up(*ENGINES[given_ % engines])
        elif what == "gone":
            fleet.feed(EngineGone(ENGINES[given_ % engines][0]))
        elif what == "cancel" and fleet.jobs:
            fleet.feed(JobCancelled(list(fleet.jobs)[given_ % len(fleet.jobs)]))
        elif what != "cancel" and fleet.running:
            job = list(fleet.running)[given_ % len(fleet.running)]
            if what == "settle":
                fleet.feed(JobSettled(job, given_ % 7 / 2))
            else:
                fleet.feed(AttemptFailed(job, "failed", is_retryable=what == "fail"))


def long_history(seed: int, moves: int = 250) -> list[tuple[str, Any]]:
    """Deep states, which short random histories don't reach: mostly queueing and settling."""
    noise = random.Random(seed)
    history: list[tuple[str, Any]] = [("up", 0), ("up", 1), ("up", 2)]
    for _ in range(moves):
        kinds = ["queue"] * 12 + ["settle"] * 7 + ["cancel", "fail", "fail for good", "gone", "up"]
        what = noise.choice(kinds)
        job = {
            "tenant": noise.choice(["ann", "bob", "eve"]),
            "user": noise.choice(["", "", "u"]),
            "tier": noise.choice(TIERS),
            "model": noise.choice("mmx"),
            "rows": noise.randint(1, 4),
            "cost_s": noise.choice([0.5, 1.0, 2.5]),
        }
        history.append((what, job if what == "queue" else noise.randrange(10**6)))
    return history


@pytest.mark.parametrize("seed", range(10))
def test_laws_hold_for_long_histories(seed: int) -> None:
    play(Fleet(), long_history(seed))


@given(MOVES)
@settings(max_examples=150, deadline=None)
def test_laws_hold_for_any_history(moves: list[tuple[str, Any]]) -> None:
    play(Fleet(), moves)  # which checks them after every event


@given(MOVES)
@settings(max_examples=60, deadline=None)
def test_same_history_gives_the_same_decisions(moves: list[tuple[str, Any]]) -> None:
    one, two = Fleet(), Fleet()
    play(one, moves)
    play(two, moves)
    assert one.starts == two.starts
    assert one.line.standing() == two.line.standing()


@given(MOVES)
@settings(max_examples=80, deadline=None)
def test_positions_foretell_the_order_of_starts(moves: list[tuple[str, Any]]) -> None:
    fleet = Fleet()
    play(fleet, moves)
    for engine in list(fleet.engines):
        fleet.feed(EngineGone(engine))
    foretold = sorted((job.job_id for job in fleet.waiting()), key=fleet.line.position)  # type: ignore[arg-type]
    fleet.starts.clear()
    fleet.up("one", ("m", "x"), 4)
    while fleet.running:  # one at a time, each costing what was predicted
        (job, *_) = fleet.running
        fleet.feed(JobSettled(job, fleet.jobs[job].cost_s))
    assert fleet.starts == foretold


def check_rebuilt(moves: list[tuple[str, Any]]) -> None:
    """Lose the server after these moves: the line made again goes on as the old one would."""
    before = Fleet()
    play(before, moves, engines=1)
    standing = json.loads(json.dumps(before.line.standing()))
    stored = [  # as the store has them: running ones have begun one attempt more
        replace(job, attempt=before.attempts[job.job_id]) for job in before.jobs.values()
    ]
    after = Line(standing)
    given_up = [decision for job in stored for decision in after.on(job, before.now)]
    lost = [it.job_id for it in before.feed(EngineGone("e0")) if isinstance(it, FailJob)]
    assert [it.job_id for it in given_up if isinstance(it, FailJob)] == lost
    assert len(given_up) == len(lost), "nothing else is decided"
    for job in before.waiting():
        assert after.position(job.job_id) == before.line.position(job.job_id)
    up = EngineUp("e1", ("m", "x"), 5)
    assert after.on(up, before.now) == before.line.on(up, before.now)


@given(MOVES)
@settings(max_examples=80, deadline=None)
def test_rebuilt_line_makes_the_same_next_decisions(moves: list[tuple[str, Any]]) -> None:
    check_rebuilt(moves)


@pytest.mark.parametrize("seed", range(20))
def test_rebuilt_line_goes_on_the_same_after_long_histories(seed: int) -> None:
    check_rebuilt(long_history(seed))


def test_without_a_kept_standing_the_rebuilt_line_begins_even() -> None:
    jobs = [queued(f"j{at}", tenant=f"t{at % 3}", tier=TIERS[at % 2]) for at in range(12)]
    first, again = Line(), Line()
    for job in jobs:
        first.on(job, 0)
        again.on(job, 99.0)
    up = EngineUp("e0", ("m",), 5)
    assert first.on(up, 1.0) == again.on(up, 100.0) != []
