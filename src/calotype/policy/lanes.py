"""Waiting jobs of one tier, by kind, tenant and user: whose job is first, in O(log n).

A tree of *races*. A race is a heap of entrants by (virtual time, arrival of its first job): the
kinds of a tier race, in a kind its tenants, in a tenant its users; at the leaf jobs wait in order
of arrival. Tenants' and users' accounts are shared by all kinds: whoever was served in one kind has
moved on in every other.

Virtual times mostly grow, so a race doesn't follow them: a key that has grown too small is mended
when it surfaces. One that must become smaller (a charge taken back) is *touched*: entered again,
and the older key is passed over when it surfaces. Both cost one step of a heap for each change.

A job that leaves is only marked; ``Races.sweep`` drops the marked ones once they are the most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from calotype.core.events import JobQueued

if TYPE_CHECKING:
    from calotype.policy.tiers import TierAccount

_DEAD_KEPT = 1_000  # jobs that left and still lie in the heaps, before a sweep is worth it


class Account:
    """What a tenant or a user was charged, in ticks, and whether it waits or runs."""

    __slots__ = ("is_resumed", "running", "virtual", "waiting")

    def __init__(self, virtual: int = 0, *, is_resumed: bool = False) -> None:
        self.virtual = virtual
        self.waiting = 0  # jobs
        self.running = 0  # jobs charged and not yet settled
        self.is_resumed = is_resumed  # restored as waiting: its first job is no return from idle

    def matters(self, clock: int) -> bool:
        """False if it says no more than one made afresh would."""
        return self.waiting > 0 or self.running > 0 or self.is_resumed or self.virtual > clock


class Tenant(Account):
    """One tenant within one tier."""

    __slots__ = ("clock", "kinds", "users")

    def __init__(self, virtual: int = 0, *, is_resumed: bool = False) -> None:
        super().__init__(virtual, is_resumed=is_resumed)
        self.clock = 0  # of its users
        self.users: dict[str, Account] = {}
        self.kinds: dict[str, None] = {}  # in which it may have jobs waiting


class Entry:
    """A job as the line holds it, waiting or running."""

    __slots__ = (
        "attempt",
        "avoid",
        "cost",
        "deaths",
        "engine",
        "is_late",
        "is_waiting",
        "job",
        "kind",
        "passed",
        "passed_at",
        "queued_at",
        "refused",
        "room",
        "rows",
        "seq",
        "spent",
        "tenant",
        "tier",
        "user",
        "whole",
        "why",
    )

    def __init__(self, job: JobQueued, seq: int, cost: int, queued_at: float = 0.0) -> None:
        self.job = job
        self.seq = seq  # order of arrival, kept when the job comes back
        self.whole = cost  # ticks of all of it
        self.cost = cost  # ticks charged when it starts: of what is left to do
        self.spent = 0  # ticks charged for what engines did that handed it back
        self.queued_at = queued_at  # seconds
        self.kind = job.model  # jobs of one kind can start in the same places
        self.attempt = job.attempt  # attempts begun so far
        self.is_waiting = False
        self.is_late = False  # has waited its tier's maximum
        self.why = ""  # it started out of turn, if it did: a word of decisions.WHY
        self.passed = 0  # by how many whose model was warm
        self.passed_at = 0.0  # when the first one did, seconds
        self.avoid: tuple[str, ...] = ()  # engines where it failed
        self.deaths = 0  # engines that died while it ran there
        self.room = 0  # bytes that its adapters were found to need free beside its model
        self.refused = 0  # how often an engine had no room for them, and nobody was to blame
        self.engine = ""  # where it runs
        self.rows = 0  # taken of that engine
        self.tier: TierAccount  # these three are set when it waits
        self.tenant: Tenant
        self.user: Account

    def again(self, *, died: bool) -> Entry:
        """The same job for another attempt, elsewhere if it can be: it may start on time again.

        What was done of it by an engine before, and kept, is begun from again if this one ``died``.
        """
        other = self._anew(self.cost if died else self.whole)
        other.spent = self.spent if died else 0
        other.attempt, other.deaths = self.attempt, self.deaths + died
        other.avoid = (*(name for name in self.avoid if name != self.engine), self.engine)
        return other

    def returned(self, used: int, cost: int) -> Entry:
        """The same job, whose engine goes or has no room for it, for what is left of it: no attempt
        has failed."""
        other = self._anew(cost)
        other.spent = self.spent + used
        other.attempt, other.deaths, other.avoid = self.attempt - 1, self.deaths, self.avoid
        return other

    def moved(self) -> Entry:
        """The same job, still waiting, to wait as one of another kind."""
        other = self._anew(self.cost)
        other.spent = self.spent
        other.attempt, other.deaths, other.avoid = self.attempt, self.deaths, self.avoid
        other.passed, other.passed_at = self.passed, self.passed_at
        return other

    def _anew(self, cost: int) -> Entry:
        """Another object, since this one still lies, marked, in the heaps."""
        other = Entry(self.job, self.seq, self.whole, self.queued_at)
        other.cost, other.is_late = cost, self.is_late
        other.room, other.refused = self.room, self.refused
        return other

    def __lt__(self, other: object) -> bool:
        return False  # met only by what it was in an earlier attempt


class _Jobs:
    """Jobs of one kind and user, in order of arrival: a leaf.

    They come in that order, but for those that come back after a lost attempt.
    """

    __slots__ = ("_back", "_line", "at", "head", "name", "seq", "user")

    def __init__(self, name: str, user: str) -> None:
        self.head: Entry | None = None  # the first as of the last look; it may have left since
        self.name = name
        self.user = user
        self.at, self.seq = 0, -1  # its key in the race above; -1: it isn't entered
        self._line: deque[Entry] = deque()
        self._back: list[tuple[int, Entry]] = []

    def first(self) -> Entry | None:
        line, back = self._line, self._back
        while line and not line[0].is_waiting:
            line.popleft()
        while back and not back[0][1].is_waiting:
            heappop(back)
        if back and (not line or back[0][0] < line[0].seq):
            self.head = back[0][1]
        else:
            self.head = line[0] if line else None
        return self.head

    def add(self, entry: Entry) -> bool:
        """True if it is the first now."""
        if self._line and entry.seq < self._line[-1].seq:
            heappush(self._back, (entry.seq, entry))
        else:
            self._line.append(entry)
        return self.first() is entry

    def as_race(self) -> _Race:
        """A race of users with this one in it: another has come."""
        self.seq = -1
        race = _Race(self.name, 2)
        for entry in sorted(self.entries(), key=lambda one: one.seq):
            race.add(entry)
        return race

    def touch(self, entry: Entry) -> None:
        """Nothing to enter again: jobs don't move."""

    def entries(self) -> Iterator[Entry]:
        held = (*self._line, *(entry for _, entry in self._back))
        return (entry for entry in held if entry.is_waiting)

    def __lt__(self, other: object) -> bool:
        return False  # met only by its own older key


