"""Seeded schedules: a few jobs, a few engines, and everything that can happen, in any order.

Each schedule is one small history over the production line and the store's state table: jobs
arrive, are cancelled, fail, can't be judged; engines come and go (``troubles``); reports are late,
doubled, or of attempts that are over; the server is killed and rebuilds its line. All of it is
drawn from the seed, so a seed is a schedule, and plays again to the last byte:
``Schedule(seed).run()``, with ``trace`` to see it.

Held after every turn: a start is of a job that waits, on an engine that is up, is not paused, has
its model, and has room; a load is on such an engine, one at a time, within its budget, and evicts
nothing that is pinned or has rows there; a job's last attempt is alone there; an empty engine
doesn't idle while a fresh job could run on it. Held at the end, with engines up and no more faults:
every job is over, by moves that the state table has; what succeeded was delivered once, all else
never; nothing is left in the line.
"""

from __future__ import annotations

import random
from heapq import heappop, heappush
from typing import Any

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
    JobCancelled,
    JobHandedBack,
    JobQueued,
    JobSettled,
    PolicyEvent,
    StartsBounded,
    TimePassed,
)
from calotype.core.limits import ATTEMPTS_MAX
from calotype.core.nouns import Reserve, Tier
from calotype.core.states import ATTEMPT_MOVES, JOB_MOVES, AttemptState, JobState, move
from calotype.policy.line import Line
from calotype.policy.rules import Rules
from calotype.sim.books import (
    ADAPTERS_MAX,
    MODELS,
    BrokenPromise,
    OneEngine,
    OneJob,
    drawn_engine,
    hold,
    taken_bytes,
)
from calotype.sim.troubles import BUSY_S, Troubles

_TIERS = tuple(Tier)
_JOBS_MAX, _ENGINES_MAX, _TROUBLES_MAX = 12, 4, 8
_EVENTS_MAX = 5_000  # of one schedule: more would mean that it goes in a circle
_UNJUDGED_MAX = 3  # runs of a job that can't be judged, before it fails
_OUTCOMES = {"done": 70, "again": 10, "for-good": 5, "kills": 5, "unjudged": 10}  # per cent of jobs
_TROUBLES = (
    *("lose", "lose", "mute", "notice", "pause", "warm", "cool"),
    *("cancel", "cancel", "bound", "crash"),
)


