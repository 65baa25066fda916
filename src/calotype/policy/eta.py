"""When a job will be done, and what it waits for: the policy itself, run forward.

A copy of the line (``fork``) is played on with the predicted costs and what the engines are at:
whoever ends leaves its rows, the line decides who is next, as it will. Nobody comes and nobody
goes in it; what that and every wrong cost does to the truth is measured (``ranges``).

The play is bounded: after ``FORECAST_STARTS_MAX`` starts, or where a kind of which more wait has
run out, no more are made. Jobs behind that are told a time by their place in the line and by how
fast jobs started in the second half of the play, and ``is_extrapolated`` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any, NamedTuple

from calotype.core.decisions import Decision, LoadModel, StartAttempt
from calotype.core.events import (
    EngineUp,
    JobQueued,
    JobSettled,
    ModelWarmed,
    PolicyEvent,
    TimePassed,
)
from calotype.core.limits import FORECAST_STARTS_MAX
from calotype.core.nouns import Tier
from calotype.policy.fork import (
    Fork,
    can_run,
    engines_up,
    fork,
    is_busy,
    is_running,
    loading,
    model_of,
    place_at_most,
    places,
)
from calotype.policy.lanes import Entry
from calotype.policy.line import Line
from calotype.policy.sharing import Pace, Run, Sharing


@dataclass(frozen=True)
class Coming:
    """An engine that isn't up yet."""

    up: EngineUp
    in_s: float
    why: str = ""  # told to the jobs that wait for it; empty: it is starting


@dataclass(frozen=True)
class Present:
    """What the line doesn't know of the machines."""

    # Device-seconds that a job which waits or runs still takes, predicted for a device of speed 1.
    left: Callable[[JobQueued], float]
    pace: Callable[[str], Pace]  # of an engine, by name
    coming: tuple[Coming, ...] = ()
    stopped: str = ""  # why nothing is started for now, whatever has its turn; empty: all is well


@dataclass(frozen=True)
class Outlook:
    """What is to be expected of one job. Seconds from the moment of the forecast."""

    position: int | None  # in the line, 1 = next; None: it runs
    start_s: float | None  # None: nothing that is up or starting could run it
    done_s: float | None
    reason: str  # what it waits for, without a full stop
    is_extrapolated: bool = False

    @property
    def kind(self) -> str:
        """Of ``ranges.OUTLOOKS``."""
        if self.is_extrapolated:
            return "far"
        return "waits" if self.position is not None else "runs"


