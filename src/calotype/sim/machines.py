"""The machines of a simulated fleet: hired and booted, told to go, drained, lost, and back again.

What is loaded on them is here too, since it goes with them. Whose turn it is, what is loaded and
how many there should be is for the policy to say. A machine is paid for from the moment it is asked
for until it is given up or lost; one that is to be given up ends what it runs first.

A lost engine is noticed when its sign of life is missing (``LEASE_S``); a spot machine is told
before, and says so: then another one is asked for at once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

from calotype.core.decisions import LoadModel
from calotype.core.events import (
    EngineGone,
    EngineNotice,
    EnginePaused,
    EngineResumed,
    EngineUp,
    LoadFailed,
    MemorySeen,
    ModelKnown,
    ModelWarmed,
    PolicyEvent,
)
from calotype.core.limits import LEASE_S
from calotype.core.nouns import Reserve
from calotype.policy.ledger import Ledger, bytes_of, no_room, with_adapters
from calotype.policy.scale import KeepEngines, Seen, leaving
from calotype.sim.engines import SimEngine
from calotype.sim.fleet import GB, FleetPlan, Kind
from calotype.sim.record import Record

# What can happen to them.
DOWN, NOTICE, GONE, UP, OUTAGE, WARM = range(10, 16)


class Desk(Protocol):
    """What the machines need of the loop."""

    now: float

    def push(self, at: float, what: int, one: Any, other: Any) -> None:
        """Have something happen."""

    def tell(self, event: PolicyEvent) -> None:
        """Tell the line, and carry out what it decides."""


class Machines:
    """All that there were, by name; and what is warm where."""

    def __init__(self, plan: FleetPlan, desk: Desk, record: Record, seed: int) -> None:
        self.engines: dict[str, SimEngine] = {}
        self._plan, self._desk, self._record = plan, desk, record
        self._loads = random.Random(f"{seed}:loads")
        self._faults = random.Random(f"{seed}:faults")
        self._groups = dict(zip(plan.names, plan.engines, strict=True))
        self._group_of: dict[str, str] = {}
        # By group: all but those that are given up, in the order they were hired.
        self._members: dict[str, dict[str, SimEngine]] = {name: {} for name in self._groups}
        self._needs: dict[str, ModelKnown] = {}
        self._refusals: dict[tuple[str, tuple[Reserve, ...]], str] = {}
        self._warm: dict[str, int] = {}  # engines on which a model is warm

    def begin(self) -> None:
        """All are up that there are at the beginning."""
        for name, group in self._groups.items():
            for _ in range(group.count):
                kind = self._plan.kinds[group.kind]
                self._up(self._added(name), self._that_fit(group.warm, kind))
        for outage in self._plan.outages:
            self._desk.push(outage.at_s, OUTAGE, outage, None)

    def happen(self, what: int, one: Any, other: Any) -> None:
        """Something did that was pushed."""
        if what == WARM:
            self._warmed(one, *other)
        elif what == GONE:
            self._desk.tell(EngineGone(one.name, other))
        elif what == UP:
            if one.name in self._members[self._group_of[one.name]] and not one.is_up:
                self._up(one)
        elif what == OUTAGE:
            for engine in list(self.engines.values()):
                if engine.region == one.region and engine.is_up:
                    self._lose(engine, one.for_s, "the region is lost", LEASE_S)
        elif one.life == other[0] and one.is_up:
            self._fate(what, one, *other)

    def counts(self) -> Mapping[str, int]:
        """By group, the machines that are paid for."""
        return {
            name: sum(engine.is_hired for engine in members.values())
            for name, members in self._members.items()
        }

    # How many there are.

    def keep(self, decision: KeepEngines) -> None:
        """Have so many of a group, those that are starting included."""
        members = list(self._members[decision.group].values())
        more = decision.count - sum(not engine.is_leaving for engine in members)
        self._record.scaled(more)
        going = [engine for engine in reversed(members) if engine.is_leaving]
        for engine in going[: max(0, more)]:
            engine.is_leaving = False
            if engine.noticed_at is None:
                self._desk.tell(EngineResumed(engine.name))
        for _ in range(more - len(going)):
            engine = self._added(decision.group)
            engine.hire(self._desk.now)
            boot_s = self._groups[decision.group].boot_s
            self._desk.push(self._desk.now + boot_s, UP, engine, None)
        if more < 0:
            self._let_go(decision.group, -more)

    def released(self, engine: SimEngine) -> None:
        """A job has left the engine: if it was the last one, and it leaves, it is given up."""
        if engine.is_leaving and engine.is_up and not engine.sent:
            self._clear(engine)
            self._desk.tell(EngineGone(engine.name, "no longer needed"))

    def _let_go(self, name: str, count: int) -> None:
        """First those that aren't up, the youngest first: nobody misses them."""
        staying = [one for one in self._members[name].values() if not one.is_leaving]
        absent = [one for one in reversed(staying) if not one.is_up][:count]
        for engine in absent:
            self._clear(engine)
        up = [self._seen(one) for one in staying if one.is_up]
        others = [
            self._seen(one)
            for group, members in self._members.items()
            for one in members.values()
            if group != name and one.is_up and not one.is_leaving
        ]
        for gone in leaving(up, count - len(absent), others):
            engine = self.engines[gone]
            engine.is_leaving = True
            self._desk.tell(EnginePaused(gone))
            self.released(engine)

    def _seen(self, engine: SimEngine) -> Seen:
        return Seen(engine.name, engine.sent, self._groups[self._group_of[engine.name]].pinned)

    def _clear(self, engine: SimEngine) -> None:
        """It is given up, and doesn't come back."""
        self._cool_all(engine)
        if engine.is_hired:
            engine.down(self._desk.now)
        del self._members[self._group_of[engine.name]][engine.name]

    # What becomes of each.

    def _added(self, name: str) -> SimEngine:
        group = self._groups[name]
        kind = self._plan.kinds[group.kind]
        of = f"{group.region}/{group.kind}/{len(self.engines)}"
        engine = SimEngine(of, group.region, kind, is_spot=bool(group.spot_hours))
        self.engines[of] = self._members[name][of] = engine
        self._group_of[of] = name
        return engine

    def _up(self, engine: SimEngine, warm: tuple[str, ...] = ()) -> None:
        desk, kind = self._desk, engine.kind
        group = self._groups[self._group_of[engine.name]]
        engine.up(desk.now)
        for hours, is_spot in ((group.fail_hours, False), (group.spot_hours, True)):
            if hours:
                lost_at = desk.now + self._faults.expovariate(1 / (hours * 3600))
                fate = engine.life, is_spot, lost_at
                if is_spot and group.notice_s:
                    told_at = max(desk.now, lost_at - group.notice_s)
                    desk.push(told_at, NOTICE, engine, fate)
                desk.push(lost_at, DOWN, engine, fate)
        for model in warm:
            self._heat(engine, model)
        for model in group.pinned:
            self.needs(model)
        budget_bytes, reserves = self._plan.device(group)
        desk.tell(
            EngineUp(
                engine.name,
                warm,
                kind.rows,
                budget_bytes=budget_bytes,
                reserves=reserves,
                pinned=group.pinned,
                staging_bytes=round(kind.staging_gb * GB),
            )
        )

    def _fate(
        self, what: int, engine: SimEngine, _life: int, is_spot: bool, lost_at: float
    ) -> None:
        now, repair_s = self._desk.now, self._groups[self._group_of[engine.name]].repair_s
        if what == NOTICE:
            engine.noticed_at = now
            self._desk.tell(EngineNotice(engine.name, lost_at))
        elif is_spot:
            asked_at = now if engine.noticed_at is None else engine.noticed_at
            away_s = max(0.0, asked_at + repair_s - now)
            self._lose(engine, away_s, "the spot machine was taken away", 0.0)
        else:
            self._lose(engine, repair_s, "it failed", LEASE_S)

    def _lose(self, engine: SimEngine, away_s: float, reason: str, notice_s: float) -> None:
        now = self._desk.now
        self._record.lost(engine.spent_s(now))
        self._desk.push(now + notice_s, GONE, engine, reason)
        if engine.is_leaving:
            self._clear(engine)
            return
        self._cool_all(engine)
        engine.down(now)
        self._desk.push(now + max(away_s, notice_s), UP, engine, None)

    # What is loaded on them.

    def needs(self, model: str) -> ModelKnown:
        """What a model needs; the line is told when it is first named."""
        if model not in self._needs:
            self._needs[model] = self._plan.needs(model)
            self._desk.tell(self._needs[model])
        return self._needs[model]

    def refusal(self, model: str, adapters: tuple[Reserve, ...]) -> str:
        """Why a job with these fits on no machine of the fleet, as a server says; or empty."""
        if (said := self._refusals.get((model, adapters))) is None:
            devices = []
            for name, group in self._groups.items():
                models = [self.needs(each) for each in (*group.pinned, model)]
                device = with_adapters(*self._plan.device(group), models, adapters)
                devices.append((name, device))
            refusal = no_room(f"{model} with its LoRAs" if adapters else model, devices)
            said = self._refusals[model, adapters] = refusal.detail if refusal else ""
        return said

    def is_warm(self, model: str) -> bool:
        """Whether some engine has it loaded."""
        return self._warm.get(model, 0) > 0

    def took_s(self, mean_s: float) -> float:
        """What a load takes this time."""
        spread = self._plan.loading.spread
        return mean_s * self._loads.uniform(1 - spread, 1 + spread)

    def load(self, load: LoadModel) -> None:
        """An engine loads a model, if it still can."""
        engine = self.engines[load.engine]
        if not engine.is_up:
            return  # the line will hear of it
        for model in load.evict:
            self._cool(engine, model)
        engine.arena.hold(self._parts(engine))
        took_s = self.took_s(load.load_s)
        at = self._desk.now + 2 * self._plan.delay_s + took_s
        self._desk.push(at, WARM, engine, (engine.life, load, took_s))

    def _warmed(self, engine: SimEngine, life: int, load: LoadModel, took_s: float) -> None:
        if engine.life != life or not engine.is_up:
            return
        if load.model in engine.models:  # others left for the room alone
            self._desk.tell(ModelWarmed(engine.name, load.model))
            return
        engine.loaded(took_s)
        is_there, memory = self._laid(engine, load.model), engine.arena.fragmentation
        if is_there:
            self._heat(engine, load.model)
            self._record.loaded(load, bytes_of(self._needs[load.model]), self._desk.now)
        if self._plan.loading.in_one_block:
            settled = self._settled(engine)
            self._desk.tell(MemorySeen(engine.name, memory.free, memory.largest, settled))
        if is_there:
            self._desk.tell(ModelWarmed(engine.name, load.model))
        else:
            said = f"free memory is in pieces, the largest of {memory.largest / GB:.1f} GB"
            self._desk.tell(LoadFailed(engine.name, load.model, said))

    def _laid(self, engine: SimEngine, model: str) -> bool:
        """Whether a model that was loaded found room for its parts.

        Where it needn't be one block, all are laid anew in no time, and that is counted.
        """
        parts = self._parts(engine, model)
        is_block = engine.arena.hold(parts)
        is_there = is_block or not self._plan.loading.in_one_block
        if not is_block:
            engine.arena.hold({} if is_there else self._parts(engine))
        if is_there:
            engine.arena.hold(parts)
        self._record.laid(engine.arena.fragmentation, is_block=is_block)
        return is_there

    def _parts(self, engine: SimEngine, *more: str) -> dict[str, int]:
        """Of an engine's models, and of these, the bytes of each part."""
        models = (*engine.models, *more)
        return {part.id: part.bytes for name in models for part in self._needs[name].components}

    def _settled(self, engine: SimEngine) -> tuple[str, ...]:
        """Models all of whose parts lie at the beginning, without a gap."""
        parts = dict.fromkeys(engine.arena.settled())
        return tuple(
            name
            for name in engine.models
            if all(part.id in parts for part in self._needs[name].components)
        )

    def _that_fit(self, warm: tuple[str, ...], kind: Kind) -> tuple[str, ...]:
        """The models that are warm at the beginning: the last of them that fit together."""
        held, ledger = list[str](), Ledger(round(kind.models_gb * GB))
        for model in reversed(warm):
            if ledger.fits(known := self.needs(model)):
                ledger = ledger.plus(known)
                held.append(model)
        return tuple(reversed(held))

    def _heat(self, engine: SimEngine, model: str) -> None:
        engine.models[model] = None
        self._warm[model] = self._warm.get(model, 0) + 1

    def _cool(self, engine: SimEngine, model: str) -> None:
        del engine.models[model]
        self._warm[model] -= 1

    def _cool_all(self, engine: SimEngine) -> None:
        for model in list(engine.models):
            self._cool(engine, model)
