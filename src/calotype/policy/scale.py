"""How many engines there should be of each kind: up at once, down slowly, the cheapest that do.

*Target tracking with a stabilisation window*, as the Kubernetes Horizontal Pod Autoscaler and the
clouds' scaling groups have it: every ``LOOK_S`` the number that would do now is worked out anew. A
group of engines grows to it at once, and shrinks only to the most that was wanted of it in the last
``down_s``, and only by more than ``TOLERANCE``. So nothing that grew shrinks within that time, and
a load that swings within it changes nothing.

What would do now is counted in devices of speed 1, the largest of three:

- *For the waits*: so many that ``attained`` of each tier's jobs start within its wait
  (``staffing``): spare engines grow with the root of the load, so a large fleet is used better than
  a small one.
- *For what waits already*: the expected load, and the backlog of those tiers worked off within the
  same wait, or the time that an engine takes to start: before that none could help.
- *For use*: no more than ``utilization`` of them at work, so that something is left for loads and
  for machines that fail.

The load that is expected is what arrived lately, in predicted device-seconds, fading. Once two days
are known it grows by as much as the day's course does until an engine asked for now has started:
engines are there before the hour that needs them.

Work is then given to groups, the most demanding first: to engines that are there anyway
(``least``), then to the cheapest, by price for what they work off, that can hold it: its model and
its jobs' LoRAs and ControlNets, beside what is pinned, in bytes as the line counts them. A model
that is pinned somewhere keeps one engine of the groups that pin it, whatever the load.

One look costs O(sorts of jobs x groups), whatever the number of engines and jobs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from calotype.core.events import JobQueued, ModelKnown
from calotype.core.nouns import Reserve, Tier
from calotype.policy.ledger import Ledger, bytes_of, past_reserves
from calotype.policy.rates import DAYS_KNOWN_S, Hours
from calotype.policy.staffing import staffed

LOOK_S = 15.0  # between two looks; Kubernetes' own
TOLERANCE = 0.05  # of a group: to shrink by no more isn't worth the moves
_FADE_S = 300.0  # in which what arrived counts for 1/e
_KEPT_S = 10 * _FADE_S  # after it nothing is left of it
_SEEN_S_MIN = 60.0  # a first job says nothing about the second before that


@dataclass(frozen=True)
class Group:
    """Engines alike: one kind of device in one region, bought one way."""

    name: str
    power: float  # device-seconds of a device of speed 1 that one works off in a second
    price_per_hour: float  # of one
    capacity_bytes: int  # for models, on one
    start_s: float  # from asking for one until it works: boot, and the first load
    least: int = 0
    most: int = 1
    pinned: tuple[str, ...] = ()  # models that each of them has always
    kept: Mapping[str, int] = field(default_factory=dict)  # bytes beside them, by line of adapters


class Load(NamedTuple):
    """What has to lie on a device together, for jobs alike."""

    model: str
    adapters: tuple[Reserve, ...] = ()  # what their LoRAs and ControlNets take, by line


@dataclass(frozen=True)
class ScaleRules:
    """What the fleet is sized for."""

    waits: Mapping[Tier, float] = field(  # seconds in the line, for ``attained`` of the jobs
        default_factory=lambda: {Tier.TURBO: 5.0, Tier.FAST: 10.0, Tier.RELAX: 300.0}
    )
    attained: float = 0.95
    utilization: float = 0.85  # of the engines, by the load that is expected
    down_s: float = 600.0  # the stabilisation window


@dataclass(frozen=True)
class FleetLooked:
    """Told every ``LOOK_S``: the predicted device-seconds of all jobs that wait."""

    waiting: Mapping[tuple[Tier, Load], float]


@dataclass(frozen=True)
class KeepEngines:
    """Have so many engines of the group, those that are starting included.

    Which of them leave when there are too many is for ``leaving`` to say. They are drained: nothing
    more starts there, and they end with their last row.
    """

    group: str
    count: int


ScaleEvent = JobQueued | ModelKnown | FleetLooked


class Scaler:
    """Wanted engines, by group."""

    def __init__(
        self,
        groups: Sequence[Group],
        rules: ScaleRules | None = None,
        have: Mapping[str, int] | None = None,
        now: float = 0.0,
    ) -> None:
        """``have``: engines that are there, by group; they stay for ``down_s`` at least."""
        self._groups = list(groups)
        self._rules = rules or ScaleRules()
        self._start_s = max((group.start_s for group in groups), default=0.0)
        self._cheapest = sorted(groups, key=lambda it: it.price_per_hour / it.power)
        self._models: dict[str, ModelKnown] = {}
        self._left: dict[tuple[str, str], int] = {}  # bytes beside a model, by group and model
        self._came: dict[tuple[Tier, Load], _Came] = {}
        self._hours: Hours | None = None
        self._began = 0.0
        self.wanted = self._whole(
            {it.name: (have or {}).get(it.name, 0) * it.power for it in groups}
        )
        self._past = {group.name: _Highest(self._rules.down_s) for group in groups}
        for name, count in self.wanted.items():
            self._past[name].with_(count, now)

    def on(self, event: ScaleEvent, now: float) -> list[KeepEngines]:
        """Take in a fact; answer which groups change. ``now`` in seconds, never going back.

        A job is told once, when it first comes: one that waits again is in the backlog only.
        """
        match event:
            case JobQueued():
                self._note(event, now)
            case ModelKnown():
                self._models[event.model] = event
                self._left.clear()
            case FleetLooked():
                return self._look(event.waiting, now)
        return []

    def _note(self, job: JobQueued, now: float) -> None:
        if self._hours is None:
            self._hours, self._began = Hours(now), now
        self._hours.note(now)
        key = job.tier, Load(job.model, job.adapters)
        if (came := self._came.get(key)) is None:
            came = self._came[key] = _Came(now)
        came.note(job.cost_s, now)

    def _look(self, waiting: Mapping[tuple[Tier, Load], float], now: float) -> list[KeepEngines]:
        self._came = {key: it for key, it in self._came.items() if now - it.at < _KEPT_S}
        engines = self._whole(self._spread(self._work(waiting, now)))
        changed = []
        for group in self._groups:
            count, before = engines[group.name], self.wanted[group.name]
            most_lately = self._past[group.name].with_(count, now)
            if count > before:
                self.wanted[group.name] = count
            elif most_lately < before - TOLERANCE * before:
                self.wanted[group.name] = most_lately
            if self.wanted[group.name] != before:
                changed.append(KeepEngines(group.name, self.wanted[group.name]))
        return changed

    def _work(self, waiting: Mapping[tuple[Tier, Load], float], now: float) -> dict[Load, float]:
        """The devices of speed 1 that would do; what fits nowhere is left out."""
        rules, growth = self._rules, self._growth(now)
        seen_s = max(_SEEN_S_MIN, now - self._began)
        shares: dict[Load, float] = {}
        tiers = {tier: _Sum() for tier in Tier}
        for tier, load in dict.fromkeys((*self._came, *waiting)):
            if not any(self._can_hold(group, load) for group in self._groups):
                continue
            of, late_s = tiers[tier], waiting.get((tier, load), 0.0)
            jobs, work = 0.0, 0.0
            if (came := self._came.get((tier, load))) and (late_s or came.is_live(now, rules)):
                jobs, work = (growth * one for one in came.rates(now, seen_s))
            of.jobs, of.load, of.late_s = of.jobs + jobs, of.load + work, of.late_s + late_s
            shares[load] = shares.get(load, 0.0) + work + late_s / self._within_s(tier)
        needed, whole = self._needed(tiers), sum(shares.values())
        return {load: needed * share / whole for load, share in shares.items()} if whole else {}

    def _needed(self, tiers: Mapping[Tier, _Sum]) -> float:
        """For all tiers; each counts what is before it."""
        rules, whole = self._rules, sum(of.load for of in tiers.values())
        jobs = sum(of.jobs for of in tiers.values())
        job_s = whole / jobs if jobs else 0.0
        needed, load, late_s = whole / rules.utilization, 0.0, 0.0
        for tier in Tier:
            load, late_s = load + tiers[tier].load, late_s + tiers[tier].late_s
            for_waits = staffed(load, whole, job_s, rules.waits[tier], rules.attained)
            needed = max(needed, for_waits, load + late_s / self._within_s(tier))
        return needed

    def _within_s(self, tier: Tier) -> float:
        """In which what waits is to be worked off."""
        return max(self._rules.waits[tier], self._start_s)

    def _growth(self, now: float) -> float:
        """How much busier it will be by the day's course when engines asked for now are there."""
        if self._hours is None or now - self._began < DAYS_KNOWN_S:
            return 1.0
        # What arrived lately is, in the mean, as old as it takes to fade.
        then = self._hours.share(now + self._start_s + _FADE_S)
        return max(1.0, then / self._hours.share(now))

    def _spread(self, work: Mapping[Load, float]) -> dict[str, float]:
        """The power that each group has to have; what finds no room has to wait."""
        given = dict.fromkeys(self.wanted, 0.0)
        left = dict(work)
        largest = sorted(left, key=lambda load: (-self._bytes(load), load))
        for is_there in (True, False):
            for load in largest:
                for group in self._cheapest:
                    if not self._can_hold(group, load):
                        continue
                    count = group.least if is_there else group.most
                    room = max(0.0, count * group.power - given[group.name])
                    more = min(room, left[load])
                    given[group.name] += more
                    left[load] -= more
        return given

    def _can_hold(self, group: Group, load: Load) -> bool:
        """Whether its engines have the memory; a model of which nothing is known fits anywhere."""
        if (known := self._models.get(load.model)) is None:
            return True
        key = group.name, load.model
        if (left := self._left.get(key)) is None:
            pinned = (self._models[name] for name in group.pinned if name in self._models)
            left = Ledger(group.capacity_bytes, (), pinned).plus(known).free_bytes
            self._left[key] = left
        return past_reserves(load.adapters, group.kept) <= left

    def _bytes(self, load: Load) -> int:
        known = self._models.get(load.model)
        return sum(line.bytes for line in load.adapters) + (bytes_of(known) if known else 0)

    def _whole(self, given: Mapping[str, float]) -> dict[str, int]:
        """Whole engines, within their bounds; each pinned model with one at least."""
        counts = {
            it.name: min(max(math.ceil(given[it.name] / it.power - 1e-9), it.least), it.most)
            for it in self._groups
        }
        for model in dict.fromkeys(name for group in self._groups for name in group.pinned):
            having = [group for group in self._cheapest if model in group.pinned and group.most]
            if having and not any(counts[group.name] for group in having):
                counts[having[0].name] = 1
        return counts


