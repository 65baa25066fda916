"""What others do, as queues for the same line: set beside ours on the same traffic and fleet.

- ``fifo``: first come, first served: most image servers.
- ``strict``: turbo before fast before relax, then by arrival.
- ``round-robin``: users take turns job by job, whatever a job costs: InvokeAI's.
- ``shortest``: the smallest predicted cost first.

They run under the same places, retries and affinity as ours; only the order differs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from heapq import heappop, heappush
from typing import Any

from calotype.core.nouns import Tier
from calotype.policy.fair import FairQueue
from calotype.policy.lanes import Account, Entry, Races, Tenant
from calotype.policy.queue import Found, Queue
from calotype.policy.rules import Rules

_TIERS = list(Tier)


class _Plain:
    """What all baselines have in common: nothing is charged, promoted, or kept."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.kinds: dict[str, int] = {}

    def resize(self, engines: int, rows: int, spare: int) -> None:
        """Of no matter."""

    def settle(self, entry: Entry) -> None:
        """Of no matter."""

    def correct(self, entry: Entry, cost: int) -> None:
        """Of no matter."""

    def promote(self, now: float) -> list[Entry]:
        """Nobody."""
        return []

    def next_deadline(self) -> float | None:
        """Never."""
        return None

    def order(self) -> list[Entry]:
        """Not told."""
        return []

    def ahead_most(self, entry: Entry) -> int:
        """Everyone."""
        return sum(self.kinds.values()) - 1

    def due(self) -> dict[str, float]:
        """By how many wait."""
        whole = sum(self.kinds.values())
        return {kind: count / whole for kind, count in self.kinds.items()}

    def standing(self, begun: Iterable[Entry]) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def _came(self, entry: Entry) -> None:
        entry.is_waiting, entry.why = True, ""
        self.kinds[entry.kind] = self.kinds.get(entry.kind, 0) + 1

    def _went(self, entry: Entry) -> None:
        entry.is_waiting = False
        self.kinds[entry.kind] -= 1
        if not self.kinds[entry.kind]:
            del self.kinds[entry.kind]


class Sorted(_Plain):
    """By a key that never changes; ties by arrival."""

    def __init__(self, rules: Rules, key: Callable[[Entry], int]) -> None:
        super().__init__(rules)
        self._key = key
        self._heaps: dict[str, list[tuple[int, int, Entry]]] = {}  # by kind

    def add(self, entry: Entry) -> None:
        """Let a job wait."""
        self._came(entry)
        heap = self._heaps.setdefault(entry.kind, [])
        heappush(heap, (self._key(entry), entry.seq, entry))

    def remove(self, entry: Entry) -> None:
        """Take a waiting job out."""
        self._went(entry)

    def first(self, kinds: Collection[str] | None = None, tier: Tier | None = None) -> Found | None:
        """The smallest key of these kinds, if it is of the tier."""
        best: tuple[int, int, Entry] | None = None
        for kind in self.kinds if kinds is None else kinds:
            heap = self._heaps.get(kind, [])
            while heap and not heap[0][2].is_waiting:
                heappop(heap)
            if heap and (best is None or heap[0] < best):
                best = heap[0]
        if best is None or (tier is not None and best[2].job.tier is not tier):
            return None
        return best[2], "turn"

    def start(self, entry: Entry, why: str = "turn") -> None:
        """Take a waiting job out."""
        self._went(entry)


class RoundRobin(_Plain):
    """Tenants, and their users, take turns job by job; tiers are of no matter."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._races = Races()
        self._tenants: dict[str, Tenant] = {}
        self._clock = 0

    def add(self, entry: Entry) -> None:
        """Let a job wait; whoever was away takes the next turn, and no more."""
        tenant = self._tenants.setdefault(entry.job.tenant, Tenant())
        user = tenant.users.setdefault(entry.job.user, Account())
        if not tenant.waiting:
            tenant.virtual = max(tenant.virtual, self._clock)
        if not user.waiting:
            user.virtual = max(user.virtual, tenant.clock)
        tenant.waiting += 1
        user.waiting += 1
        entry.tenant, entry.user = tenant, user
        self._came(entry)
        self._races.add(entry)

    def remove(self, entry: Entry) -> None:
        """Take a waiting job out."""
        self._went(entry)
        entry.tenant.waiting -= 1
        entry.user.waiting -= 1
        self._races.left()
        self._races.touch(entry)

    def first(self, kinds: Collection[str] | None = None, tier: Tier | None = None) -> Found | None:
        """The next job of whoever had fewest turns, if it is of the tier."""
        entry = self._races.first(kinds)
        if entry is None or (tier is not None and entry.job.tier is not tier):
            return None
        return entry, "turn"

    def start(self, entry: Entry, why: str = "turn") -> None:
        """Take a waiting job out: one turn of its tenant and user."""
        self._clock = max(self._clock, entry.tenant.virtual)
        entry.tenant.clock = max(entry.tenant.clock, entry.user.virtual)
        self._went(entry)
        entry.tenant.waiting -= 1
        entry.user.waiting -= 1
        self._races.left()
        entry.tenant.virtual += 1
        entry.user.virtual += 1


POLICIES: dict[str, Callable[[Rules], Queue]] = {
    "ours": lambda rules: FairQueue(rules=rules),
    "fifo": lambda rules: Sorted(rules, lambda entry: 0),
    "strict": lambda rules: Sorted(rules, lambda entry: _TIERS.index(entry.job.tier)),
    "round-robin": RoundRobin,
    "shortest": lambda rules: Sorted(rules, lambda entry: entry.cost),
}
