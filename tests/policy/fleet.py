"""A fleet in virtual time, for tests: carries out the line's decisions and checks its laws."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

from calotype.core.decisions import (
    Decision,
    FailJob,
    HandBack,
    LoadModel,
    PromoteJob,
    RequeueJob,
    ReturnJob,
    StartAttempt,
)
from calotype.core.events import (
    AttemptFailed,
    EngineGone,
    EngineNotice,
    EnginePaused,
    EngineResumed,
    EngineUp,
    JobCancelled,
    JobHandedBack,
    JobQueued,
    JobSettled,
    ModelWarmed,
    PolicyEvent,
    StartsBounded,
)
from calotype.core.limits import ATTEMPTS_MAX
from calotype.core.nouns import Tier
from calotype.policy.line import Line


def queued(
    job_id: str,
    *,
    tenant: str = "ann",
    tier: Tier = Tier.FAST,
    model: str = "m",
    rows: int = 1,
    cost_s: float = 1.0,
    attempt: int = 0,
    user: str = "",
) -> JobQueued:
    """A waiting job."""
    return JobQueued(job_id, tenant, tier, model, rows, cost_s, attempt, user)


class Fleet:
    """Feeds a line, follows its decisions, and asserts after each event what must always hold."""

    def __init__(self, line: Line | None = None) -> None:
        self.line = line or Line()
        self.now = 0.0
        self.jobs: dict[str, JobQueued] = {}  # unfinished, by id, in order of arrival
        self.running: dict[str, str] = {}  # job -> engine
        self.engines: dict[str, EngineUp] = {}
        self.paused: set[str] = set()  # engines
        self.leaving: set[str] = set()  # engines that had notice
        self.running_max: int | None = None
        self.starts: list[str] = []
        self.attempts: Counter[str] = Counter()
        self.failed: dict[str, str] = {}  # job -> reason
        self.lost_on: defaultdict[str, set[str]] = defaultdict(set)  # job -> engines

    def feed(self, event: PolicyEvent) -> list[Decision]:
        """Give the line an event, carry out what it answers, check the laws."""
        self._take_in(event)
        decisions = self.line.on(event, self.now)
        for decision in decisions:
            self._carry_out(decision)
        self.check()
        return decisions

    def up(self, name: str = "e0", models: tuple[str, ...] = ("m",), rows_max: int = 1) -> None:
        self.feed(EngineUp(name, models, rows_max))

    def waiting(self) -> list[JobQueued]:
        return [job for job in self.jobs.values() if job.job_id not in self.running]

    def jobs_on(self, engine: str) -> list[str]:
        return [job for job, where in self.running.items() if where == engine]

    def rows_on(self, engine: str) -> int:
        return sum(self.jobs[job].rows for job in self.jobs_on(engine))

    def check(self) -> None:
        waiting = self.waiting()
        assert self.line.waiting == len(waiting)
        for name, engine in self.engines.items():
            held = self.rows_on(name)
            assert held <= engine.rows_max, "more rows than the engine may hold"
            together = self.jobs_on(name)
            if len(together) > 1:
                last = [job for job in together if self._begun(job) >= ATTEMPTS_MAX]
                assert not last, f"{last} aren't alone on {name}"
            is_bounded = self.running_max is not None and len(self.running) >= self.running_max
            if held == 0 and name not in self.paused and not is_bounded:
                idle = [job.job_id for job in waiting if self._could_run(job, engine)]
                assert not idle, f"{idle} wait while {name} idles"
        positions = sorted(self.line.position(job.job_id) or 0 for job in waiting)
        assert positions == list(range(1, len(waiting) + 1))
        for job in self.running:
            assert self.line.position(job) is None

    def _could_run(self, job: JobQueued, engine: EngineUp) -> bool:
        """It has the model, and the job didn't fail there while another engine has it too."""
        open_ = [one for one in self.engines.values() if one.engine not in self.paused]
        others = (one.engine for one in open_ if job.model in one.models)
        lost_on = self.lost_on[job.job_id]
        is_avoided = engine.engine in lost_on and any(name not in lost_on for name in others)
        return job.model in engine.models and not is_avoided

    def _begun(self, job: str) -> int:
        return self.jobs[job].attempt + self.attempts[job]

    def _take_in(self, event: PolicyEvent) -> None:
        match event:
            case JobQueued():
                self.jobs.setdefault(event.job_id, event)
            case JobCancelled() | JobSettled():
                self.running.pop(event.job_id, None)
                self.jobs.pop(event.job_id, None)
            case AttemptFailed():
                if where := self.running.pop(event.job_id, None):
                    self.lost_on[event.job_id].add(where)
            case JobHandedBack():
                if self.running.pop(event.job_id, None):
                    self.attempts[event.job_id] -= 1
            case EngineUp() | EngineGone():
                self._replace(event.engine, event)
            case EnginePaused() | EngineNotice() | EngineResumed():
                self._pause(event)
            case ModelWarmed() if event.engine in self.engines:
                up = self.engines[event.engine]
                models = tuple(dict.fromkeys((*up.models, event.model)))
                self.engines[event.engine] = replace(up, models=models)
            case StartsBounded():
                self.running_max = event.running_max

    def _replace(self, engine: str, event: EngineUp | EngineGone) -> None:
        for job in self.jobs_on(engine):
            if engine in self.leaving:
                self.attempts[job] -= 1
            else:
                self.lost_on[job].add(engine)
        self.running = {j: e for j, e in self.running.items() if e != engine}
        self.engines.pop(engine, None)
        self.paused.discard(engine)
        self.leaving.discard(engine)
        if isinstance(event, EngineUp):
            self.engines[engine] = event

    def _pause(self, event: EnginePaused | EngineNotice | EngineResumed) -> None:
        if isinstance(event, EngineNotice) and event.engine in self.engines:
            self.leaving.add(event.engine)
        if not isinstance(event, EngineResumed):
            self.paused.add(event.engine)
        elif event.engine not in self.leaving:
            self.paused.discard(event.engine)

    def _carry_out(self, decision: Decision) -> None:
        assert not isinstance(decision, LoadModel), "an engine without a budget is told to load"
        job = decision.job_id
        assert job in self.jobs, "a decision about a job that is over"
        if isinstance(decision, HandBack):
            assert self.running[job] == decision.engine
            assert decision.engine in self.leaving
            return
        assert job not in self.running, "a decision about a job that runs"
        match decision:
            case StartAttempt(_, engine):
                assert self._could_run(self.jobs[job], self.engines[engine])
                assert engine not in self.paused
                assert self.running_max is None or len(self.running) < self.running_max
                self.running[job] = engine
                self.starts.append(job)
                self.attempts[job] += 1
                assert self.attempts[job] <= ATTEMPTS_MAX
            case RequeueJob() | ReturnJob() | PromoteJob():
                pass
            case FailJob(_, reason):
                self.failed[job] = reason
                del self.jobs[job]


class Quick(Fleet):
    """A fleet that doesn't check its laws after each event: for long runs."""

    def check(self) -> None:
        """Not now."""


class Clockwork:
    """Runs a fleet in virtual time: every started job takes so many seconds, then is settled."""

    def __init__(self, fleet: Fleet, take_s: Callable[[JobQueued], float]) -> None:
        self.fleet = fleet
        self.take_s = take_s
        self.used_s: defaultdict[tuple[str, str], float] = defaultdict(
            float
        )  # (tier, tenant) -> device-seconds
        self._ends: list[tuple[float, str, float]] = []
        self._seen = 0

    def step(self) -> JobQueued:
        """Go on to the next end of a job."""
        for job_id in self.fleet.starts[self._seen :]:
            took_s = self.take_s(self.fleet.jobs[job_id])
            heapq.heappush(self._ends, (self.fleet.now + took_s, job_id, took_s))
        self._seen = len(self.fleet.starts)
        self.fleet.now, job_id, took_s = heapq.heappop(self._ends)
        job = self.fleet.jobs[job_id]
        self.used_s[job.tier, job.tenant] += took_s
        self.fleet.feed(JobSettled(job_id, took_s))
        return job