@dataclass
class _Sum:
    """Of a tier: jobs and device-seconds that are expected a second, and what waits."""

    jobs: float = 0.0
    load: float = 0.0
    late_s: float = 0.0  # device-seconds


class _Came:
    """What arrived of one tier and sort of jobs, fading."""

    __slots__ = ("at", "device_s", "jobs")

    def __init__(self, now: float) -> None:
        self.at, self.jobs, self.device_s = now, 0.0, 0.0

    def note(self, cost_s: float, now: float) -> None:
        fading = math.exp((self.at - now) / _FADE_S)
        self.jobs = self.jobs * fading + 1.0
        self.device_s = self.device_s * fading + cost_s
        self.at = now

    def is_live(self, now: float, rules: ScaleRules) -> bool:
        """Whether any arrived in the stabilisation window: if nobody asks, a fleet may be empty."""
        return now - self.at < rules.down_s

    def rates(self, now: float, seen_s: float) -> tuple[float, float]:
        """Jobs, and device-seconds, a second; it has been counted for so long."""
        fading = math.exp((self.at - now) / _FADE_S)
        span_s = _FADE_S * (1.0 - math.exp(-seen_s / _FADE_S))
        return self.jobs * fading / span_s, self.device_s * fading / span_s


class _Highest:
    """The highest of the counts of the last seconds: a queue in which only those that may yet be it
    are kept, so each is looked at twice at most."""

    def __init__(self, for_s: float) -> None:
        self._for_s = for_s
        self._kept: deque[tuple[float, int]] = deque()  # counts go down

    def with_(self, count: int, now: float) -> int:
        """Take in another; the highest of all that are no older."""
        kept = self._kept
        while kept and kept[-1][1] <= count:
            kept.pop()
        kept.append((now, count))
        while now - kept[0][0] > self._for_s:
            kept.popleft()
        return kept[0][1]


@dataclass(frozen=True)
class Seen:
    """An engine that may leave."""

    engine: str
    rows: int  # that it runs
    pinned: tuple[str, ...] = ()  # models that it has always


def leaving(engines: Sequence[Seen], count: int, others: Iterable[Seen] = ()) -> list[str]:
    """Which ``count`` of these engines, in the order they came up, are drained; fewer if need be.

    Those with fewest rows, of equals the youngest. An engine that is the last one, of these and the
    ``others`` that stay, to have a model pinned is never among them.
    """
    homes: dict[str, int] = {}
    for one in (*engines, *others):
        for model in one.pinned:
            homes[model] = homes.get(model, 0) + 1
    chosen: list[str] = []
    order = sorted(enumerate(engines), key=lambda it: (it[1].rows, -it[0]))
    for _, one in order:
        if len(chosen) == count:
            break
        if all(homes[model] > 1 for model in one.pinned):
            for model in one.pinned:
                homes[model] -= 1
            chosen.append(one.engine)
    return chosen
