"""The line: which job starts next, on which engine, and what becomes of those that fail.

It composes ``fair`` (whose turn), ``place`` (where), ``starts`` (the next start by those two),
``loads`` (what is loaded there) and ``retry`` (again, or not). The shell feeds it events and
carries out its decisions in order; every ``StartAttempt`` counts as started.

What the shell owes it:

- One end for each attempt: ``JobSettled``, or ``AttemptFailed``, or the engine's ``EngineGone``.
  Events carry no token, so the shell drops reports of attempts that are over (by the token in the
  row's id) before they come here.
- ``ModelKnown`` before the first job that needs the model, and ``TimePassed`` every
  ``LINE_TICK_S`` though nothing is due, if ``loads_on_demand``: what is to be expected changes with
  the time of day.
- A running job's ``JobCancelled`` frees its rows at once, so send ``CancelRow`` before carrying out
  the decisions. A ``JobSettled`` may follow: it corrects the charge to what was really used.
- After a restart: ``Line(standing)`` if the standing was kept, then ``JobQueued`` for each
  unfinished job, oldest first. Then the next decision is the one the old line would have made.

A job's last attempt has its engine to itself. When an engine dies, all jobs on it have lost an
attempt, though one alone may have killed it; alone, it can take no neighbour down with it, and what
is lost then is lost by its own doing.

A job that fails is tried again on another engine, if one is up that could run it: it then waits for
that one, though the engine where it failed idles.

A job starts where its model is warm, and only where there is room for its LoRAs and ControlNets
beside the models that are there now. One that has no such place lets others pass, but only so often
and so long (``AFFINITY_PASSES_MAX``, ``AFFINITY_S_MAX``); then an engine is emptied for it
(``loads``). If an engine finds less room than was counted, and other models lie there, that is
nobody's fault: the job waits for more room, and no attempt is lost (``ROOM_REFUSALS_MAX`` times).

An engine that is *paused* (suspect, or slow) keeps what it runs and is given nothing more. So is
one that had *notice* to go (``notices``): it hands back what doesn't end in time (``HandBack``).
While pictures can't be judged nothing starts at all (``StartsBounded``): what is made would be
dropped.

Events about jobs it doesn't know (late ones, or twice) change nothing and are no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calotype.core.decisions import (
    Decision,
    HandBack,
    PromoteJob,
    RequeueJob,
    ReturnJob,
    StartAttempt,
)
from calotype.core.events import (
    AttemptFailed,
    CopyLost,
    EngineGone,
    EngineNotice,
    EnginePaused,
    EngineResumed,
    EngineUp,
    JobCancelled,
    JobHandedBack,
    JobQueued,
    JobSettled,
    LoadFailed,
    MemorySeen,
    ModelGone,
    ModelKnown,
    ModelRemoved,
    ModelsPinned,
    ModelWarmed,
    PolicyEvent,
    StartsBounded,
    TimePassed,
)
from calotype.core.limits import ATTEMPTS_MAX, POSITIONS_EXACT_MAX, ROOM_REFUSALS_MAX
from calotype.policy.engines import Device, seen
from calotype.policy.fair import FairQueue, ticks
from calotype.policy.lanes import Entry
from calotype.policy.loads import Loads
from calotype.policy.notices import Notices
from calotype.policy.place import Fleet
from calotype.policy.predict import Foresight, Keeper
from calotype.policy.queue import Queue
from calotype.policy.retry import after_failure
from calotype.policy.rules import Rules
from calotype.policy.starts import Starts

_CANCELLED_KEPT_MAX = 1_000  # cancelled in mid-run, their measured cost not yet told


class Line:
    """All jobs that wait or run, and the engines they run on."""

    def __init__(
        self,
        standing: Mapping[str, Any] | None = None,
        rules: Rules | None = None,
        queue: Queue | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        """An empty line; ``standing`` is what ``standing()`` gave before a restart."""
        self._queue: Queue = queue or FairQueue(standing, rules)
        self._fleet = Fleet()
        self._fits_version = 0  # of the fleet's homes, for which waiting jobs' kinds are right
        self._waiting: dict[str, Entry] = {}
        self._returned: dict[str, Entry] = {}  # of those that wait: charged for what was done
        self._running: dict[str, Entry] = {}
        self._cancelled: dict[str, Entry] = {}  # charged, rows freed, JobSettled not yet seen
        self._seq = 0
        self._positions: dict[str, int] | None = None  # None: stale
        self._notices = Notices()
        self._starts = Starts(self._fleet, self._queue)
        self._loads = Loads(self._fleet, self._queue, keeper or Foresight(), self._starts)

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def loads_on_demand(self) -> bool:
        """Whether an engine is up that is told what to load."""
        return self._fleet.homes.engines > 0

    def on(self, event: PolicyEvent, now: float) -> list[Decision]:
        """Take in a fact; answer what to do, in order. ``now`` in seconds, never going back."""
        self._positions = None
        if type(event) is JobSettled:  # the most frequent by far
            decisions: list[Decision] = []
            self._settle(event.job_id, event.device_s)
        else:
            decisions = self._absorb(event, now)
            if self._fits_version != self._fleet.homes.fits_version:
                self._sort_anew()
        for engine in self._notices.due(now):
            decisions += [HandBack(job, engine) for job in self._fleet.jobs_on(engine)]
        if late := self._queue.promote(now):
            decisions += [PromoteJob(one.job.job_id, now - one.queued_at) for one in late]
        self._start_what_fits(decisions)
        if self._fleet.homes.engines:
            decisions += self._loads.decide(now)
            if self._loads.has_released:
                self._start_what_fits(decisions)
        else:
            self._loads.rest()
        return decisions

    def position(self, job_id: str) -> int | None:
        """The job's place in the line (1 starts next), or None if it doesn't wait.

        By fair order alone, as things stand: jobs that come later can go before it, and a job
        whose model no engine has warm keeps its place while others pass. The whole order is
        replayed when first asked after an event, O(n log n), and kept until the next one: some
        20 ms for 10,000 waiting jobs, then a look-up. With more than that waiting
        (``POSITIONS_EXACT_MAX``) it is an upper estimate, in O(1).
        """
        entry = self._waiting.get(job_id)
        if entry is None:
            return None
        if len(self._waiting) > POSITIONS_EXACT_MAX:
            return 1 + self._queue.ahead_most(entry)
        if self._positions is None:
            order = self._queue.order()
            self._positions = {each.job.job_id: at for at, each in enumerate(order, start=1)}
        return self._positions[job_id]

    def next_deadline(self) -> float | None:
        """When to be called again (``TimePassed``) though nothing happened; None: not needed."""
        of_loads, of_notices = self._loads.deadline, self._notices.next_deadline()
        due = (self._queue.next_deadline(), of_loads, of_notices)
        return min((at for at in due if at is not None), default=None)

    def trouble(self, model: str) -> str:
        """Why a load of a model that no engine has failed the last time; empty if none did."""
        return self._loads.trouble(model)

    def devices(self) -> list[Device]:
        """What lies on the engines that load on demand, in the order they came up."""
        return [seen(engine) for engine in self._fleet.engines() if engine.ledger is not None]

    def standing(self) -> dict[str, Any]:
        """What each tier, tenant and user has been charged, as JSON, to keep over a restart.

        Running jobs count as not started, and those that were handed back as never begun: after a
        restart they wait again, for all of it. Without it a rebuilt line is right in every other
        way, and begins even between tiers and tenants.
        """
        return self._queue.standing([*self._running.values(), *self._returned.values()])

    def _absorb(self, event: PolicyEvent, now: float) -> list[Decision]:
        match event:
            case JobQueued():
                return self._take_in(event, now)
            case JobCancelled():
                self._cancel(event.job_id)
            case AttemptFailed():
                if entry := self._running.get(event.job_id):
                    return self._fail(entry, event)
            case JobHandedBack():
                return self._take_back(event)
            case EngineUp() | EngineGone() | EnginePaused() | EngineResumed() | EngineNotice():
                return self._absorb_engine(event)
            case ModelKnown() | ModelWarmed() | LoadFailed() | ModelGone():
                self._absorb_model(event, now)
            case ModelRemoved() | CopyLost() | MemorySeen():
                self._loads.told(event)
            case ModelsPinned():
                self._fleet.pin(event.pinned)
            case StartsBounded():
                self._starts.running_max = event.running_max
            case TimePassed():
                pass
        return []

    def _absorb_engine(
        self, event: EngineUp | EngineGone | EnginePaused | EngineResumed | EngineNotice
    ) -> list[Decision]:
        match event:
            case EngineUp():
                # Up again without a word of its end: what ran there is lost all the same.
                decisions = self._lose_engine(event.engine)
                self._fleet.up(event)
                self._resize()
                return decisions
            case EngineGone():
                return self._lose_engine(event.engine, event.reason)
            case EnginePaused():
                self._fleet.pause(event.engine, is_paused=True)
            case EngineResumed() if event.engine not in self._notices:
                self._fleet.pause(event.engine, is_paused=False)
            case EngineNotice() if self._fleet.pause(event.engine, is_paused=True):
                self._notices.given(event.engine, event.until)
        return []

    def _absorb_model(
        self, event: ModelKnown | ModelWarmed | LoadFailed | ModelGone, now: float
    ) -> None:
        match event:
            case ModelKnown():
                self._fleet.known(event)
            case ModelWarmed(engine, model):
                self._fleet.warmed(engine, model)
                self._loads.succeeded(engine, model, now)
            case LoadFailed(engine, model, reason):
                if self._fleet.is_loading(engine, model):
                    self._fleet.failed(engine, model)
                    self._loads.failed(engine, model, reason, now)
            case ModelGone(engine, model):
                self._fleet.lost(engine, model)

    def _take_in(self, job: JobQueued, now: float) -> list[Decision]:
        assert job.rows > 0, "a job without images"
        if job.job_id in self._waiting or job.job_id in self._running:
            return []
        if job.attempt >= ATTEMPTS_MAX:  # lost its last attempt while the server was down
            return [after_failure(job.job_id, job.attempt, "every attempt was lost")]
        self._seq += 1
        entry = Entry(job, self._seq, ticks(job.cost_s), now - job.waited_s)
        entry.avoid, entry.deaths = job.avoid, job.deaths
        self._wait(entry)
        if self._fleet.homes.engines:
            who = f"{job.tenant}/{job.user}"
            self._loads.keeper.asked(job.model, who, job.cost_s, now)
        return []

    def _cancel(self, job_id: str) -> None:
        if entry := self._waiting.pop(job_id, None):
            self._queue.remove(entry)
            self._loads.leaves(entry)
            if self._returned.pop(job_id, None) is None:
                return
            entry.cost = 0  # it was charged for no start of its own, but for those before
        elif entry := self._running.get(job_id):
            self._end(entry)
        else:
            return
        self._cancelled[job_id] = entry
        if len(self._cancelled) > _CANCELLED_KEPT_MAX:
            self._cancelled.pop(next(iter(self._cancelled)))

    def _settle(self, job_id: str, device_s: float) -> None:
        if entry := self._running.get(job_id):
            self._end(entry)
        elif (entry := self._cancelled.pop(job_id, None)) is None:
            return
        # Of all engines together: some of that is charged already, if it was handed back.
        self._queue.correct(entry, ticks(device_s) - entry.spent)

    def _lose_engine(self, engine: str, reason: str = "") -> list[Decision]:
        lost = [self._running[job] for job in self._fleet.gone(engine)]
        self._resize()
        said = f"{engine} is gone: {reason}" if reason else f"{engine} is gone"
        if self._notices.over(engine):  # as it had said it would: no job is the cause
            return self._return([(entry, 0, entry.cost) for entry in lost], said)
        return self._lose(lost, said, died=True)

    def _fail(self, entry: Entry, event: AttemptFailed) -> list[Decision]:
        """An attempt failed; where others took the room, it is as if it hadn't been."""
        if event.short_bytes and entry.refused < ROOM_REFUSALS_MAX:
            room = self._fleet.lacked(entry.engine, entry.job.model, event.short_bytes)
            if room:
                entry.room, entry.refused = max(entry.room, room), entry.refused + 1
                return self._return([(entry, 0, entry.cost)], event.reason)
        return self._lose([entry], event.reason, is_retryable=event.is_retryable)

    def _take_back(self, event: JobHandedBack) -> list[Decision]:
        if (entry := self._running.get(event.job_id)) is None:
            return []
        said = f"{entry.engine} is being taken away"
        return self._return([(entry, ticks(event.device_s), ticks(event.left_s))], said)

    def _return(self, back: list[tuple[Entry, int, int]], reason: str) -> list[Decision]:
        """Let jobs wait again that are handed back: charged what they used there, for the rest."""
        for entry, used, _ in back:
            self._end(entry)
            self._queue.correct(entry, used)
        for entry, used, left in back:  # after all are taken back, as in ``_lose``
            self._wait(entry.returned(used, left))
        return [ReturnJob(entry.job.job_id, reason) for entry, _, _ in back]

    def _resize(self) -> None:
        fleet = self._fleet
        self._queue.resize(len(fleet), fleet.rows, fleet.rows_spare)

    def _lose(
        self, lost: list[Entry], reason: str, *, is_retryable: bool = True, died: bool = False
    ) -> list[Decision]:
        """Take back what the attempts were charged: losing them isn't the tenants' doing."""
        decisions: list[Decision] = []
        back = []
        for entry in lost:
            self._end(entry)
            answer = after_failure(
                entry.job.job_id,
                entry.attempt,
                reason,
                is_retryable=is_retryable,
                deaths=entry.deaths + died,
            )
            decisions.append(answer)
            is_kept = False
            if isinstance(answer, RequeueJob):
                back.append(other := entry.again(died=died))
                is_kept = other.spent > 0
            # What engines did that handed it back is charged while it is of use, and then no more.
            self._queue.correct(entry, 0 if is_kept else -entry.spent)
        for entry in back:  # after all are taken back, so that their order doesn't matter
            self._wait(entry)
        return decisions

    def _wait(self, entry: Entry) -> None:
        self._starts.waits(entry)
        self._waiting[entry.job.job_id] = entry
        if entry.spent:
            self._returned[entry.job.job_id] = entry
        self._queue.add(entry)
        self._loads.waits(entry)

    def _sort_anew(self) -> None:
        """Give waiting jobs the kinds they should have now that devices or models are others."""
        self._fits_version = self._fleet.homes.fits_version
        for entry in self._starts.misplaced(self._waiting.values()):
            other = entry.moved()
            self._starts.waits(other)
            self._waiting[other.job.job_id] = other
            if other.spent:
                self._returned[other.job.job_id] = other
            self._queue.add(other)  # before the other leaves: its owners never stop waiting
            self._queue.remove(entry)

    def _end(self, entry: Entry) -> None:
        job_id = entry.job.job_id
        del self._running[job_id]
        self._queue.settle(entry)
        self._fleet.free(entry.engine, job_id, entry.rows)

    def _start_what_fits(self, decisions: list[Decision]) -> None:
        starts = self._starts
        while self._waiting and (found := starts.next(len(self._running))):
            entry, why, engine = found
            job_id = entry.job.job_id
            del self._waiting[job_id]
            self._returned.pop(job_id, None)
            self._queue.start(entry, why)
            self._loads.leaves(entry)
            self._loads.started += 1
            entry.attempt += 1
            entry.engine = engine.name
            self._fleet.take(engine.name, job_id, starts.kind(entry.kind), entry.rows)
            self._running[job_id] = entry
            decisions.append(StartAttempt(job_id, engine.name, why))