class Schedule(Troubles):
    """One history. ``trace`` is filled if it is a list."""

    def __init__(self, seed: int, trace: list[str] | None = None) -> None:
        self.seed, self.trace = seed, trace
        super().__init__(random.Random(seed))
        self._bulk = random.Random(f"{seed}:adapters")
        self._heap: list[tuple[float, int, str, tuple[Any, ...]]] = []
        self._order = 0
        self._rules = self._drawn_rules()
        self._line = Line(rules=self._rules)
        self.turns = 0

    def run(self) -> int:
        """Play to the end; return how many turns it took. Raises BrokenPromise with the seed."""
        try:
            self._draw()
            while self._heap or self._line.next_deadline() is not None:
                self._step()
            hold(self._line.waiting == 0, f"{self._line.waiting} jobs still wait")
            self._books.check_end()
        except Exception as error:
            at = f"seed {self.seed}, at {self._now:.3f} s"
            said = str(error) if isinstance(error, BrokenPromise) else repr(error)
            raise BrokenPromise(f"{at}: {said}") from error
        return self.turns

    # What is drawn.

    def _drawn_rules(self) -> Rules:
        if self._noise.random() < 0.5:
            return Rules()
        return Rules(
            reserved={self._noise.choice(_TIERS): self._noise.choice((0.1, 0.5, 0.9))},
            wait_s_max={Tier.RELAX: 5.0, Tier.FAST: 20.0},
            promoted_s_max=1.0,
        )

    def _draw(self) -> None:
        noise = self._noise
        models = ("a", "b", "c")[: noise.randint(1, 3)]
        for at in range(noise.randint(1, _ENGINES_MAX)):
            self._books.engines[f"e{at}"] = drawn_engine(noise, models)
            self._later(noise.random() * 5, "up", f"e{at}")
        # One that comes when all trouble is over: it has all models, or loads one after the other.
        budget = taken_bytes("c") + ADAPTERS_MAX
        last = OneEngine(models, 4) if noise.random() < 0.5 else OneEngine((), 4, budget)
        self._books.engines["last"] = last
        self._later(2 * BUSY_S, "up", "last")
        self._learn()
        for at in range(noise.randint(1, _JOBS_MAX)):
            self._later(noise.random() * BUSY_S, "arrive", f"j{at}", noise.choice(models))
        for _ in range(noise.randint(0, _TROUBLES_MAX)):
            self._later(noise.random() * BUSY_S, noise.choice(_TROUBLES))

    def _learn(self) -> None:
        """The line is told what each model needs."""
        for known in MODELS.values():
            self._tell(known)

    # The loop.

    def _step(self) -> None:
        self.turns += 1
        if self.turns > _EVENTS_MAX:
            raise BrokenPromise(f"not over after {_EVENTS_MAX} turns")
        deadline = self._line.next_deadline()
        if deadline is not None and (not self._heap or deadline < self._heap[0][0]):
            self._now = max(self._now, deadline)
            self._tell(TimePassed())
            after = self._line.next_deadline()
            hold(after is None or after > self._now, "a deadline that never passes")
            return
        self._now, _, what, about = heappop(self._heap)
        self._note(what, *about)
        getattr(self, f"_on_{what}")(*about)

    def _later(self, delay_s: float, what: str, *about: Any) -> None:
        self._order += 1
        heappush(self._heap, (self._now + delay_s, self._order, what, about))

    def _tell(self, event: PolicyEvent) -> None:
        self._note("tell", event)
        decisions = self._line.on(event, self._now)
        for decision in decisions:
            self._note("  decided", decision)
            self._carry_out(decision)
        self._books.check_idle()

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case StartAttempt():
                self._start(decision)
            case RequeueJob(job_id=job_id):
                self._books.leave(job_id, JobState.QUEUED, AttemptState.LOST)
            case ReturnJob(job_id=job_id):
                self._books.leave(job_id, JobState.QUEUED, AttemptState.HANDED_BACK)
            case HandBack(job_id=job_id, engine=name):
                hold(self._books.engines[name].is_noticed, f"{name} hands back without notice")
                self._later(self._delay_s(), "hand_back", job_id, self._books.jobs[job_id].token)
            case FailJob(job_id=job_id):
                self._books.leave(job_id, JobState.FAILED, AttemptState.FAILED)
            case PromoteJob(job_id=job_id):
                hold(self._books.jobs[job_id].state is JobState.QUEUED, f"{job_id} promoted")
            case LoadModel():
                self._books.load(decision)
                life = self._books.engines[decision.engine].known_life
                take_s = self._noise.random() * 8
                self._later(take_s, "loaded", decision.engine, life, decision.model)

    def _start(self, start: StartAttempt) -> None:
        token, life = self._books.start(start), self._books.engines[start.engine].life
        self._later(self._delay_s(), "begin", start.job_id, token, start.engine, life)

    # What happens.

    def _on_arrive(self, job_id: str, model: str) -> None:
        noise = self._noise
        queued = JobQueued(
            job_id,
            f"t{noise.randint(0, 2)}",
            noise.choice(_TIERS),
            model,
            rows=noise.randint(1, 4),
            cost_s=noise.random() * 10,
            user=noise.choice(("", "u", "v")),
            adapters=self._drawn_adapters(),
        )
        (outcome,) = noise.choices(tuple(_OUTCOMES), tuple(_OUTCOMES.values()))
        self._books.jobs[job_id] = OneJob(queued, self._now, outcome)
        self._tell(queued)

    def _drawn_adapters(self) -> tuple[Reserve, ...]:
        if self._bulk.random() < 0.7:
            return ()
        return (Reserve("controls", self._bulk.randint(1, ADAPTERS_MAX)),)

    def _on_begin(self, job_id: str, token: int, name: str, life: int) -> None:
        """The job's rows reach the engine; their end is drawn."""
        engine, job = self._books.engines[name], self._books.jobs[job_id]
        if engine.life != life or not engine.is_up:
            return
        take_s = self._noise.expovariate(0.2)
        outcome = job.outcome
        if outcome not in ("done", "for-good") and self._noise.random() < 0.5:
            outcome = "done"  # mostly for a while only
        if outcome == "kills":
            self._later(take_s, "die", name, life)
        else:
            for _ in range(2 if self._noise.random() < 0.1 else 1):  # told twice, now and then
                self._later(take_s + self._delay_s(), "report", job_id, token, outcome, name, life)

    def _on_report(self, job_id: str, token: int, outcome: str, name: str, life: int) -> None:
        job = self._books.jobs[job_id]
        if job.token != token or job.state is not JobState.RUNNING:
            return  # the store refuses it: the lease is another's, or nobody's
        device_s = self._noise.random() * 10
        if outcome == "again":
            short = self._bulk.choice((0, 1, 5))
            self._tell(AttemptFailed(job_id, "failed", is_retryable=True, short_bytes=short))
        elif outcome == "for-good":
            self._tell(AttemptFailed(job_id, "failed", is_retryable=False))
        elif outcome == "unjudged":
            self._unjudged(job_id, job)
        else:
            job.delivered += 1
            self._books.leave(job_id, JobState.SUCCEEDED, AttemptState.DONE)
            self._tell(JobSettled(job_id, device_s))

    def _on_hand_back(self, job_id: str, token: int) -> None:
        job = self._books.jobs[job_id]
        if job.token == token and job.state is JobState.RUNNING:
            spent_s = self._noise.random() * 5
            self._tell(JobHandedBack(job_id, spent_s, self._noise.random() * job.queued.cost_s))

    def _unjudged(self, job_id: str, job: OneJob) -> None:
        job.unjudged += 1
        if job.unjudged < _UNJUDGED_MAX:
            self._books.leave(job_id, JobState.PENDING_SAFETY, AttemptState.HELD)
            self._later(5.0, "judge", job_id, job.token)
        else:
            self._books.leave(job_id, JobState.FAILED, AttemptState.HELD)
        self._tell(JobSettled(job_id, 0.0))

    def _on_judge(self, job_id: str, token: int) -> None:
        job = self._books.jobs[job_id]
        if job.state is JobState.PENDING_SAFETY and job.token == token:
            job.state = move(JOB_MOVES, job.state, JobState.QUEUED)
            self._tell(self._books.queued_again(job, self._now))

    def _on_cancel(self) -> None:
        left = [job_id for job_id, job in self._books.jobs.items() if not job.state.is_final]
        if not left:
            return
        job_id = self._noise.choice(left)
        job = self._books.jobs[job_id]
        was_running = job.state is JobState.RUNNING
        self._books.leave(job_id, JobState.CANCELLED, AttemptState.CANCELLED)
        self._tell(JobCancelled(job_id))
        if was_running and self._noise.random() < 0.8:
            self._tell(JobSettled(job_id, self._noise.random() * 10))

    def _on_bound(self) -> None:
        if not self._books.is_bounded:
            self._books.is_bounded = True
            self._tell(StartsBounded(0))
            self._later(6.0, "unbound")

    def _on_unbound(self) -> None:
        if self._books.is_bounded:
            self._books.is_bounded = False
            self._tell(StartsBounded(None))

    def _on_crash(self) -> None:
        """The server is killed and started: engines end with it, the line is rebuilt."""
        standing = self._line.standing()
        self._line = Line(standing, self._rules)
        self._books.running.clear()
        self._books.is_bounded = False
        self._learn()
        for name, engine in self._books.engines.items():
            engine.is_known = engine.is_noticed = False
            if engine.is_up:
                engine.is_up = False
                self._later(5.0, "up", name)
        for job in self._books.jobs.values():
            if job.state is JobState.RUNNING:
                job.state = move(JOB_MOVES, job.state, JobState.QUEUED)
                job.attempt = move(ATTEMPT_MOVES, job.attempt, AttemptState.LOST)
                job.token += 1
                job.lost = min(job.lost + 1, ATTEMPTS_MAX - 1)
            if job.state is JobState.QUEUED:
                self._tell(self._books.queued_again(job, self._now))

    def _note(self, what: str, *about: Any) -> None:
        if self.trace is not None:
            told = " ".join(str(each) for each in about)
            self.trace.append(f"{self._now:9.3f} {what} {told}".rstrip())