class _Race:
    """Entrants by virtual time, the furthest behind first; ties to the job that came first."""

    __slots__ = ("_depth", "_heap", "at", "entrants", "name", "seq")
    head = None  # whose turn it is changes with what others are charged: looked for each time

    def __init__(self, name: str, depth: int) -> None:
        self.name = name
        self.at, self.seq = 0, -1  # its key in the race above; -1: it isn't entered
        self._depth = depth  # 0: kinds race, 1: tenants, 2: users
        self._heap: list[tuple[int, int, _Race | _Jobs]] = []
        self.entrants: dict[str, _Race | _Jobs] = {}

    def first(self) -> Entry | None:
        """The job whose turn it is; None when nobody waits."""
        heap, is_last = self._heap, self._depth == 2
        while heap:
            at, seq, entrant = heap[0]
            if entrant.seq != seq or entrant.at != at:
                heappop(heap)  # entered again since, further ahead
                continue
            entry = entrant.head
            if entry is None or not entry.is_waiting:
                entry = entrant.first()
            if entry is None:
                heappop(heap)
                entrant.seq = -1
                del self.entrants[entrant.name]
                continue
            now = entry.user.virtual if is_last else entry.tenant.virtual
            if now == at and entry.seq == seq:
                return entry
            entrant.at, entrant.seq = now, entry.seq
            heapreplace(heap, (now, entry.seq, entrant))
        return None

    def add(self, entry: Entry) -> bool:
        """Let a job wait here; True if the race's first may have changed."""
        name = self._name(entry)
        entrant = self.entrants.get(name)
        if entrant is None:
            leaf = self._depth > 0  # a tenant of one user is a leaf as well
            entrant = _Jobs(name, entry.job.user) if leaf else _Race(name, 1)
            self.entrants[name] = entrant
        elif self._depth == 1 and isinstance(entrant, _Jobs) and entrant.user != entry.job.user:
            entrant = self.entrants[name] = entrant.as_race()
        if not entrant.add(entry) and entrant.seq >= 0:
            return False
        self._enter(entrant)
        return True

    def touch(self, entry: Entry) -> None:
        """The accounts of this entry's owners have become smaller, or a first job has gone."""
        entrant = self.entrants.get(self._name(entry))
        if entrant is not None:
            entrant.touch(entry)
            self._enter(entrant)

    def of(self, name: str) -> _Race | _Jobs | None:
        """The entrant of that name."""
        return self.entrants.get(name)

    def entries(self) -> Iterator[Entry]:
        """Every job that waits here, in no useful order."""
        for entrant in self.entrants.values():
            yield from entrant.entries()

    def _name(self, entry: Entry) -> str:
        return (entry.kind, entry.job.tenant, entry.job.user)[self._depth]

    def _enter(self, entrant: _Race | _Jobs) -> None:
        entry = entrant.first()
        if entry is None:
            return  # found out and dropped when it surfaces
        at = entry.user.virtual if self._depth == 2 else entry.tenant.virtual
        if entrant.seq < 0 or (at, entry.seq) < (entrant.at, entrant.seq):
            entrant.at, entrant.seq = at, entry.seq
            heappush(self._heap, (at, entry.seq, entrant))
            if len(self._heap) > 2 * len(self.entrants) + _DEAD_KEPT:
                self._heap = [(one.at, one.seq, one) for one in self.entrants.values()]
                heapify(self._heap)

    def __lt__(self, other: object) -> bool:
        return False  # met only by its own older key


