"""A copy of the line to play forward: the line itself is only read.

A line of 100,000 would take a second to copy, so of each tier and kind only the jobs that are first
by the fair order are taken: as many as can be among the next starts, found from the tops of the
heaps without sorting anything. All else that a decision looks at is copied whole: accounts of those
jobs' owners, tiers, engines, what runs. Until a cut kind has run out, the copy decides as the line
would if nobody came or went; who lies just behind a cut may in truth come a little sooner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from heapq import heappop, heappush, merge
from typing import Any

from calotype.core.limits import POSITIONS_EXACT_MAX
from calotype.core.nouns import Tier
from calotype.policy.fair import FairQueue
from calotype.policy.lanes import Account, Entry, Races, Tenant
from calotype.policy.line import Line
from calotype.policy.place import Fleet
from calotype.policy.tiers import TierAccount

_SLACK = 16  # jobs of each tier and kind that are taken beyond what shares say


@dataclass(frozen=True)
class Fork:
    """A copy of a line, with what its player has to know."""

    line: Line
    waiting: dict[str, Entry]  # by job, those that were taken
    running: list[Entry]
    cut: dict[tuple[Tier, str], int]  # tier and kind of which more wait: how many were taken


def fork(line: Line, starts_max: int) -> Fork:
    """Copy what the line's next ``starts_max`` decisions look at.

    Raises TypeError for a line with another queue than ours.
    """
    queue = line._queue
    if not isinstance(queue, FairQueue):
        raise TypeError(f"a line with a {type(queue).__name__} can't be played forward")
    other, copier = _own(queue), _Copier(queue)
    other._tiers, other.kinds = copier.tiers, {}
    for name in ("_list", "_floored", "_promoting"):
        setattr(other, name, [copier.tier(one) for one in getattr(queue, name)])
    taken, cut = _first_of_all(queue, starts_max)
    waiting = {}
    for entry in sorted(taken, key=lambda one: one.seq):
        mine = copier.entry(entry)
        mine.passed = entry.passed
        other.add(mine)
        waiting[mine.job.job_id] = mine
    for tier, account in copier.tiers.items():
        account.behind = queue._tiers[tier].behind
    mine_all = _own(line)
    running = {job: copier.entry(entry) for job, entry in line._running.items()}
    mine_all._queue, mine_all._fleet = other, _fleet(line._fleet)
    mine_all._waiting, mine_all._running, mine_all._cancelled = dict(waiting), dict(running), {}
    mine_all._notices = line._notices.copy()
    mine_all._starts = line._starts.copy(mine_all._fleet, other)
    mine_all._loads = line._loads.copy(mine_all._fleet, other, mine_all._starts)
    return Fork(mine_all, waiting, list(running.values()), cut)


def is_running(line: Line, job_id: str) -> bool:
    """Whether the job runs."""
    return job_id in line._running


def places(line: Line) -> Mapping[str, int]:
    """The place of every job that waits, as things stand; empty where there are too many."""
    first = next(iter(line._waiting), None)
    if first is None or line.waiting > POSITIONS_EXACT_MAX:
        return {}
    line.position(first)
    return line._positions or {}


def place_at_most(line: Line, job_id: str) -> int | None:
    """An upper estimate of the place of a job, in O(1); None if it doesn't wait."""
    entry = line._waiting.get(job_id)
    return 1 + line._queue.ahead_most(entry) if entry is not None else None


def model_of(line: Line, job_id: str) -> str:
    """The model of a job that waits."""
    return line._waiting[job_id].job.model


def engines_up(line: Line) -> int:
    """How many the line counts on."""
    return len(line._fleet)


def loading(line: Line) -> dict[tuple[str, str], float]:
    """When the models that are being loaded will be warm, by engine and model."""
    engines = line._fleet.engines()
    return {(it.name, it.loading.model): it.loading.until for it in engines if it.loading}


def is_busy(line: Line, engine: str) -> bool:
    """Whether an engine runs jobs."""
    return any(entry.engine == engine for entry in line._running.values())


def can_run(line: Line, model: str) -> bool:
    """Whether an engine is up, busy or not, that has the model or may load it."""
    homes = line._fleet.homes
    return model in homes.counts or homes.could_hold(model)


class _Copier:
    """Copies entries with their accounts, each account once."""

    def __init__(self, queue: FairQueue) -> None:
        self.tiers = {name: _emptied(tier) for name, tier in queue._tiers.items()}
        self._tiers = {id(tier): self.tiers[name] for name, tier in queue._tiers.items()}
        self._tenants: dict[int, Tenant] = {}
        self._users: dict[int, Account] = {}

    def tier(self, tier: TierAccount) -> TierAccount:
        return self._tiers[id(tier)]

    def entry(self, entry: Entry) -> Entry:
        mine = copy(entry)
        mine.tier = self.tier(entry.tier)
        if (tenant := self._tenants.get(id(entry.tenant))) is None:
            tenant = self._tenants[id(entry.tenant)] = copy(entry.tenant)
            tenant.users, tenant.kinds = {}, {}
            _unwaiting(tenant)
            mine.tier.tenants[entry.job.tenant] = tenant
        if (user := self._users.get(id(entry.user))) is None:
            user = self._users[id(entry.user)] = copy(entry.user)
            _unwaiting(user)
            tenant.users[entry.job.user] = user
        mine.tenant, mine.user = tenant, user
        return mine


