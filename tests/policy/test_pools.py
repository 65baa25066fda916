"""Pools: for any history, no job starts on an engine that isn't of its pool."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from calotype.core.decisions import Decision, LoadModel, StartAttempt
from calotype.core.events import (
    AttemptFailed,
    EngineGone,
    EngineNotice,
    EnginePaused,
    EngineResumed,
    EngineUp,
    JobCancelled,
    JobQueued,
    JobSettled,
    ModelKnown,
    ModelWarmed,
    StartsBounded,
    TimePassed,
)
from calotype.core.nouns import Component, Tier
from calotype.policy.pools import Lines

POOLS = ("", "mature", "studio")
ENGINES = {f"e{at}": POOLS[at % len(POOLS)] for at in range(6)}
MODELS = ("m", "n")
PART_BYTES = 10


def up(engine: str, budget_bytes: int = 0) -> EngineUp:
    return EngineUp(engine, ("m",), 3, budget_bytes=budget_bytes, pool=ENGINES[engine])


def queued(job: str, pool: str, model: str = "m") -> JobQueued:
    return JobQueued(job, "ann", Tier.FAST, model, 1, 1.0, pool=pool)


class World:
    """Feeds lines, and remembers whose each job and engine is."""

    def __init__(self) -> None:
        self.lines, self.now = Lines(), 0.0
        self.pools: dict[str, str] = {}  # of jobs
        self.running: dict[str, str] = {}  # job: engine
        for model in MODELS:
            self.tell(ModelKnown(model, (Component(model, "model", PART_BYTES),), 1.0))

    def tell(self, event: Any) -> list[Decision]:
        self.now += 0.5
        decisions = self.lines.on(event, self.now)
        for decision in decisions:
            if isinstance(decision, StartAttempt):
                assert ENGINES[decision.engine] == self.pools[decision.job_id]
                self.running[decision.job_id] = decision.engine
            elif isinstance(decision, LoadModel):
                self.now += 0.5
                self.tell(ModelWarmed(decision.engine, decision.model))
        return decisions


MOVES = some.lists(
    some.tuples(some.sampled_from("qqqqucgfpsrnb"), some.integers(0, 10_000)), max_size=120
)


@given(MOVES)
def test_no_job_ever_starts_on_an_engine_of_another_pool(moves: list[tuple[str, int]]) -> None:
    world = World()
    for at, (what, which) in enumerate(moves):
        engine = f"e{which % len(ENGINES)}"
        running = list(world.running)
        job = running[which % len(running)] if running else "none"
        if what == "q":
            name = f"job {at}"
            world.pools[name] = POOLS[which % len(POOLS)]
            world.tell(queued(name, world.pools[name], MODELS[which % len(MODELS)]))
        elif what == "u":
            world.tell(up(engine, which % 3 * PART_BYTES))
        elif what == "c":
            world.tell(JobCancelled(job))
        elif what == "f":
            world.tell(AttemptFailed(job, "why", is_retryable=True))
        elif what == "s":
            world.running.pop(job, None)
            world.tell(JobSettled(job, 1.0))
        else:
            world.tell(
                {
                    "g": EngineGone(engine),
                    "p": EnginePaused(engine),
                    "r": EngineResumed(engine),
                    "n": EngineNotice(engine, world.now + 1),
                    "b": StartsBounded(which % 2 or None),
                }[what]
            )
    world.tell(TimePassed())


def test_each_pool_has_its_own_turn_and_place() -> None:
    world = World()
    world.pools |= {"a": "", "b": "mature", "c": "mature"}
    for job, pool in world.pools.items():
        world.tell(queued(job, pool))
    assert world.lines.of("").position("a") == 1
    assert [world.lines.of("mature").position(job) for job in "bc"] == [1, 2]
    assert world.tell(up("e1")) == [StartAttempt("b", "e1"), StartAttempt("c", "e1")]
    assert world.tell(up("e0")) == [StartAttempt("a", "e0")]


def test_a_line_that_comes_later_knows_the_models_and_what_bounds_starts() -> None:
    world = World()
    world.pools["a"] = "mature"
    world.tell(StartsBounded(0))
    world.tell(up("e1", 3 * PART_BYTES))
    assert world.lines.loads_on_demand
    loads = world.tell(queued("a", "mature", "n"))
    assert [it.model for it in loads if isinstance(it, LoadModel)] == ["n"]
    assert "a" not in world.running, "nothing starts"
    assert StartAttempt("a", "e1") in world.tell(StartsBounded(None))


def test_everyones_standing_outlives_a_restart() -> None:
    world = World()
    world.pools |= {"a": "", "b": "mature"}
    for engine in ("e0", "e1"):
        world.tell(up(engine))
    for job, pool in world.pools.items():
        world.tell(queued(job, pool))
        world.tell(JobSettled(job, 7.0))
    said = json.loads(json.dumps(world.lines.standing()))
    assert list(said["pools"]) == ["mature"]
    assert Lines(said).standing() == said
    assert "pools" not in Lines().standing()
