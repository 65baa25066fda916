"""Whose turn it is: fair shares of device-seconds, between tiers by weight, between tenants evenly.

Start-time fair queueing (Goyal, Vin and Cheng, "Start-time fair queuing", 1996) at two levels.
Every tier, and within a tier every tenant, has a *virtual time*: the device-seconds charged to it,
divided by its weight. The one that is furthest behind goes next, and is charged when its job
starts. The level's *clock* is the largest virtual time at which a job has started. Whoever comes
back with nothing waiting is moved up to the clock, so idle time earns no credit; whoever is ahead
stays ahead. Between two that both wait, charged device-seconds per weight never differ by more
than their two largest jobs (the paper's theorem 1, for predicted cost).

Virtual time is counted in whole ticks, so that a charge taken back leaves no trace and the same
history always gives the same order. It knows nothing of engines: that is ``place``.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop
from itertools import accumulate
from typing import Any

from calotype.core.events import JobQueued
from calotype.core.nouns import TIER_WEIGHTS, Tier

_TICKS_PER_S = 1_000_000
_SCALE = math.lcm(*TIER_WEIGHTS.values())  # makes every division by a weight come out whole
_LANES_KEPT = 64  # tenants in a tier, before those that say nothing are dropped


def ticks(device_s: float) -> int:
    """Device-seconds as whole ticks; at least one, so that virtual time always moves."""
    return max(1, round(device_s * _TICKS_PER_S))


@dataclass(frozen=True)
class Entry:
    """A job as the line holds it, waiting or running."""

    job: JobQueued  # ``attempt`` counts the attempts begun so far
    seq: int  # order of arrival, kept when the job comes back
    cost: int  # ticks charged when it starts


def _seq(entry: Entry) -> int:
    return entry.seq


@dataclass
class _Lane:
    """One tenant within one tier."""

    virtual: int = 0
    waiting: list[Entry] = field(default_factory=list)  # by seq
    running: int = 0  # entries charged and not yet settled
    is_resumed: bool = False  # restored as waiting: its first job back is no return from idleness


@dataclass
class _Tier:
    """One service class. ``virtual`` is its own; ``clock`` is that of its tenants."""

    slowness: int  # virtual ticks for one tick of cost: _SCALE / weight
    virtual: int = 0
    clock: int = 0
    waiting: int = 0
    lanes: dict[str, _Lane] = field(default_factory=dict)
    lanes_max: int = _LANES_KEPT  # more, and it is time to drop some
    is_resumed: bool = False

    def lane(self, tenant: str) -> _Lane:
        """The tenant's lane, made if it isn't there.

        Lanes that say nothing are dropped now and then: when there are twice as many as last time.
        """
        if tenant not in self.lanes:
            if len(self.lanes) >= self.lanes_max:
                self.lanes = {name: lane for name, lane in self.lanes.items() if self.matters(lane)}
                self.lanes_max = max(_LANES_KEPT, 2 * len(self.lanes))
            self.lanes[tenant] = _Lane(virtual=self.clock)
        return self.lanes[tenant]

    def in_turn(self) -> Iterator[_Lane]:
        """Lanes with waiting jobs, furthest behind first; ties go to the job that came first."""
        heap = [
            (lane.virtual, lane.waiting[0].seq, name)
            for name, lane in self.lanes.items()
            if lane.waiting
        ]
        heapify(heap)
        while heap:
            yield self.lanes[heappop(heap)[2]]

    def tags(self) -> list[tuple[int, Entry]]:
        """Waiting entries in the order they would start, with the tier's virtual time at each."""
        starts = sorted(
            (tag, entry.seq, entry)
            for lane in self.lanes.values()
            for tag, entry in zip(
                accumulate((one.cost for one in lane.waiting), initial=lane.virtual),
                lane.waiting,
                strict=False,  # the last sum is where the lane ends: nobody starts there
            )
        )
        costs = (entry.cost * self.slowness for _, _, entry in starts)
        tags = accumulate(costs, initial=self.virtual)
        return [(tag, entry) for tag, (_, _, entry) in zip(tags, starts, strict=False)]

    def matters(self, lane: _Lane) -> bool:
        """False if the lane says no more than one made afresh would."""
        is_used = bool(lane.waiting) or lane.running > 0 or lane.is_resumed
        return is_used or lane.virtual > self.clock