def _unwaiting(account: Account) -> None:
    """Nothing of it waits in the copy yet, and what will is no return from idleness."""
    account.waiting, account.is_resumed = 0, True


def _emptied(tier: TierAccount) -> TierAccount:
    mine = copy(tier)
    mine.races, mine.late = Races(), Races(is_whole=False)
    mine.deadlines, mine.tenants, mine.is_resumed = [], {}, True
    return mine


def _fleet(fleet: Fleet) -> Fleet:
    mine: Fleet = _own(fleet)
    mine._engines = {name: engine.copy() for name, engine in fleet._engines.items()}
    mine.opened = {name: mine._engines[name] for name in fleet.opened}
    mine.homes = fleet.homes.copy(mine._engines)
    mine._empty, mine._partly = {}, {}  # made anew from those that are fresh
    mine._fresh = dict.fromkeys(mine.opened.values())
    return mine


def _own(thing: Any) -> Any:
    """A copy that shares no container with the original; what they hold is shared."""
    mine = copy(thing)
    for name in getattr(thing, "__slots__", None) or vars(thing):
        value = getattr(thing, name)
        if isinstance(value, dict | list | set | deque):
            setattr(mine, name, copy(value))
    return mine


def _first_of_all(
    queue: FairQueue, starts_max: int
) -> tuple[list[Entry], dict[tuple[Tier, str], int]]:
    """The jobs that can be among the next starts, and of which tiers and kinds more wait."""
    taken: dict[int, Entry] = {}
    cut: dict[tuple[Tier, str], int] = {}
    whole = sum(queue.kinds.values())
    for tier, most in _shares(queue, starts_max).items():
        account = queue._tiers[tier]
        for kind, count in queue.kinds.items():
            quota = most * count // whole + _SLACK
            found = _leading(account.races._kinds.of(kind), quota + 1)
            if len(found) > quota:
                cut[tier, kind] = quota
            late = _leading(account.late._kinds.of(kind), quota)
            taken.update((entry.seq, entry) for entry in [*found[:quota], *late])
    return list(taken.values()), cut


def _shares(queue: FairQueue, starts_max: int) -> dict[Tier, int]:
    """So many starts by weight, and what one tier leaves to the others."""
    weights = {name: queue.rules.weights[name] for name, it in queue._tiers.items() if it.waiting}
    order = sorted(weights, key=lambda name: queue._tiers[name].waiting / weights[name])
    shares, left = {}, starts_max
    for name in order:
        share = -(-left * weights[name] // sum(weights[one] for one in order if one not in shares))
        shares[name] = min(share, queue._tiers[name].waiting)
        left -= shares[name]
    return shares


def _leading(race: Any, most: int) -> list[Entry]:
    """A race's first jobs in fair order, at most so many. The race isn't changed.

    Its heap is walked from the top: a place is opened before those below it, whose keys are no
    smaller. A key may be too small, so each entrant is met a second time at what it really is.
    """
    return list(_ordered(race, most)) if race is not None else []


def _ordered(race: Any, most: int) -> Iterator[Entry]:
    if not hasattr(race, "_heap"):
        yield from _of_user(race)
        return
    heap, is_last = race._heap, race._depth == 2
    seen: set[int] = set()
    # Places of the heap (an index), and entrants that were met (what is left of their jobs).
    ahead: list[tuple[int, int, int, Any]] = [(*heap[0][:2], 0, None)] if heap else []
    count = 0
    while ahead and count < most:
        at, seq, index, met = heappop(ahead)
        if met is not None:
            entry, others = met
            yield entry
            count += 1
            at += entry.cost
            if (following := next(others, None)) is not None:
                heappush(ahead, (at, following.seq, index, (following, others)))
            continue
        for below in (2 * index + 1, 2 * index + 2):
            if below < len(heap):
                heappush(ahead, (*heap[below][:2], below, None))
        entrant = heap[index][2]
        if (entrant.at, entrant.seq) != (at, seq) or id(entrant) in seen:
            continue
        seen.add(id(entrant))
        others = _ordered(entrant, most)
        if (entry := next(others, None)) is not None:
            now = entry.user.virtual if is_last else entry.tenant.virtual
            heappush(ahead, (now, entry.seq, index, (entry, others)))


def _of_user(jobs: Any) -> Iterator[Entry]:
    back: Iterable[Entry] = sorted((it[1] for it in jobs._back), key=lambda one: one.seq)
    held = merge(jobs._line, back, key=lambda one: one.seq) if jobs._back else jobs._line
    return (entry for entry in held if entry.is_waiting)