class Forecast:
    """The line as it stands, played forward once; for all who ask."""

    def __init__(
        self, line: Line, present: Present, now: float, starts_max: int = FORECAST_STARTS_MAX
    ) -> None:
        """Play at most so many starts. Reads ``line`` and changes nothing in it."""
        self._line, self._present, self.made_at = line, present, now
        self._play = _Play(fork(line, starts_max), present, now)
        self._play.run(starts_max)
        self._places = places(line)
        self._order = {start.entry.job.job_id: at for at, start in enumerate(self._play.starts)}

    @property
    def starts(self) -> int:
        """How many were played."""
        return len(self._order)

    def position(self, job_id: str) -> int | None:
        """A job's place in the line, 1 = next, as it was then; None if it doesn't wait now.

        Of a job that came since, and where too many waited, an upper estimate.
        """
        at_most = place_at_most(self._line, job_id)
        return None if at_most is None else self._places.get(job_id, at_most)

    def of(self, job_id: str, now: float | None = None) -> Outlook | None:
        """What to expect of a job from ``now`` on; None if it neither waits nor runs.

        A job that came into the line since is told by the place that it has there at most.
        """
        age_s = max(0.0, now - self.made_at) if now is not None else 0.0
        position, play = self.position(job_id), self._play
        if position is None and not is_running(self._line, job_id):
            return None
        if position is None:
            found = self._running(job_id)
        elif self._present.stopped:
            found = Outlook(position, None, None, self._present.stopped)
        elif (at := self._order.get(job_id)) is not None:
            start = play.starts[at]
            reason = self._reason(start, [one.entry for one in play.starts[:at]])
            found = Outlook(position, start.at_s, play.ends[job_id], reason)
        else:
            found = self._beyond(job_id, position)
        return _aged(found, age_s)

    def _running(self, job_id: str) -> Outlook:
        entry = self._play.entries.get(job_id)
        if entry is None or (done_s := self._play.ends.get(job_id)) is None:
            return Outlook(None, 0.0, None, "it is drawn")  # came in and was started since
        return Outlook(None, 0.0, done_s, "it is drawn")

    def _beyond(self, job_id: str, position: int) -> Outlook:
        """A job that the play didn't come to."""
        play, count = self._play, self.starts
        if lacks := self._lacks(job_id):
            return Outlook(position, None, None, lacks)
        half = count // 2
        if half < 1 or (span_s := play.starts[-1].at_s - play.starts[half - 1].at_s) <= 0.0:
            reason = "nothing starts at this time"
            return Outlook(position, None, None, reason, is_extrapolated=True)
        each_s = span_s / (count - half)
        start_s = play.starts[-1].at_s + max(0, position - count) * each_s
        takes = [play.ends[one.entry.job.job_id] - one.at_s for one in play.starts[half:]]
        done_s = start_s + sum(takes) / len(takes)
        reason = f"{_jobs(position - 1)} ahead"
        return Outlook(position, start_s, done_s, reason, is_extrapolated=True)

    def _lacks(self, job_id: str) -> str:
        """Why no engine that is up or starting could run a waiting job; empty if one could."""
        coming = self._present.coming
        if not engines_up(self._line) and not coming:
            return "no engine is up"
        model = model_of(self._line, job_id)
        if said := self._line.trouble(model):
            return f"its model couldn't be loaded: {said}"
        could = any(model in one.up.models or one.up.budget_bytes for one in coming)
        if could or can_run(self._line, model):
            return ""
        return f"no engine at work has {model}"

    def _reason(self, start: _Start, before: list[Entry]) -> str:
        job = start.entry.job
        later = ""
        if start.is_loading:
            return f"its model is loading, {_about(start.at_s)} left"
        if start.load_s:
            later = f"its model has to be loaded, {_about(start.load_s)}"
        elif (coming := self._play.coming.get(start.engine)) is not None:
            return coming.why or f"an engine is starting, {_about(coming.in_s)} left"
        if not before:
            return later or self._next(start)
        # Tiers have weights; within one, whoever came later and goes first is behind its share.
        peers = [one for one in before if one.job.tier is job.tier]
        own = sum(_owner(one.job) == _owner(job) for one in peers)
        passing = sum(one.seq > start.entry.seq and _owner(one.job) != _owner(job) for one in peers)
        if own > len(before) // 2 or (own and passing):
            said = f"your jobs use their share: {_jobs(own)} of yours ahead"
        elif passing > len(before) // 2 and self._play.runs_for(job):
            said = f"your jobs use their share: {_ahead(before)} ahead"
        else:
            said = f"{_ahead(before)} ahead"
        return f"{said}, then {later}" if later else said

    def _next(self, start: _Start) -> str:
        if start.entry.avoid:
            return "it is next on another engine than the one it failed on"
        return f"it is next: the engines are busy for {_about(start.at_s)}"


class _Start(NamedTuple):
    entry: Entry
    engine: str
    at_s: float  # from the forecast's moment
    load_s: float = 0.0  # of the load that it waited for at last; 0: of none
    is_loading: bool = False  # and that load is going on now


_JOIN, _END, _UP, _WARM = range(4)
_TOGETHER_S = 1e-6  # what happens in less is taken for one moment