class Races:
    """The waiting jobs of one tier, or (not ``is_whole``) some of them a second time."""

    def __init__(self, *, is_whole: bool = True) -> None:
        self._is_whole = is_whole
        self._kinds = _Race("", 0)
        self.live = self._dead = 0  # that wait; that left and are still in the heaps

    def first(self, kinds: Collection[str] | None) -> Entry | None:
        """The job whose turn it is among those of these kinds; None: of any kind."""
        if kinds is None:
            return self._resolved(self._kinds.first(), None)
        if len(kinds) == 1:
            (kind,) = kinds
            race = self._kinds.of(kind)
            return race.first() if race is not None else None
        best: Entry | None = None
        at = seq = 0
        races = self._kinds.entrants
        for kind in kinds:
            if (race := races.get(kind)) is None or (entry := race.first()) is None:
                continue
            now = entry.tenant.virtual
            if best is None or now < at or (now == at and entry.seq < seq):
                best, at, seq = entry, now, entry.seq
        return self._resolved(best, kinds)

    def add(self, entry: Entry) -> None:
        """Let a job wait; its accounts are set."""
        entry.tenant.kinds[entry.kind] = None
        self._kinds.add(entry)
        self.live += 1

    def left(self) -> None:
        """A job was marked as no longer waiting."""
        self.live -= 1
        self._dead += 1
        if self._dead > self.live + _DEAD_KEPT:
            self.sweep()

    def touch(self, entry: Entry) -> None:
        """The entry's owners were charged less: they may come sooner, in all their kinds."""
        for kind in list(entry.tenant.kinds):
            race = self._kinds.of(kind)
            jobs = race.of(entry.job.tenant) if isinstance(race, _Race) else None
            first = jobs.first() if jobs is not None else None
            if first is None:
                if self._is_whole:
                    del entry.tenant.kinds[kind]
                continue
            if isinstance(jobs, _Race) and (mine := jobs.of(entry.job.user)) is not None:
                first = mine.first() or first
            self._kinds.touch(first)

    def sweep(self) -> None:
        """Drop what was only marked: O(n), once in n departures."""
        kept = sorted(self.entries(), key=lambda entry: entry.seq)
        self._kinds, self.live, self._dead = _Race("", 0), 0, 0
        for entry in kept:
            self.add(entry)

    def tenants(self) -> dict[str, int]:
        """How many tenants wait by kind; some may have left since."""
        return {
            kind: len(race.entrants)
            for kind, race in self._kinds.entrants.items()
            if isinstance(race, _Race)
        }

    def entries(self) -> Iterator[Entry]:
        """Every job that waits, in no useful order."""
        return self._kinds.entries()

    def _resolved(self, entry: Entry | None, kinds: Iterable[str] | None) -> Entry | None:
        """Kinds race by tenant; where a tenant has several users, the furthest behind goes."""
        if entry is None or len(entry.tenant.users) < 2 or len(entry.tenant.kinds) < 2:
            return entry
        allowed = entry.tenant.kinds if kinds is None else kinds
        best = entry
        for kind in allowed:
            race = self._kinds.of(kind)
            jobs = race.of(entry.job.tenant) if isinstance(race, _Race) else None
            one = jobs.first() if jobs is not None else None
            if one is not None and (one.user.virtual, one.seq) < (best.user.virtual, best.seq):
                best = one
        return best
