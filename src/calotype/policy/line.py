"""The line: which job starts next, on which engine, and what becomes of those that fail.

It composes ``fair`` (whose turn), ``place`` (where) and ``retry`` (again, or not). The shell feeds
it events and carries out its decisions in order; every ``StartAttempt`` counts as started.

What the shell owes it:

- One end for each attempt: ``JobSettled``, or ``AttemptFailed``, or the engine's ``EngineGone``.
  Events carry no token, so the shell drops reports of attempts that are over (by the token in the
  row's id) before they come here.
- A running job's ``JobCancelled`` frees its rows at once, so send ``CancelRow`` before carrying out
  the decisions. A ``JobSettled`` may follow: it corrects the charge to what was really used.
- After a restart: ``Line(standing)`` if the standing was kept, then ``JobQueued`` for each
  unfinished job, oldest first. Then the next decision is the one the old line would have made.

A job's last attempt has its engine to itself. When an engine dies, all jobs on it have lost an
attempt, though one alone may have killed it; alone, it can take no neighbour down with it, and what
is lost then is lost by its own doing.

Events about jobs it doesn't know (late ones, or twice) change nothing and are no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from calotype.core.decisions import Decision, RequeueJob, StartAttempt
from calotype.core.events import (
    AttemptFailed,
    EngineGone,
    EngineUp,
    JobCancelled,
    JobQueued,
    JobSettled,
    PolicyEvent,
)
from calotype.core.limits import ATTEMPTS_MAX
from calotype.policy.fair import Entry, FairQueue, ticks
from calotype.policy.place import WHOLE_ENGINE, Fleet
from calotype.policy.retry import after_failure

_CANCELLED_KEPT_MAX = 1_000  # cancelled in mid-run, their measured cost not yet told


@dataclass(frozen=True)
class _Run:
    entry: Entry
    engine: str
    rows: int  # taken of the engine


class Line:
    """All jobs that wait or run, and the engines they run on."""

    def __init__(self, standing: Mapping[str, Any] | None = None) -> None:
        """An empty line; ``standing`` is what ``standing()`` gave before a restart."""
        self._fair = FairQueue(standing)
        self._fleet = Fleet()
        self._waiting: dict[str, Entry] = {}
        self._running: dict[str, _Run] = {}
        self._cancelled: dict[str, Entry] = {}  # charged, rows freed, JobSettled not yet seen
        self._seq = 0
        self._positions: dict[str, int] | None = None  # None: stale

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    def on(self, event: PolicyEvent, now: float) -> list[Decision]:
        """Take in a fact; answer what to do, in order. ``now`` in seconds, never going back."""
        self._positions = None
        decisions = self._absorb(event)
        return decisions + self._start_what_fits()

    def position(self, job_id: str) -> int | None:
        """The job's place in the line (1 starts next), or None if it doesn't wait.

        By fair order alone, as things stand: jobs that come later can go before it, and a job
        whose model no engine has warm keeps its place while others pass. The whole order is
        replayed when first asked after an event, O(n log n), and kept until the next one: some
        20 ms for 10,000 waiting jobs, then a look-up.
        """
        if job_id not in self._waiting:
            return None
        if self._positions is None:
            order = self._fair.order()
            self._positions = {entry.job.job_id: at for at, entry in enumerate(order, start=1)}
        return self._positions[job_id]

    def next_deadline(self) -> float | None:
        """When to be called again though nothing happened; None: not needed, as so far always."""
        return None

    def standing(self) -> dict[str, Any]:
        """What each tier and tenant has been charged, as JSON, to keep over a restart.

        Running jobs count as not started: after a restart they wait again. Without it a rebuilt
        line is right in every other way, and begins even between tiers and tenants.
        """
        return self._fair.standing(run.entry for run in self._running.values())

    def _absorb(self, event: PolicyEvent) -> list[Decision]:
        match event:
            case JobQueued():
                return self._queue(event)
            case JobCancelled():
                self._cancel(event.job_id)
            case JobSettled():
                self._settle(event.job_id, event.device_s)
            case AttemptFailed():
                if event.job_id in self._running:
                    runs = [self._running[event.job_id]]
                    return self._lose(runs, event.reason, event.is_retryable)
            case EngineUp():
                # Up again without a word of its end: what ran there is lost all the same.
                decisions = self._lose_engine(event.engine)
                self._fleet.up(event.engine, event.models, event.rows_max)
                return decisions
            case EngineGone():
                return self._lose_engine(event.engine, event.reason)
        return []

    def _queue(self, job: JobQueued) -> list[Decision]:
        assert job.rows > 0, "a job without images"
        if job.job_id in self._waiting or job.job_id in self._running:
            return []
        if job.attempt >= ATTEMPTS_MAX:  # lost its last attempt while the server was down
            return [after_failure(job.job_id, job.attempt, "every attempt was lost")]
        self._seq += 1
        self._wait(Entry(job, self._seq, ticks(job.cost_s)))
        return []

    def _cancel(self, job_id: str) -> None:
        if entry := self._waiting.pop(job_id, None):
            self._fair.remove(entry)
        elif run := self._running.get(job_id):
            self._end(run)
            self._cancelled[job_id] = run.entry
            if len(self._cancelled) > _CANCELLED_KEPT_MAX:
                self._cancelled.pop(next(iter(self._cancelled)))

    def _settle(self, job_id: str, device_s: float) -> None:
        if run := self._running.get(job_id):
            self._end(run)
            self._fair.correct(run.entry, ticks(device_s))
        elif entry := self._cancelled.pop(job_id, None):
            self._fair.correct(entry, ticks(device_s))

    def _lose_engine(self, engine: str, reason: str = "") -> list[Decision]:
        self._fleet.gone(engine)
        runs = [run for run in self._running.values() if run.engine == engine]
        said = f"{engine} is gone: {reason}" if reason else f"{engine} is gone"
        return self._lose(runs, said, is_retryable=True)

    def _lose(self, runs: list[_Run], reason: str, is_retryable: bool) -> list[Decision]:
        """Take back what the attempts were charged: losing them isn't the tenants' doing."""
        decisions: list[Decision] = []
        back = []
        for run in runs:
            self._end(run)
            self._fair.correct(run.entry, 0)
            job = run.entry.job
            answer = after_failure(job.job_id, job.attempt, reason, is_retryable=is_retryable)
            decisions.append(answer)
            if isinstance(answer, RequeueJob):
                back.append(run.entry)
        for entry in back:  # after all are taken back, so that their order doesn't matter
            self._wait(entry)
        return decisions

    def _wait(self, entry: Entry) -> None:
        self._waiting[entry.job.job_id] = entry
        self._fair.add(entry)

    def _end(self, run: _Run) -> None:
        del self._running[run.entry.job.job_id]
        self._fair.settle(run.entry)
        self._fleet.free(run.engine, run.rows)

    def _start_what_fits(self) -> list[Decision]:
        decisions: list[Decision] = []
        while found := self._next():
            entry, engine = found
            rows = _rows_taken(entry.job)
            job = replace(entry.job, attempt=entry.job.attempt + 1)
            del self._waiting[job.job_id]
            self._fair.start(entry)
            self._fleet.take(engine, rows)
            self._running[job.job_id] = _Run(replace(entry, job=job), engine, rows)
            decisions.append(StartAttempt(job.job_id, engine))
        return decisions

    def _next(self) -> tuple[Entry, str] | None:
        turn = self._fleet.turn()
        if turn.is_over:
            return None
        for entry in self._fair.in_turn():
            if engine := turn.engine_for(entry.job.model, _rows_taken(entry.job)):
                return entry, engine
            if turn.is_over:
                return None
        return None


def _rows_taken(job: JobQueued) -> int:
    """Rows that a waiting job will take of its engine: its images, or at the last all there are."""
    return WHOLE_ENGINE if job.attempt + 1 == ATTEMPTS_MAX else job.rows
