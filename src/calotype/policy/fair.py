"""Whose turn it is: fair shares of device-seconds, between tiers by weight, then evenly.

Start-time fair queueing (Goyal, Vin and Cheng, "Start-time fair queuing", SIGCOMM 1996) at three
levels: tiers by weight, within a tier its tenants, within a tenant its users; a user's jobs go by
age. Each of them has a *virtual time*: the device-seconds charged to it, divided by its weight. The
one that is furthest behind goes next, and is charged the predicted cost when its job starts; what
was measured replaces it. The level's *clock* is the largest virtual time at which a job has
started. Whoever comes back with nothing waiting is moved up to the clock, so idle time earns no
credit; whoever is ahead stays ahead. Between two that both wait, charged device-seconds per weight
never differ by more than their two largest jobs (the paper's theorem 1, for predicted cost).

Three things go before the fair order, in this order; ``first`` says which did:

- *guaranteed*: a tier with a floor that has fallen behind it by ``FLOOR_LAG_S_MAX`` of each engine.
- *reserved*: a tier that wants rows and runs fewer than are reserved for it.
- *promoted*: a job that waited its tier's maximum. It starts on credit: the cost goes to the
  tier's *debt*, not its virtual time, and at each later start the tier pays back a quarter more
  than the start costs. Debt is bounded by ``promoted_s_max`` of each engine. So a promotion changes
  when a tier gets its share, never how much; and a tenant with a thousand late jobs sets the others
  of its tier back by a quarter of one job at most.

The last two change nothing when nothing is reserved or late. Virtual time is counted in whole
ticks, so that a charge taken back leaves no trace and the same history always gives the same order.
It knows nothing of engines: that is ``place``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

from calotype.core import limits
from calotype.core.nouns import Tier
from calotype.policy.lanes import Entry
from calotype.policy.queue import Found
from calotype.policy.replay import in_order
from calotype.policy.rules import Rules
from calotype.policy.tiers import PPM, TierAccount

TICKS_PER_S = 1_000_000
_PAYBACK = 4  # debt is paid with one part in this many of a start's cost
_RANKS = ("guaranteed", "reserved", "promoted", "turn")  # who goes first
_GUARANTEED, _RESERVED, _PROMOTED, _TURN = range(4)


def ticks(device_s: float) -> int:
    """Device-seconds as whole ticks; at least one, so that virtual time always moves."""
    return round(device_s * TICKS_PER_S) or 1


class FairQueue:
    """The waiting jobs, and what each tier, tenant and user has been charged."""

    def __init__(
        self, standing: Mapping[str, Any] | None = None, rules: Rules | None = None
    ) -> None:
        """Start even, or from what ``standing`` returned before a restart."""
        self.rules = rules or Rules()
        self._clock = 0
        scale = math.lcm(*self.rules.weights.values())  # every division by a weight comes out whole
        self._tiers = {tier: TierAccount(tier, self.rules, scale) for tier in Tier}
        self._list = list(self._tiers.values())
        self._floored = [tier for tier in self._list if tier.floor_ppm]
        self._promoting = [tier for tier in self._list if tier.wait_s_max is not None]
        self._debt_max = self._lag_max = 0  # ticks; ticks x ppm
        self.kinds: dict[str, int] = {}  # jobs that wait, by kind
        self._rows = self._spare = 0  # room there is; of it that spared for heavier tiers
        self.resize(0, 0, 0)
        if standing is not None:
            self._restore(standing)

    def resize(self, engines: int, rows: int, spare: int) -> None:
        """So many engines are up, with room for so many rows, some spared for heavier tiers."""
        self._rows, self._spare = rows, spare
        self._debt_max = ticks(self.rules.promoted_s_max * engines)
        self._lag_max = ticks(limits.FLOOR_LAG_S_MAX * max(1, engines)) * PPM
        for tier in self._tiers.values():
            tier.reserved = math.floor(tier.share * rows + 1e-9)
        self._close_full()

    def add(self, entry: Entry) -> None:
        """Let a job wait: behind those of its user that came before it."""
        tier = self._tiers[entry.job.tier]
        tenant = tier.tenant(entry.job.tenant)
        user = tier.user(tenant, entry.job.user)
        if not tier.waiting:
            tier.behind = min(tier.behind, 0)
            if not tier.is_resumed:
                tier.virtual = max(tier.virtual, self._clock)
        if not tenant.waiting and not tenant.is_resumed:
            tenant.virtual = max(tenant.virtual, tier.clock)
        if not user.waiting and not user.is_resumed:
            user.virtual = max(user.virtual, tenant.clock)
        tier.is_resumed = tenant.is_resumed = user.is_resumed = False
        tenant.waiting += 1
        user.waiting += 1
        entry.tier, entry.tenant, entry.user = tier, tenant, user
        entry.is_waiting, entry.why = True, ""
        self.kinds[entry.kind] = self.kinds.get(entry.kind, 0) + 1
        tier.races.add(entry)
        if entry.is_late:
            tier.late.add(entry)
        elif tier.wait_s_max is not None:
            heappush(tier.deadlines, (entry.queued_at + tier.wait_s_max, entry.seq, entry))

    def remove(self, entry: Entry) -> None:
        """Take a waiting job out, uncharged."""
        tier = entry.tier
        self._leave(tier, entry)
        tier.races.touch(entry)

    def first(self, kinds: Collection[str] | None = None, tier: Tier | None = None) -> Found | None:
        """The job whose turn it is, of these kinds and this tier (None: any), and why."""
        best: TierAccount | None = None
        for one in self._list:
            if not one.races.live or one.is_full or (tier and one is not self._tiers[tier]):
                continue
            if one.rows < one.reserved or one.behind >= self._lag_max or one.late.live:
                return self._first_ranked(kinds, tier)
            if best is None or one.virtual < best.virtual:
                best = one
        if best is None:
            return None
        entry = best.races.first(kinds)
        return (entry, "turn") if entry is not None else self._first_ranked(kinds, tier)

    def _first_ranked(self, kinds: Collection[str] | None, tier: Tier | None) -> Found | None:
        """The same, where it isn't as simple as whose turn it is."""
        ranked = [
            (self._rank(one), one.virtual, at, one)  # ``at`` breaks ties by the table
            for at, one in enumerate(self._list)
            if one.races.live and not one.is_full and (tier is None or one is self._tiers[tier])
        ]
        ranked.sort()
        for rank, _, _, one in ranked:
            entry = (one.late if rank == _PROMOTED else one.races).first(kinds)
            if entry is not None:
                return entry, _RANKS[rank]
        if ranked and ranked[0][0] != _TURN:  # promoted tiers without a late job of these kinds
            for _, _, one in sorted(it[1:] for it in ranked if it[0] == _PROMOTED):
                if (entry := one.races.first(kinds)) is not None:
                    return entry, "turn"
        return None

    def start(self, entry: Entry, why: str = "turn") -> None:
        """Take a waiting job out and charge its predicted cost."""
        tier = entry.tier
        self._weigh_floors(tier, entry.cost)
        tenant, user = entry.tenant, entry.user
        if why != "promoted":
            furthest = tier.virtual if why == "turn" else self._furthest_behind()
            self._clock = max(self._clock, furthest)
            tier.clock = max(tier.clock, tenant.virtual)
            tenant.clock = max(tenant.clock, user.virtual)
            if tier.debt:
                paid = min(tier.debt, entry.cost // _PAYBACK)
                tier.debt -= paid
                tier.virtual += paid * tier.slowness
        self._leave(tier, entry)
        entry.why = why
        tenant.running += 1
        user.running += 1
        tier.rows += entry.job.rows
        if self._spare:
            self._close_full()
        cost = entry.cost
        user.virtual += cost
        tenant.virtual += cost
        if why == "promoted":
            tier.debt += cost
        else:
            tier.virtual += cost * tier.slowness

    def settle(self, entry: Entry) -> None:
        """A started job is over; its charge stands until ``correct``."""
        entry.tier.rows -= entry.job.rows
        if self._spare:
            self._close_full()
        entry.tenant.running -= 1
        entry.user.running -= 1

    def correct(self, entry: Entry, cost: int) -> None:
        """Replace what the started job was charged by ``cost`` ticks (0: it was lost)."""
        if cost == entry.cost:
            return
        tier = entry.tier
        if tier.tenants.get(entry.job.tenant) is not entry.tenant:  # dropped as idle meanwhile
            entry.tenant = tier.tenant(entry.job.tenant)
            entry.user = tier.user(entry.tenant, entry.job.user)
        more = cost - entry.cost
        entry.user.virtual += more
        entry.tenant.virtual += more
        if entry.why == "promoted":
            tier.debt += more
        else:
            tier.virtual += more * tier.slowness
        if cost < entry.cost and entry.tenant.waiting:
            tier.races.touch(entry)
            if tier.late.live:
                tier.late.touch(entry)

    def promote(self, now: float) -> list[Entry]:
        """Jobs that have now waited their tier's maximum: they may start on credit."""
        late: list[Entry] = []
        for tier in self._promoting:
            while tier.deadlines and tier.deadlines[0][0] <= now:
                entry = heappop(tier.deadlines)[2]
                if entry.is_waiting and not entry.is_late:
                    entry.is_late = True
                    tier.late.add(entry)
                    late.append(entry)
        return late

    def next_deadline(self) -> float | None:
        """When the next waiting job will have waited its tier's maximum, in seconds."""
        found = []
        for tier in self._tiers.values():
            while tier.deadlines and not tier.deadlines[0][2].is_waiting:
                heappop(tier.deadlines)
            if tier.deadlines:
                found.append(tier.deadlines[0][0])
        return min(found, default=None)

    def order(self) -> list[Entry]:
        """Every waiting job in the order they would start if each fitted: an exact replay.

        With nobody coming or going and nothing but turns, O(n log n).
        """
        return in_order(
            [
                (tier.virtual, tier.slowness, list(tier.races.entries()))
                for tier in self._tiers.values()
            ]
        )

    def ahead_most(self, entry: Entry) -> int:
        """Waiting jobs that can go before this one by fair shares, at most; an estimate.

        Its user's older jobs at most, each of which may wait for one of every other that shares;
        by numbers of jobs, as if all cost the same.
        """
        tier = self._tiers[entry.job.tier]
        weights = sum(
            self.rules.weights[name] for name, one in self._tiers.items() if one.races.live
        )
        sharers = max(1, min(len(tier.tenants), tier.waiting))
        users = max(1, min(len(entry.tenant.users), entry.tenant.waiting))
        turns = entry.user.waiting * users * sharers * weights // self.rules.weights[entry.job.tier]
        return min(turns, sum(self.kinds.values()) - 1)

    def due(self) -> dict[str, float]:
        """The share of device time, 0..1, that each kind is due while all these wait.

        By the weights of tiers and, within one, by the tenants that wait for it; an estimate.
        """
        due = dict.fromkeys(self.kinds, 0.0)
        waiting = {name: one for name, one in self._tiers.items() if one.races.live}
        weights = sum(self.rules.weights[name] for name in waiting)
        for name, tier in waiting.items():
            tenants = {kind: n for kind, n in tier.races.tenants().items() if kind in due}
            whole = weights * sum(tenants.values())
            for kind, count in tenants.items():
                due[kind] += self.rules.weights[name] * count / whole
        return due

    def standing(self, begun: Iterable[Entry]) -> dict[str, Any]:
        """What each has been charged, as JSON, as if the jobs that were ``begun`` had not been."""
        tiers = {str(name): tier.saved() for name, tier in self._tiers.items()}
        for entry in begun:
            charged = entry.spent if entry.is_waiting else entry.spent + entry.cost
            saved = tiers[str(entry.job.tier)]
            tenant = saved["tenants"][entry.job.tenant]
            tenant[0] -= charged
            tenant[3][entry.job.user][0] -= charged
            if entry.why == "promoted":
                saved["debt"] -= charged
            else:
                saved["virtual"] -= charged * self._tiers[entry.job.tier].slowness
        return {"clock": self._clock, "tiers": tiers}

    def _rank(self, tier: TierAccount) -> int:
        """What brings it before others, as an index into ``_RANKS``."""
        if tier.floor_ppm and tier.behind >= self._lag_max:
            return _GUARANTEED
        if tier.rows < tier.reserved:
            return _RESERVED
        return _PROMOTED if tier.late.live and tier.debt < self._debt_max else _TURN

    def _close_full(self) -> None:
        """Let a tier start nothing while it and the lighter ones hold all the rows they may.

        So that a turbo job finds a free row, however many relax jobs there are: rows preempt each
        other at every step, but none leaves its engine before it is done. Of the spared rows relax
        leaves all, the heaviest tier none, those between an even part.
        """
        held, steps = sum(one.rows for one in self._list), len(self._list) - 1
        is_full = False
        for place, one in enumerate(self._list):  # the heaviest first
            most = self._rows - self._spare * place // steps  # of this one and the lighter ones
            is_full = is_full or (self._spare > 0 and held >= most)
            one.is_full = is_full
            held -= one.rows

    def _furthest_behind(self) -> int:
        return min(tier.virtual for tier in self._tiers.values() if tier.races.live)

    def _weigh_floors(self, started: TierAccount, cost: int) -> None:
        """A tier that waits while others start falls behind its floor; starts bring it ahead."""
        for tier in self._floored:
            if tier.races.live:
                due = tier.floor_ppm - PPM if tier is started else tier.floor_ppm
                behind = tier.behind + due * cost
                tier.behind = max(-self._lag_max, behind)

    def _leave(self, tier: TierAccount, entry: Entry) -> None:
        assert entry.is_waiting, "the job isn't waiting"
        entry.is_waiting = False
        entry.tenant.waiting -= 1
        entry.user.waiting -= 1
        left = self.kinds[entry.kind] - 1
        if left:
            self.kinds[entry.kind] = left
        else:
            del self.kinds[entry.kind]
        tier.races.left()
        if entry.is_late:
            tier.late.left()

    def _restore(self, standing: Mapping[str, Any]) -> None:
        self._clock = standing["clock"]
        for name, saved in standing["tiers"].items():
            self._tiers[Tier(name)].restore(saved)