class _Play:
    """One run of the copied line, on engines in virtual time."""

    def __init__(self, forked: Fork, present: Present, now: float) -> None:
        self._line, self._present = forked.line, present
        self._begin = self._now = now
        self._left = dict(forked.cut)
        self._heap: list[tuple[float, int, int, Any, Any]] = []
        self._order = 0
        self._engines: dict[str, Sharing] = {}
        self.is_cut = False  # it ended before all had started
        self.running = {one.job.job_id: one for one in forked.running}
        self.stuck = forked.waiting  # those that never started
        self.coming = {one.up.engine: one for one in present.coming}
        # By engine and model: when it is warm, how long the load takes, whether it is going on now.
        self._loads: dict[tuple[str, str], tuple[float, float, bool]] = {}
        self._held_up: dict[str, EngineUp] = {}  # engines that have yet to finish what they run
        self.starts: list[_Start] = []
        self.ends: dict[str, float] = {}
        self.entries = {**self.stuck, **self.running}
        for entry in forked.running:
            self._begin_rows(entry)
        for engine in present.coming:
            self._push(engine.in_s, _UP, engine.up, None)
        for (engine_name, model), until in loading(self._line).items():
            self._load(engine_name, model, max(0.0, until - now), is_loading=True)

    def run(self, starts_max: int) -> None:
        """Go on until nothing is left to happen, then only let those that started end."""
        self._tell(TimePassed(), starts_max)
        while self._heap:
            deadline = None if self.is_cut else self._line.next_deadline()
            if deadline is not None and self._now < deadline < self._heap[0][0]:
                self._now = deadline
                self._tell(TimePassed(), starts_max)
                continue
            self._now, _, what, one, other = heappop(self._heap)
            if what == _JOIN:
                self._push_end(self._engines[one], self._engines[one].join(other, self._now))
            elif what == _UP:
                self._up(one, starts_max)
            elif what == _WARM:
                self._tell(ModelWarmed(one, other), starts_max)
            elif one.version == other:
                self._end(one, starts_max)

    def runs_for(self, job: JobQueued) -> bool:
        """Whether jobs of the same owner run."""
        return any(_owner(one.job) == _owner(job) for one in self.running.values())

    def _end(self, engine: Sharing, starts_max: int) -> None:
        run, _, next_s = engine.end(self._now)
        if next_s is not None:
            self._push_end(engine, next_s)
        self.ends[run.job_id] = self._now - self._begin
        if not self.is_cut:
            # Settled with what was charged: a forecast has no news of costs.
            self._tell(JobSettled(run.job_id, self.entries[run.job_id].job.cost_s), starts_max)
            if held := self._held_up.pop(self.entries[run.job_id].engine, None):
                self._up(held, starts_max)

    def _up(self, event: EngineUp, starts_max: int) -> None:
        """An engine comes up; one that was silent or is drained ends what it has before."""
        if is_busy(self._line, event.engine):
            self._held_up[event.engine] = event
        else:
            self._tell(event, starts_max)

    def _tell(self, event: PolicyEvent, starts_max: int) -> None:
        if not self.is_cut:
            self._carry_out(self._line.on(event, self._now), starts_max)

    def _carry_out(self, decisions: Iterable[Decision], starts_max: int) -> None:
        for decision in decisions:
            if self.is_cut:
                return
            if isinstance(decision, LoadModel):
                self._load(decision.engine, decision.model, decision.load_s)
            elif isinstance(decision, StartAttempt):
                self._start(self.stuck.pop(decision.job_id), decision.engine)
                self._count(self.starts[-1].entry, starts_max)

    def _start(self, entry: Entry, engine: str) -> None:
        at_s = self._now - self._begin
        warm_s, load_s, is_loading = self._loads.get((engine, entry.job.model), (-1.0, 0.0, False))
        if at_s - warm_s > _TOGETHER_S:  # not what it waited for at last
            load_s, is_loading = 0.0, False
        self.starts.append(_Start(entry, engine, at_s, load_s, is_loading))
        self._begin_rows(entry)

    def _load(self, engine: str, model: str, load_s: float, *, is_loading: bool = False) -> None:
        self._loads[engine, model] = self._now - self._begin + load_s, load_s, is_loading
        self._push(load_s, _WARM, engine, model)

    def _count(self, entry: Entry, starts_max: int) -> None:
        key = entry.job.tier, entry.kind
        if key in self._left:
            self._left[key] -= 1
        self.is_cut = len(self.starts) >= starts_max or self._left.get(key) == 0

    def _begin_rows(self, entry: Entry) -> None:
        if entry.engine not in self._engines:
            self._engines[entry.engine] = Sharing(self._present.pace(entry.engine))
        job = entry.job
        image_s = max(0.0, self._present.left(job)) / job.rows
        self._push(0.0, _JOIN, entry.engine, Run(job.job_id, job.rows, image_s))

    def _push_end(self, engine: Sharing, at: float) -> None:
        self._push(at - self._now, _END, engine, engine.version)

    def _push(self, in_s: float, what: int, one: Any, other: Any) -> None:
        self._order += 1
        heappush(self._heap, (self._now + in_s, self._order, what, one, other))


def _aged(found: Outlook, age_s: float) -> Outlook:
    """The same, so much later."""
    if found.done_s is None or found.start_s is None:
        return found
    later_s = max(0.0, found.start_s - age_s)
    return replace(found, start_s=later_s, done_s=max(0.0, found.done_s - age_s))


def _owner(job: JobQueued) -> tuple[str, str]:
    return job.tenant, job.user


def _ahead(entries: list[Entry]) -> str:
    """ "2 turbo and 3 fast jobs": those who start before, by tier."""
    counts = Counter(entry.job.tier for entry in entries)
    parts = [f"{counts[tier]:,} {tier}" for tier in Tier if counts[tier]]
    whole = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
    return f"{whole} {'job' if len(entries) == 1 else 'jobs'}"


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"


def _about(seconds: float) -> str:
    return f"about {max(1, round(seconds)):,} s"
