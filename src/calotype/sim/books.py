"""What the store and the fleet hold in a schedule, and the promises about it.

The store's part: a job's state, moved by the state table; the token of its lease, which grows, so
that a late report finds another; how often it was delivered. The fleet's part: what runs on each
engine that the line counts on.
"""

from __future__ import annotations

from dataclasses import replace

from calotype.core.decisions import StartAttempt
from calotype.core.events import JobQueued
from calotype.core.limits import ATTEMPTS_MAX
from calotype.core.states import ATTEMPT_MOVES, JOB_MOVES, AttemptState, JobState, move


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

    __slots__ = ("is_known", "is_paused", "is_up", "life", "models", "models_max", "rows_max")

    def __init__(self, models: tuple[str, ...], rows_max: int, models_max: int) -> None:
        self.models, self.rows_max, self.models_max = models, rows_max, models_max
        self.life = 0
        self.is_up = self.is_known = self.is_paused = False  # known: the line counts on it


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
            "is_cold": start.is_cold == (job.queued.model not in engine.models),
            "it may not load": not start.is_cold or engine.models_max > 0,
            "no room": not held or sum(held.values()) + rows <= engine.rows_max,
            "no starts were allowed": not self.is_bounded,
            "a last attempt isn't alone": not held or not any(map(self._is_last, there)),
        }
        for what, is_kept in promises.items():
            if not is_kept:
                raise BrokenPromise(f"{start}: {what}")
        job.state = move(JOB_MOVES, job.state, JobState.RUNNING)
        job.attempt, job.engine = AttemptState.RUNNING, start.engine
        job.token += 1
        held[start.job_id] = rows
        if start.is_cold:
            kept = engine.models[-(engine.models_max - 1) :] if engine.models_max > 1 else ()
            engine.models = (*kept, job.queued.model)
        elif engine.models_max > 1:
            others = [name for name in engine.models if name != job.queued.model]
            engine.models = (*others, job.queued.model)
        return job.token

    def leave(self, job_id: str, state: JobState, attempt: AttemptState) -> None:
        """Change a job's state, and end its attempt if it runs: late reports find another token."""
        job = self.jobs[job_id]
        was_running = job.state is JobState.RUNNING
        job.state = move(JOB_MOVES, job.state, state)
        if was_running:
            job.attempt = move(ATTEMPT_MOVES, job.attempt, attempt)
            if self.running.get(job.engine, {}).pop(job_id, None) is not None and (
                state in (JobState.QUEUED, JobState.FAILED) and attempt is not AttemptState.HELD
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
        """No empty engine idles while a job that never failed could run there."""
        if self.is_bounded:
            return
        fresh = {
            job.queued.model
            for job in self.jobs.values()
            if job.state is JobState.QUEUED and not job.lost
        }
        for name, held in self.running.items():
            engine = self.engines[name]
            if held or engine.is_paused or not engine.is_known:
                continue
            if could := fresh if engine.models_max else fresh.intersection(engine.models):
                raise BrokenPromise(f"{name} idles while jobs of {sorted(could)} wait")

    def check_end(self) -> None:
        """Every job is over, and what succeeded was delivered once."""
        for job_id, job in self.jobs.items():
            hold(job.state.is_final, f"{job_id} is {job.state} for ever")
            wanted = int(job.state is JobState.SUCCEEDED)
            hold(job.delivered == wanted, f"{job_id}: delivered {job.delivered} times")


def hold(is_so: bool, what: str) -> None:
    """Raise BrokenPromise, which says what, if it isn't so."""
    if not is_so:
        raise BrokenPromise(what)
