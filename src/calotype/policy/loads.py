"""Decides which models are loaded where: for jobs that wait, and for those to be expected.

A model is *wanted* if jobs wait for it and it is warm or loading nowhere, or if its line is longer,
on all its homes together, than another load would take. Three steps after each event, in order:

1. **Room that costs nobody who waits.** Wanted models are taken in the fair order of their first
   jobs. Each is loaded where the models that have to make room (no rows on them, nobody waits for
   them, not pinned) are worth least; an idle engine before a busy one.
   A job whose adapters have no room beside its model, though it is warm, has it made there first of
   all: then it waits for no load.
2. **A turn of one's own.** If there is no such place, the models that are in use go on, and jobs
   whose model is warm pass: so often and so long (``affinity_passes_max``, ``affinity_s_max``, or
   as long as the load takes). Then, when it is first of those that have no home, or fewer than the
   shares of tiers and tenants make due, an engine is *claimed*: nothing more starts there of the
   models that have to leave, and once their rows are done the load begins. What was loaded for
   jobs that still wait stays as long as its load took, so that no device does little but load. A
   promoted job claims at once, and that too. If no engine can be claimed for it, the next one has
   its turn. So a cold model's job waits no longer than its turn, that patience, the time of one
   load, the longest job on that engine and its own load.
3. **For those to come.** On an idle engine, while nobody waits that could be helped: the model of
   which another home saves most waiting by what is to be expected (``predict``), if it saves more
   than those that make room for it, by more than the load. It evicts nothing that a waiting job
   needs.

What was loaded for waiting jobs stays until one of them has started there. What couldn't be loaded
is tried again, on another engine first, and rests behind a breaker after some failures in a row.

Each decision looks at a bounded number of engines (``homes.ready``), and at the models that wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy

from calotype.core.decisions import LoadModel
from calotype.core.events import CopyLost, MemorySeen, ModelKnown, ModelRemoved
from calotype.core.limits import PREDICTION_S, PREDICTION_WORTH_S
from calotype.policy.engines import Engine
from calotype.policy.fair import TICKS_PER_S
from calotype.policy.lanes import Entry
from calotype.policy.place import Fleet
from calotype.policy.predict import Keeper
from calotype.policy.queue import Queue
from calotype.policy.starts import Starts
from calotype.policy.swaps import Price, Swaps

_ROUNDING = 0.25  # of a home that a kind may have more than it is due: less would change hands
_TURNS = 32  # kinds that are tried at most, if no engine could make room for those before
_FORESEEN = 4  # models that save most, of which one is loaded if any is worth it


class Loads:
    """What waits by model, and what is done about it."""

    def __init__(self, fleet: Fleet, queue: Queue, keeper: Keeper, starts: Starts) -> None:
        """``starts`` is the line's own: what kinds wait is read there."""
        self.keeper, self._foresees = keeper, keeper.foresees
        self._swaps = Swaps(fleet, keeper, queue.rules.fragmentation_max)
        self._fleet, self._queue, self._starts = fleet, queue, starts
        # By kind that wants a model: since when, and how many jobs had started then.
        self._since: dict[str, tuple[float, int]] = {}
        self._in_vain: dict[str, int] = {}  # by kind: no place was found at this version
        self._predict_at = float("-inf")  # not before
        self._now = 0.0  # of the decision that is being made
        self.started = 0  # jobs, in all
        self.has_released = False  # by the last decision: a model that was to leave stays

    def copy(self, fleet: Fleet, queue: Queue, starts: Starts) -> Loads:
        """The same for a copy of the line, to play forward; foresight loads nothing there."""
        mine = copy(self)
        mine._fleet, mine._queue, mine._starts = fleet, queue, starts
        mine._swaps = self._swaps.copy(fleet)
        mine._since, mine._in_vain = dict(self._since), dict(self._in_vain)
        mine._foresees = False
        return mine

    # What is told.

    def waits(self, entry: Entry) -> None:
        """A job waits, for the first time or again."""
        self._swaps.count(entry, 1)

    def leaves(self, entry: Entry) -> None:
        """A job waits no longer."""
        self._swaps.count(entry, -1)

    def failed(self, engine: str, model: str, reason: str, now: float) -> None:
        """A load came to nothing."""
        self._swaps.failed(engine, model, reason, now)

    def succeeded(self, engine: str, model: str, now: float) -> None:
        """A model is warm."""
        self._swaps.succeeded(engine, model, now)

    def told(self, event: ModelRemoved | CopyLost | MemorySeen) -> None:
        """What became of a model, of a copy in host memory, or of a device's free memory."""
        match event:
            case ModelRemoved(model):  # it can be loaded nowhere any more, and nobody will ask
                self._fleet.homes.forget(model, self._fleet.engines())
                self.keeper.removed(model)
            case CopyLost(engine, model):
                self._fleet.copy_lost(engine, model)
            case MemorySeen():
                self._swaps.seen(event)

    def trouble(self, model: str) -> str:
        """Why a model that no engine has isn't loaded, as far as a load of it failed; or empty."""
        return self._swaps.trouble(model)

    @property
    def deadline(self) -> float | None:
        """When to decide again though nothing happened."""
        return self._swaps.deadline

    def rest(self) -> None:
        """Nothing is to be decided until something happens."""
        self._swaps.deadline = None

    # What is done.

    def decide(self, now: float) -> list[LoadModel]:
        """The loads that begin now; call it when every job has started that can."""
        self._now, self.has_released = now, False
        self._swaps.begin_turn(now)
        homes = self._fleet.homes
        for engine in list(homes.claimed.values()):
            self._take_claimed(engine)
        for engine in list(homes.unpinned.values()):
            self._load_pinned(engine)
        is_wanting = bool(self._swaps.waiting) and self._for_waiting()
        self._swaps.bring_back()
        self._swaps.torn()
        is_time = self._foresees and self._now >= self._predict_at
        if is_time and not is_wanting and homes.has_idle:
            self._for_those_to_come()
        return self._swaps.made

    def _for_waiting(self) -> bool:
        """Load what waiting jobs want; whether some still want a model."""
        wanting = [kind for kind in self._queue.kinds if self._is_wanting(kind)]
        if not wanting:
            self._since.clear()
            self._in_vain.clear()
            return False
        left = [kind for kind in wanting if self._in_vain.get(kind) != self._fleet.homes.version]
        while left and (found := self._queue.first(left)):
            entry, _ = found
            left.remove(entry.kind)
            if self._load_beside(entry):
                wanting = [kind for kind in wanting if self._is_wanting(kind)]
            else:
                self._in_vain[entry.kind] = self._fleet.homes.version
        self._in_turn(self._short(wanting))
        return bool(wanting)

    def _short(self, wanting: list[str]) -> list[str]:
        """Of kinds that want a model, those that have none, or fewer homes than they are due."""
        homes = {kind: self._homes(kind) for kind in wanting}
        if not any(homes.values()):
            return wanting
        counts = self._fleet.homes.counts
        due, whole = self._queue.due(), sum(counts.get(model, 0) for model in self._swaps.waiting)
        return [
            kind
            for kind, count in homes.items()
            if not count or count + 1 <= due.get(kind, 0.0) * whole + _ROUNDING
        ]

    def _homes(self, kind: str) -> int:
        return self._fleet.homes_of(self._starts.kind(kind))

    def _is_wanting(self, kind: str) -> bool:
        homes, of = self._fleet.homes, self._starts.kind(kind)
        model = of.model
        if not homes.could_hold(model, beyond=of.beyond):
            return False
        if not (count := self._homes(kind)):
            return True
        if count >= homes.engines:
            return False
        return self._swaps.waiting[model].cost > homes.known[model].load_s * count * TICKS_PER_S

    def _load_beside(self, entry: Entry) -> bool:
        """Load a waiting job's model where it takes nothing from others that wait, if it can be."""
        known, kind = self._fleet.homes.known[entry.job.model], self._starts.kind(entry.kind)
        is_cold = not self._homes(entry.kind)
        best: tuple[bool, tuple[float, float], int, int] | None = None
        place: tuple[Engine, tuple[str, ...]] | None = None
        for engine in self._places(known, entry):
            is_there = known.model in engine.models
            if not (engine.fits(entry.rows) if is_there else is_cold or engine.is_open):
                continue  # room at a home, or another home, is of use where rows are free
            evict = self._swaps.leaving(engine, known, room=kind.room_on(engine))
            if evict is None:
                continue
            key = (not is_there, self._swaps.most_worth(evict), engine.rows, engine.order)
            if best is None or key < best:
                best, place = key, (engine, evict)
            if not evict and not engine.rows:
                break
        if place is None:
            return False
        self._begin(*place, known, kind.room_on(place[0]))
        return True

    def _begin(self, engine: Engine, evict: tuple[str, ...], known: ModelKnown, room: int) -> None:
        """Load a waiting job's model; or make room beside it, and the job can start at once."""
        self.has_released |= known.model in engine.models
        self._swaps.begin(engine, evict, known, room=room)

    def _in_turn(self, short: list[str]) -> None:
        """Claim an engine for the kind whose turn it is, once others have passed it long enough.

        While no engine could make room for it, it is the next one's turn.
        """
        homes, begun, left = self._fleet.homes, (self._now, self.started), list(short)
        since = {kind: self._since.get(kind, begun) for kind in short if not self._homes(kind)}
        for _ in range(min(len(short), _TURNS if homes.has_ready else 1)):
            if (found := self._queue.first(left)) is None:
                break
            entry, why = found
            # One that has homes is patient only while it is first.
            mine = since.setdefault(entry.kind, self._since.get(entry.kind, begun))
            price = Price.ANY if why == "promoted" else Price.EARNED
            if price is Price.EARNED and self._is_patient(entry.job.model, *mine):
                break
            if self._claim(entry, price):
                del since[entry.kind]
                break
            left.remove(entry.kind)
        self._since = since

    def _is_patient(self, model: str, since: float, started: int) -> bool:
        """Whether others may still pass the jobs of a model that is wanted since then."""
        rules, homes = self._queue.rules, self._fleet.homes
        load_s = homes.known[model].load_s
        until = since + max(rules.affinity_s_max, load_s) if rules.affinity_s_max else since
        passes_max = rules.affinity_passes_max * homes.engines
        if self._now < until and self.started - started < passes_max:
            self._swaps.wake(until)
            return True
        return False

    def _claim(self, entry: Entry, price: Price) -> bool:
        known, kind = self._fleet.homes.known[entry.job.model], self._starts.kind(entry.kind)
        best: tuple[bool, int, bool, tuple[float, float], int] | None = None
        place: tuple[Engine, tuple[str, ...]] | None = None
        for engine in self._places(known, entry):
            evict = self._swaps.leaving(engine, known, price, kind.room_on(engine))
            if evict is None:
                continue
            worth, is_there = self._swaps.most_worth(evict), known.model in engine.models
            in_use = sum(engine.using.get(name, 0) for name in evict)
            key = (any(map(self._is_last, evict)), in_use, not is_there, worth, engine.order)
            if best is None or key < best:
                best, place = key, (engine, evict)
        if place is None:
            return False
        engine, evict = place
        self._fleet.homes.claim(engine, known.model, evict, kind.room_on(engine))
        self._take_claimed(engine)
        return True

    def _take_claimed(self, engine: Engine) -> None:
        """Begin the load that a claim is for, if all that had to leave has left."""
        claim = engine.claim
        assert claim is not None, "an engine that isn't claimed"
        if claim.model not in self._swaps.waiting:
            self._release(engine)
            return
        known = self._fleet.homes.known[claim.model]
        if self._swaps.fits(engine, known, claim.room):
            self._release(engine)  # room came by itself: a job with large adapters has ended there
            if known.model not in engine.models:
                self._begin(engine, (), known, claim.room)
            return
        if any(engine.using.get(name) for name in claim.leaving):
            return
        evict = tuple(name for name in claim.leaving if engine.ledger and name in engine.ledger)
        if engine.ledger is None or not engine.ledger.minus(*evict).fits(known, claim.room):
            self._release(engine)  # more is needed than was known: another claim will tell
            return
        self._begin(engine, evict, known, claim.room)

    def _release(self, engine: Engine) -> None:
        self._fleet.release(engine)
        self.has_released = True

    def _load_pinned(self, engine: Engine) -> None:
        for name in engine.pinned:
            known = self._fleet.homes.known.get(name)
            if name in engine.models or known is None or not self._swaps.may_try(engine, name):
                continue
            evict = self._swaps.leaving(engine, known)
            if evict is not None:
                self._swaps.begin(engine, evict, known, "pinned")
                return

    def _for_those_to_come(self) -> None:
        self._predict_at = self._now + PREDICTION_S
        homes, gains = self._fleet.homes, list[tuple[float, ModelKnown]]()
        for known in homes.known.values():
            count = homes.counts.get(known.model, 0)
            if count < homes.engines:
                gains.append((self.keeper.saves(known, count, self._now), known))
        gains.sort(key=lambda it: -it[0])
        for gain, known in gains[:_FORESEEN]:
            if self._load_ahead(known, gain):
                return

    def _load_ahead(self, known: ModelKnown, gain: float) -> bool:
        """Load a model where it saves most more than what makes room, if that is worth a load."""
        best, place = 0.0, None
        if gain * PREDICTION_WORTH_S <= known.load_s:
            return False
        for engine in self._fleet.homes.ready(known, idle_only=True):
            if known.model in engine.models or not self._swaps.may_try(engine, known.model):
                continue
            evict = self._swaps.leaving(engine, known)
            if evict is None or engine.ledger is None:
                continue
            lost = sum(self._swaps.kept_by(name) for name in evict)
            load_s = engine.ledger.load_s(known, engine.host)
            left = (gain - lost) * PREDICTION_WORTH_S - load_s
            if left > best:
                best, place = left, (engine, evict)
            if not evict:
                break
        if place is None:
            return False
        self._swaps.begin(*place, known, "predicted")
        return True

    def _places(self, known: ModelKnown, entry: Entry) -> Iterator[Engine]:
        """Engines that may be told to load the model of a waiting job, and before them those that
        have it and could make room for its adapters."""
        kind = self._fleet.in_force(self._starts.kind(entry.kind))
        ready: Iterable[Engine] = self._fleet.homes.ready(known)
        if kind.room:
            ready = sorted(ready, key=lambda one: known.model not in one.models)
        for engine in ready:
            if not kind.may_use(engine):
                continue
            if known.model in engine.models:
                if not kind.has_room(engine):
                    yield engine
            elif self._swaps.may_try(engine, known.model):
                yield engine

    def _is_last(self, model: str) -> bool:
        """Whether jobs wait for a model that has no other home."""
        return model in self._swaps.waiting and self._fleet.homes.counts.get(model, 0) < 2
