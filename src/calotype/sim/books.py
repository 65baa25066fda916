"""What the store and the fleet hold in a schedule, and the promises about it.

The store's part: a job's state, moved by the state table; the token of its lease, which grows, so
that a late report finds another; how often it was delivered. The fleet's part: what runs on each
engine that the line counts on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random

from calotype.core.decisions import Decision, LoadModel, StartAttempt
from calotype.core.events import JobQueued, ModelKnown
from calotype.core.limits import ATTEMPTS_MAX
from calotype.core.nouns import Component
from calotype.core.states import ATTEMPT_MOVES, JOB_MOVES, AttemptState, JobState, move

_NO_FAULT = (AttemptState.HELD, AttemptState.HANDED_BACK)  # of the job: no try of it is spent
_BUDGETS = (0, 0, 17, 20, 27, 34, 44)  # bytes; 0: it loads nothing on demand; 44: all fit
ADAPTERS_MAX = 8  # bytes, of a job
_TEXT = Component("text", "text_encoder", 4)  # that two models share
MODELS = {
    "a": ModelKnown("a", (Component("a", "unet", 10), _TEXT), 4.0, room_bytes=2),
    "b": ModelKnown("b", (Component("b", "unet", 10), _TEXT), 4.0, room_bytes=3),
    "c": ModelKnown("c", (Component("c", "transformer", 16),), 8.0, room_bytes=4),
}


def taken_bytes(models: Iterable[str]) -> int:
    """What these models take on a device: parts that they share once, room for one to work in."""
    known = [MODELS[name] for name in models]
    parts = {part.id: part.bytes for one in known for part in one.components}
    return sum(parts.values()) + max((one.room_bytes for one in known), default=0)


class BrokenPromise(AssertionError):
    """A schedule in which something happened that must not."""


class OneJob:
    """A job as the store has it."""

    __slots__ = (
        "arrived_s",
        "attempt",
        "delivered",
        "engine",
        "lost",
        "outcome",
        "queued",
        "state",
        "token",
        "unjudged",
    )

    def __init__(self, queued: JobQueued, now: float, outcome: str) -> None:
        self.queued, self.arrived_s = queued, now
        self.outcome = outcome  # of a run of it, mostly: of _OUTCOMES
        self.state = JobState.QUEUED
        self.attempt = AttemptState.DONE  # the last one's; each begins as RUNNING
        self.token = 0  # of the lease: grows with each attempt and each end of one
        self.lost = 0  # attempts that count against it
        self.unjudged = self.delivered = 0
        self.engine = ""


class OneEngine:
    """An engine, and what the line knows of it."""

    __slots__ = (
        "begins_with",
        "budget_bytes",
        "is_known",
        "is_noticed",
        "is_paused",
        "is_up",
        "known_life",
        "life",
        "loading",
        "models",
        "pinned",
        "rows_max",
    )

    def __init__(self, models: tuple[str, ...], rows_max: int, budget_bytes: int = 0) -> None:
        self.begins_with = self.models = models  # warm, in each life and now
        self.rows_max, self.budget_bytes = rows_max, budget_bytes
        self.pinned: tuple[str, ...] = ()
        self.loading = ""  # a model
        self.life = self.known_life = 0  # known: which the line was told of last
        self.is_up = self.is_known = self.is_paused = False  # known: the line counts on it
        self.is_noticed = False  # it was told that it will be taken away


def drawn_engine(noise: Random, models: tuple[str, ...]) -> OneEngine:
    """Some engine, with some of these models warm as far as they fit."""
    budget = noise.choice(_BUDGETS)
    warm = tuple(noise.sample(models, noise.randint(1, len(models))))
    while budget and taken_bytes(warm) > budget:
        warm = warm[1:]
    engine = OneEngine(warm, noise.randint(1, 4), budget)
    if budget and noise.random() < 0.2:
        engine.pinned = (noise.choice(models),)
    return engine


class Books:
    """Jobs, engines, and what runs where."""

    def __init__(self) -> None:
        self.jobs: dict[str, OneJob] = {}
        self.engines: dict[str, OneEngine] = {}
        self.running: dict[str, dict[str, int]] = {}  # by engine the line knows: rows by job
        self.is_bounded = False

    def start(self, start: StartAttempt) -> int:
        """Lease the job to the engine; return the lease's token."""
        job, engine = self.jobs[start.job_id], self.engines[start.engine]
        held, rows = self.running[start.engine], job.queued.rows
        there = (*held, start.job_id)
        promises = {
            "the engine isn't there": engine.is_known and not engine.is_paused,
            "the model isn't warm": job.queued.model in engine.models,
            "no room for its adapters": not job.queued.adapters
            or not engine.budget_bytes
            or self._taken(engine, engine.models, there) <= engine.budget_bytes,
            "no room": not held or sum(held.values()) + rows <= engine.rows_max,
            "no starts were allowed": not self.is_bounded,
            "a last attempt isn't alone": not held or not any(map(self._is_last, there)),
        }
        _hold_all(start, promises)
        job.state = move(JOB_MOVES, job.state, JobState.RUNNING)
        job.attempt, job.engine = AttemptState.RUNNING, start.engine
        job.token += 1
        held[start.job_id] = rows
        return job.token

    def load(self, load: LoadModel) -> None:
        """Unload what is evicted, and begin the load."""
        engine = self.engines[load.engine]
        in_use = {self.jobs[job].queued.model for job in self.running[load.engine]}
        left = tuple(name for name in engine.models if name not in load.evict)
        whole = self._taken(engine, (*left, load.model), self.running[load.engine])
        promises = {
            "the engine isn't there": engine.is_known and not engine.is_paused,
            "it loads already": not engine.loading,
            "it has the model": (load.model in engine.models) is (load.why == "room"),
            "it hasn't what is evicted": set(load.evict) <= set(engine.models),
            "rows lose their model": not in_use.intersection(load.evict),
            "a pinned model is evicted": not set(engine.pinned).intersection(load.evict),
            "over the budget": whole <= engine.budget_bytes,
            "evicted by a guess": load.why in ("queued", "room")
            or not self._wanted().intersection(load.evict),
        }
        _hold_all(load, promises)
        engine.models, engine.loading = left, load.model

    def _taken(self, engine: OneEngine, models: Iterable[str], jobs: Iterable[str]) -> int:
        """Of models there, of one that is loading, and of the largest adapters of jobs there."""
        coming = (engine.loading,) if engine.loading else ()
        each = (self.jobs[job].queued.adapters for job in jobs)
        adapters = max((sum(line.bytes for line in lines) for lines in each), default=0)
        return taken_bytes((*models, *coming)) + adapters

    def _wanted(self) -> set[str]:
        waiting = (job for job in self.jobs.values() if job.state is JobState.QUEUED)
        return {job.queued.model for job in waiting}

    def leave(self, job_id: str, state: JobState, attempt: AttemptState) -> None:
        """Change a job's state, and end its attempt if it runs: late reports find another token."""
        job = self.jobs[job_id]
        was_running = job.state is JobState.RUNNING
        job.state = move(JOB_MOVES, job.state, state)
        if was_running:
            job.attempt = move(ATTEMPT_MOVES, job.attempt, attempt)
            if self.running.get(job.engine, {}).pop(job_id, None) is not None and (
                state in (JobState.QUEUED, JobState.FAILED) and attempt not in _NO_FAULT
            ):
                job.lost += 1
        job.token += 1

    def queued_again(self, job: OneJob, now: float) -> JobQueued:
        """As a server tells its line after a restart, or after a hold."""
        begun = min(job.lost, ATTEMPTS_MAX - 1)
        return replace(job.queued, attempt=begun, waited_s=now - job.arrived_s)

    def _is_last(self, job_id: str) -> bool:
        return self.jobs[job_id].lost + 1 >= ATTEMPTS_MAX

    def check_idle(self) -> None:
        """No empty engine idles while a job that never failed could run there.

        But one with adapters, or that found too little room: that may have to be made.
        """
        if self.is_bounded:
            return
        fresh = {
            job.queued.model
            for job in self.jobs.values()
            if job.state is JobState.QUEUED
            and not (job.lost or job.queued.adapters or job.attempt is AttemptState.HANDED_BACK)
        }
        for name, held in self.running.items():
            engine = self.engines[name]
            if held or engine.is_paused or not engine.is_known:
                continue
            if could := fresh.intersection(engine.models):
                raise BrokenPromise(f"{name} idles while jobs of {sorted(could)} wait")

    def check_end(self) -> None:
        """Every job is over, and what succeeded was delivered once."""
        for job_id, job in self.jobs.items():
            hold(job.state.is_final, f"{job_id} is {job.state} for ever")
            wanted = int(job.state is JobState.SUCCEEDED)
            hold(job.delivered == wanted, f"{job_id}: delivered {job.delivered} times")


def _hold_all(decision: Decision, promises: Mapping[str, bool]) -> None:
    for what, is_kept in promises.items():
        hold(is_kept, f"{decision}: {what}")


def hold(is_so: bool, what: str) -> None:
    """Raise BrokenPromise, which says what, if it isn't so."""
    if not is_so:
        raise BrokenPromise(what)
