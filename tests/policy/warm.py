"""A warm pool in virtual time, for tests: carries out starts and loads, and checks its laws."""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import replace
from typing import Any

from calotype.core.decisions import Decision, LoadModel, StartAttempt
from calotype.core.events import (
    EngineUp,
    JobCancelled,
    JobQueued,
    JobSettled,
    LoadFailed,
    MemorySeen,
    ModelGone,
    ModelKnown,
    ModelsPinned,
    ModelWarmed,
    PolicyEvent,
    TimePassed,
)
from calotype.core.nouns import Component, Tier
from calotype.policy.arena import Arena
from calotype.policy.line import Line
from calotype.policy.predict import Foresight


def needs(
    model: str,
    size: int = 10,
    load_s: float = 10.0,
    *shared: Component,
    room: int = 0,
    staged_s: float | None = None,
) -> ModelKnown:
    """What a model needs: a part of its own, and those it shares."""
    return ModelKnown(model, (Component(model, "base", size), *shared), load_s, staged_s, room)


class Unforeseeing(Foresight):
    """Values as ours does, and loads nothing before it is asked for."""

    foresees = False


class Pool:
    """A line, its engines, and what happens to them. Every job takes what it costs."""

    def __init__(self, *known: ModelKnown, foresees: bool = False) -> None:
        self.line = Line(keeper=Foresight() if foresees else Unforeseeing())
        self.now = 0.0
        self.known = {one.model: one for one in known}
        self.engines: dict[str, EngineUp] = {}
        self.models: dict[str, list[str]] = {}  # warm, by engine
        self.loading: dict[str, LoadModel] = {}  # by engine
        self.jobs: dict[str, JobQueued] = {}  # unfinished
        self.running: dict[str, str] = {}  # job -> engine
        self.started_at: dict[str, float] = {}
        self.loads: list[LoadModel] = []
        self.failing: set[tuple[str, str]] = set()  # engine, model
        self.arenas: dict[str, Arena] = {}  # by engine: where blocks don't move
        self._ends: list[tuple[float, int, str, str]] = []
        self._order = 0
        for one in known:
            self.tell(one)

    def up(
        self, name: str = "e0", budget: int = 20, models: tuple[str, ...] = (), **more: Any
    ) -> list[Decision]:
        """An engine comes up, with a budget; ``blocks``: its memory can be torn."""
        rows = more.pop("rows", 1)
        if more.pop("blocks", False):
            self.arenas[name] = Arena(budget)
            assert self.arenas[name].hold(self._parts([*models]))
        up = EngineUp(name, models, rows, budget_bytes=budget, **more)
        self.engines[name], self.models[name] = up, list(models)
        return self.tell(up)

    def tell(self, event: PolicyEvent) -> list[Decision]:
        """Tell the line, carry out what it decides, check the laws."""
        match event:
            case JobQueued():
                self.jobs[event.job_id] = event
            case JobCancelled():
                self.jobs.pop(event.job_id, None)
                self.running.pop(event.job_id, None)
            case ModelsPinned(pinned):
                self.engines = {
                    name: replace(up, pinned=pinned) for name, up in self.engines.items()
                }
            case ModelKnown():
                self.known[event.model] = event
            case ModelGone() if event.engine in self.models:
                self.models[event.engine].remove(event.model)
        decisions = self.line.on(event, self.now)
        for decision in decisions:
            if isinstance(decision, StartAttempt):
                self._start(decision)
            elif isinstance(decision, LoadModel):
                self._load(decision)
        for device in self.line.devices():
            copies = self._parts([*device.staged])
            up = self.engines[device.engine]
            assert sum(copies.values()) <= up.staging_bytes, "copies over their budget"
        return decisions

    def run(self, until: float = float("inf")) -> None:
        """Go on until a moment, or until nothing happens any more."""
        while True:
            end = self._ends[0][0] if self._ends else float("inf")
            deadline = self.line.next_deadline()
            due = end if deadline is None else min(end, deadline)
            if due > until or due == float("inf"):
                break
            self.now = max(self.now, due)
            if due < end:
                self.tell(TimePassed())
            else:
                self._happen(*heapq.heappop(self._ends)[2:])
        self.now = max(self.now, until) if until != float("inf") else self.now

    def loses(self, model: str, engine: str = "e0") -> None:
        """An engine whose memory can be torn loses a model, and says what that leaves."""
        self.tell(ModelGone(engine, model))
        self._settle(engine)
        self._tell_memory(engine)

    def taken(self, engine: str) -> int:
        """Bytes of all that is on an engine or on its way there, and of what it keeps free, or the
        largest adapters of a job that runs there."""
        names = [*self.models[engine], *(it.model for it in self._of(engine))]
        known = [self.known[name] for name in names]
        parts = {part.id: part.bytes for one in known for part in one.components}
        room = max((one.room_bytes for one in known), default=0)
        kept = {line.name: line.bytes for line in self.engines[engine].reserves}
        there = [self.jobs[it].adapters for it, where in self.running.items() if where == engine]
        past = [sum(max(0, it.bytes - kept.get(it.name, 0)) for it in each) for each in there]
        return sum(parts.values()) + room + sum(kept.values()) + max(past, default=0)

    def _of(self, engine: str) -> list[LoadModel]:
        return [self.loading[engine]] if engine in self.loading else []

    def _start(self, start: StartAttempt) -> None:
        job = self.jobs[start.job_id]
        assert job.model in self.models[start.engine], "its model isn't warm there"
        there = [self.jobs[it].rows for it, where in self.running.items() if where == start.engine]
        up = self.engines[start.engine]
        assert not there or sum(there) + job.rows <= up.rows_max
        self.running[start.job_id] = start.engine
        if job.adapters:
            assert self.taken(start.engine) <= up.budget_bytes, "no room for its adapters"
        self.started_at.setdefault(start.job_id, self.now)
        self._later(job.cost_s, "end", start.job_id)

    def _load(self, load: LoadModel) -> None:
        up, there = self.engines[load.engine], self.models[load.engine]
        using = {self.jobs[it].model for it, where in self.running.items() if where == load.engine}
        assert load.engine not in self.loading, "one load at a time"
        assert load.model not in there or load.model in load.evict or load.why == "room"
        assert set(load.evict) <= set(there)
        assert not using & set(load.evict), "rows lose their model"
        if load.why != "anew":  # those come back
            assert not set(up.pinned) & set(load.evict), "a pinned model is evicted"
        if load.why == "predicted":
            waiting = {job.model for it, job in self.jobs.items() if it not in self.running}
            assert not waiting & set(load.evict), "a guess takes what a job waits for"
        if load.why == "anew":
            self._is_quiet(load)
        self.models[load.engine] = [name for name in there if name not in load.evict]
        if load.engine in self.arenas:
            self._settle(load.engine)
        self.loading[load.engine] = load
        assert self.taken(load.engine) <= up.budget_bytes, "over the budget"
        self.loads.append(load)
        self._later(load.load_s, "warm", load.engine)

    def _is_quiet(self, load: LoadModel) -> None:
        """Nothing is laid anew under rows, or while turbo waits for something else."""
        if load.evict:
            assert load.engine not in self.running.values()
        waiting = [job for it, job in self.jobs.items() if it not in self.running]
        turbo = {job.model for job in waiting if job.tier is Tier.TURBO} - {load.model}
        if not load.evict or load.model in load.evict:
            assert not turbo, "for its own sake, while turbo waits"
        if load.model in load.evict:
            assert not waiting

    def _parts(self, models: list[str]) -> dict[str, int]:
        return {part.id: part.bytes for name in models for part in self.known[name].components}

    def _lie(self, engine: str, model: str) -> bool:
        """Whether there are blocks for a model that comes."""
        return self.arenas[engine].hold(self._parts([*self.models.get(engine, ()), model]))

    def _settle(self, engine: str) -> None:
        self.arenas[engine].hold(self._parts(self.models[engine]))

    def _tell_memory(self, engine: str, *coming: str) -> None:
        memory, lies = self.arenas[engine].fragmentation, set(self.arenas[engine].settled())
        models = [*self.models[engine], *coming]
        settled = tuple(name for name in models if self._parts([name]).keys() <= lies)
        self.tell(MemorySeen(engine, memory.free, memory.largest, settled))

    def _later(self, in_s: float, what: str, about: str) -> None:
        self._order += 1
        heapq.heappush(self._ends, (self.now + in_s, self._order, what, about))

    def _happen(self, what: str, about: str) -> None:
        if what == "end":
            if about in self.running:
                del self.running[about]
                self.tell(JobSettled(about, self.jobs.pop(about).cost_s))
            return
        model = self.loading.pop(about).model
        if (about, model) in self.failing:
            self.tell(LoadFailed(about, model, "no such file"))
        elif about in self.arenas and not self._lie(about, model):
            self._settle(about)
            self._tell_memory(about)
            self.tell(LoadFailed(about, model, "no block"))
        else:
            if about in self.arenas:
                self._tell_memory(about, model)
            if model not in self.models[about]:
                self.models[about].append(model)
            self.tell(ModelWarmed(about, model))


def by_engine(loads: list[LoadModel]) -> dict[str, list[str]]:
    """The models that were loaded, by engine."""
    found = defaultdict(list)
    for load in loads:
        found[load.engine].append(load.model)
    return dict(found)