class FairQueue:
    """The waiting jobs, and what each tier and tenant has been charged."""

    def __init__(self, standing: Mapping[str, Any] | None = None) -> None:
        """Start even, or from what ``standing`` returned before a restart."""
        self._clock = 0
        self._tiers = {tier: _Tier(_SCALE // weight) for tier, weight in TIER_WEIGHTS.items()}
        if standing is not None:
            self._restore(standing)

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return sum(tier.waiting for tier in self._tiers.values())

    def add(self, entry: Entry) -> None:
        """Let a job wait: behind those of its tenant that came before it."""
        tier, lane = self._where(entry)
        if not tier.waiting and not tier.is_resumed:
            tier.virtual = max(tier.virtual, self._clock)
        if not lane.waiting and not lane.is_resumed:
            lane.virtual = max(lane.virtual, tier.clock)
        tier.is_resumed = lane.is_resumed = False
        insort(lane.waiting, entry, key=_seq)
        tier.waiting += 1

    def remove(self, entry: Entry) -> None:
        """Take a waiting job out, uncharged."""
        tier, lane = self._where(entry)
        at = bisect_left(lane.waiting, entry.seq, key=_seq)
        assert lane.waiting[at].seq == entry.seq, "the job isn't waiting"
        del lane.waiting[at]
        tier.waiting -= 1

    def start(self, entry: Entry) -> None:
        """Take a waiting job out and charge its predicted cost."""
        self.remove(entry)
        tier, lane = self._where(entry)
        self._clock = max(self._clock, tier.virtual)
        tier.clock = max(tier.clock, lane.virtual)
        lane.running += 1
        self._charge(entry, entry.cost)

    def settle(self, entry: Entry) -> None:
        """A started job is over; its charge stands until ``correct``."""
        self._where(entry)[1].running -= 1

    def correct(self, entry: Entry, cost: int) -> None:
        """Replace what the started job was charged by ``cost`` ticks (0: it was lost)."""
        self._charge(entry, cost - entry.cost)

    def in_turn(self) -> Iterator[Entry]:
        """Waiting jobs, the one whose turn it is first.

        After it come those that may go when it can't: the rest of its tenant, then of its tier,
        then of the other tiers. (That isn't the order in which all would start: see ``order``.)
        Lazy: the first one costs as much as there are tenants waiting in the tier.
        """
        behind = [tier for tier in self._tiers.values() if tier.waiting]
        for tier in sorted(behind, key=lambda one: one.virtual):  # stable: ties by the table
            for lane in tier.in_turn():
                yield from lane.waiting

    def order(self) -> list[Entry]:
        """Every waiting job in the order they would start if each fitted: an exact replay.

        With nobody coming or going, each job starts at its owner's virtual time plus the costs of
        those before it, so the order is a sort by that: O(n log n).
        """
        tags = [pair for tier in self._tiers.values() for pair in tier.tags()]
        tags.sort(key=lambda pair: pair[0])  # stable: ties by the table, as in_turn has it
        return [entry for _, entry in tags]

    def standing(self, running: Iterable[Entry]) -> dict[str, Any]:
        """What each has been charged, as JSON, as if the ``running`` jobs had not started."""
        tiers: dict[str, Any] = {}
        for name, tier in self._tiers.items():
            tenants = {
                tenant: [lane.virtual, bool(lane.waiting)]
                for tenant, lane in tier.lanes.items()
                if tier.matters(lane)
            }
            tiers[str(name)] = {
                "virtual": tier.virtual,
                "clock": tier.clock,
                "waiting": bool(tier.waiting),
                "tenants": tenants,
            }
        for entry in running:
            saved = tiers[str(entry.job.tier)]
            saved["virtual"] -= entry.cost * self._tiers[entry.job.tier].slowness
            saved["tenants"][entry.job.tenant][0] -= entry.cost
        return {"clock": self._clock, "tiers": tiers}

    def _charge(self, entry: Entry, cost: int) -> None:
        tier, lane = self._where(entry)
        lane.virtual += cost
        tier.virtual += cost * tier.slowness

    def _where(self, entry: Entry) -> tuple[_Tier, _Lane]:
        tier = self._tiers[entry.job.tier]
        return tier, tier.lane(entry.job.tenant)

    def _restore(self, standing: Mapping[str, Any]) -> None:
        self._clock = standing["clock"]
        for name, saved in standing["tiers"].items():
            tier = self._tiers[Tier(name)]
            tier.virtual, tier.clock = saved["virtual"], saved["clock"]
            tier.is_resumed = saved["waiting"]
            for tenant, (virtual, is_waiting) in saved["tenants"].items():
                tier.lanes[tenant] = _Lane(virtual=virtual, is_resumed=is_waiting)
