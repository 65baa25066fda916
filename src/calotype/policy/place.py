"""Which engine: one that has the model warm and room for all of the job's rows.

It knows the engines, what is warm on each, how many rows each holds and what the adapters of jobs
take that run there; nothing of whose turn it is. A job's rows all go to one engine: to one that
idles, if any does; of several to the smallest device, so that the large ones are there for what
needs them; then to that with most free rows, or that came up first. What is loaded where is kept in
``homes``.

For each model and size of device there are heaps of its engines by free rows. A key that has become
too good (rows were taken) is mended when it surfaces; one that became better is entered again. So
each change is one step of a heap for each model that the engine has warm. While only a few engines
have room, as on any busy fleet, those are simply looked at, and no heap is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from heapq import heapify, heappop, heappush, heapreplace

from calotype.core.events import EngineUp, ModelKnown
from calotype.policy.engines import Engine
from calotype.policy.homes import Homes
from calotype.policy.kinds import Kind

WHOLE_ENGINE = 1_000_000  # rows: more than any engine has, so only an empty one fits, and no other
_FEW = 4  # engines with room, whose models are then looked at, and not the models that wait
_STALE_KEPT = 64  # keys that were entered again, before a heap is worth making anew

Held = Mapping[str, Sequence[Kind]]  # by model: kinds for which the engines they may use are kept


class _Ranked:
    """Engines of one model and size by free rows, most first; of equals, the first to come up.

    Those without rows, or (not ``is_empty``) those that hold some. An engine that was closed, lost
    the model, or is of the other sort now, is dropped when it surfaces.
    """

    def __init__(self, model: str, *, is_empty: bool) -> None:
        self._model, self._is_empty = model, is_empty
        self._heap: list[tuple[int, Engine]] = []
        self._keys: dict[Engine, int] = {}

    def enter(self, engine: Engine) -> None:
        key = engine.rows - engine.rows_max
        if self._keys.get(engine, 1) > key:  # keys are below 0
            self._keys[engine] = key
            heappush(self._heap, (key, engine))
            if len(self._heap) > 2 * len(self._keys) + _STALE_KEPT:
                self._heap = [(key, one) for one, key in self._keys.items()]
                heapify(self._heap)

    def best(self) -> Engine | None:
        heap, keys = self._heap, self._keys
        while heap:
            key, engine = heap[0]
            if keys.get(engine) != key:
                heappop(heap)
            elif not self._has(engine):
                heappop(heap)
                del keys[engine]
            elif (now := engine.rows - engine.rows_max) != key:
                keys[engine] = now
                heapreplace(heap, (now, engine))
            else:
                return engine
        return None

    def all(self) -> list[Engine]:
        """In no useful order."""
        return [engine for engine in self._keys if self._has(engine)]

    def _has(self, engine: Engine) -> bool:
        is_sort = engine.is_open and (engine.rows == 0) is self._is_empty
        return is_sort and self._model in engine.models


class Fleet:
    """The engines that are up, in the order they came up."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}
        self._order = 0
        # By model and bytes that devices can hold, the smallest first: without rows, and with some.
        self._empty: dict[str, dict[int, _Ranked]] = {}
        self._partly: dict[str, dict[int, _Ranked]] = {}
        self.opened: dict[str, Engine] = {}  # with room for a row
        self._fresh: dict[Engine, None] = {}  # opened, or with more room, and in no heap as such
        self.rows = self.rows_spare = 0  # room in all; of it that left to heavier tiers
        self.homes = Homes()

    def __len__(self) -> int:
        return len(self._engines)

    def up(self, event: EngineUp) -> None:
        """Count on an engine that holds no rows."""
        assert event.rows_max > event.rows_spare >= 0, "an engine without room"
        self._order += 1
        engine = self._engines[event.engine] = Engine(event, self._order, self.homes.known)
        self.rows += engine.rows_max
        self.rows_spare += engine.rows_spare
        self.homes.up(engine)
        self._admit(engine)

    def gone(self, name: str) -> list[str]:
        """Count on it no longer; the jobs that ran there. Not an error if it isn't known."""
        engine = self._engines.pop(name, None)
        if engine is None:
            return []
        self.rows -= engine.rows_max
        self.rows_spare -= engine.rows_spare
        self._close(engine)
        if not engine.is_paused:
            self.homes.down(engine)
        return list(engine.jobs)

    def pause(self, name: str, *, is_paused: bool) -> bool:
        """Start nothing there, or go on; False if it isn't known, which is no error."""
        engine = self._engines.get(name)
        if engine is None or engine.is_paused == is_paused:
            return engine is not None
        if is_paused:
            self.homes.down(engine)
            engine.is_paused = True
            self._close(engine)
            return True
        engine.is_paused = False
        self.homes.up(engine)
        if engine.rows < engine.rows_max:
            self._admit(engine)
        return True

    def jobs_on(self, name: str) -> list[str]:
        """The jobs that run there, in order of their starts."""
        engine = self._engines.get(name)
        return list(engine.jobs) if engine is not None else []

    def pin(self, models: tuple[str, ...]) -> None:
        """These are pinned on each engine that loads on demand, and no others."""
        for engine in self._engines.values():
            self.homes.pin(engine, models)

    def known(self, known: ModelKnown) -> None:
        """What a model needs, or needs after all."""
        self.homes.learn(known, self._engines.values())

    def warmed(self, name: str, model: str) -> None:
        """An engine has one more model warm; not an error if it isn't known."""
        if engine := self._engines.get(name):
            engine.failing.pop(model, None)
            self.homes.warmed(engine, model)
            self.offer(engine)

    def is_loading(self, name: str, model: str) -> bool:
        """Whether an engine has been told to load this model and has not answered."""
        engine = self._engines.get(name)
        return bool(engine and engine.loading and engine.loading.model == model)

    def failed(self, name: str, model: str) -> None:
        """An engine that is up couldn't load a model: until it can no job waits for it there."""
        engine = self._engines[name]
        engine.failing[model] = None
        self.homes.gone(engine, model, has_failed=True)

    def lost(self, name: str, model: str) -> None:
        """An engine has a model no longer; not an error if it isn't known."""
        if engine := self._engines.get(name):
            self.homes.gone(engine, model)

    def copy_lost(self, name: str, model: str) -> None:
        """An engine has no copy of a model in host memory; not an error if it isn't known."""
        if engine := self._engines.get(name):
            engine.host = engine.host.minus(model)

    def release(self, engine: Engine) -> None:
        """What was to leave an engine stays after all."""
        self.homes.release(engine)
        self.offer(engine)

    def offer(self, engine: Engine) -> None:
        """Jobs of some model can start there that couldn't before."""
        if engine.is_open:
            self._fresh[engine] = None

    def take(self, name: str, job: str, kind: Kind, rows: int) -> None:
        """Give an engine a job's rows to hold; the model is warm there."""
        engine, model = self._engines[name], kind.model
        assert engine.fits(rows), "more rows than the engine may hold"
        assert model in engine.models, "the model isn't warm there"
        assert kind.has_room(engine), "no room for its adapters"
        engine.jobs[job] = model
        engine.lend(job, kind.room_on(engine))
        was_empty = engine.rows == 0
        engine.rows += rows
        has_room = engine.rows < engine.rows_max
        if was_empty or not has_room:  # else its keys are mended when they surface
            self._close(engine)
            if has_room:
                self._admit(engine)
        if engine.ledger is not None:
            engine.using[model] = engine.using.get(model, 0) + 1
            if engine.fresh == model:
                engine.fresh = ""
            if was_empty:
                self.homes.refresh(engine)

    def free(self, name: str, job: str, rows: int) -> None:
        """The job's rows are off the engine; nothing to do if it is gone."""
        engine = self._engines.get(name)
        if engine is None:
            return
        model = engine.jobs.pop(job)
        engine.rows -= rows
        assert engine.rows >= 0, "more rows came off the engine than it held"
        if engine.ledger is not None:
            if job in engine.lent:
                engine.lend(job, 0)
                self.homes.version += 1
            self._unuse(engine, model)
        if engine.rows == 0 or engine.rows < engine.rows_max:
            self._admit(engine)

    def open_kinds(self, waiting: Collection[str]) -> list[str]:
        """Of these models, those that some engine has warm and room for a row."""
        if len(self.opened) > _FEW:
            return [model for model in waiting if self.warm(model, 1)]
        kinds: list[str] = []
        for engine in self.opened.values():
            for model in engine.models:
                if model in waiting and model not in kinds:
                    kinds.append(model)
        return kinds

    def warm(
        self, model: str, rows: int, held: Held | None = None, kind: Kind | None = None
    ) -> Engine | None:
        """The engine on which a job of this model and so many rows starts, or None.

        Engines ``held`` for others are left out, and those on which the job's kind can't start: if
        that is the best one, each that has the model and room for the rows is looked at.
        """
        is_few = len(self.opened) <= _FEW
        if not (is_few or held):
            first = self._first(model, rows)
            if first is None or kind is None or _can_start(kind, first):
                return first
        best: Engine | None = None
        for one in self.opened.values() if is_few else self._all(model):
            if model not in one.models or not one.fits(rows):
                continue
            if best is not None and best.key <= one.key:
                continue
            if (kind is None or _can_start(kind, one)) and not (held and _is_held(one, held)):
                best = one
        return best

    def _first(self, model: str, rows: int) -> Engine | None:
        """The best of all that have the model and room for the rows."""
        self._enter_fresh()
        for ranked in self._empty.get(model, {}).values():
            if (found := ranked.best()) is not None:
                return found
        for ranked in self._partly.get(model, {}).values():
            if (found := ranked.best()) is not None and found.fits(rows):
                return found
        return None

    def in_force(self, kind: Kind) -> Kind:
        """The kind as things stand: nothing is avoided if there is no other engine for it.

        Another is one that is up, busy or not, and could run its model. One that couldn't load that
        the last time is none to wait for.
        """
        if not kind.avoid or any(
            kind.may_use(one) and not one.is_paused and self._could_run(kind.model, one)
            for one in self._engines.values()
        ):
            return kind
        return kind._replace(avoid=())

    def homes_of(self, kind: Kind) -> int:
        """How many homes its model has; 0 if its jobs can start on none of them."""
        count = self.homes.counts.get(kind.model, 0)
        if not count or kind.is_plain or (kind := self.in_force(kind)).is_plain:
            return count
        return count if any(_is_home(kind, one) for one in self._engines.values()) else 0

    def lacked(self, name: str, model: str, short: int) -> int:
        """Bytes that are to be free there, as they are counted here, for adapters that found so
        many too few beside the model; 0 if nothing else lies there that could leave."""
        engine = self._engines[name]
        others = engine.ledger.models if engine.ledger else ()
        if all(other == model or other in engine.pinned for other in others):
            return 0
        return engine.spare_bytes + short

    def engines(self) -> Collection[Engine]:
        """All that are up."""
        return self._engines.values()

    def find(self, name: str) -> Engine | None:
        """An engine that is up."""
        return self._engines.get(name)

    def _unuse(self, engine: Engine, model: str) -> None:
        """A job is over there: its model, or the engine, may be free for another."""
        engine.using[model] -= 1
        if not engine.using[model]:
            del engine.using[model]
            self.homes.version += 1
        if not engine.rows:
            self.homes.refresh(engine)

    def _could_run(self, model: str, engine: Engine) -> bool:
        if model in engine.models:
            return True
        return model not in engine.failing and self.homes.could_hold(model, engine)

    def _all(self, model: str) -> list[Engine]:
        """Engines that have the model and room for a row, in no useful order."""
        self._enter_fresh()
        groups = (self._partly.get(model, {}), self._empty.get(model, {}))
        return [engine for group in groups for ranked in group.values() for engine in ranked.all()]

    def _admit(self, engine: Engine) -> None:
        """Let jobs be placed there, unless it is paused."""
        if engine.is_paused:
            return
        engine.is_open = True
        self.opened[engine.name] = engine
        self._fresh[engine] = None

    def _enter_fresh(self) -> None:
        """Bring the heaps up to date."""
        for engine in self._fresh:
            places = self._partly if engine.rows else self._empty
            size = engine.size.capacity_bytes
            for model in engine.models:
                group = places.setdefault(model, {})
                if (ranked := group.get(size)) is None:
                    ranked = group[size] = _Ranked(model, is_empty=not engine.rows)
                    places[model] = dict(sorted(group.items()))
                ranked.enter(engine)
        self._fresh.clear()

    def _close(self, engine: Engine) -> None:
        """Nothing is placed there until it is admitted again."""
        engine.is_open = False
        self.opened.pop(engine.name, None)
        self._fresh.pop(engine, None)


def _can_start(kind: Kind, engine: Engine) -> bool:
    """Whether its jobs can start there but for rows; the model is warm."""
    return kind.may_use(engine) and kind.has_room(engine)


def _is_home(kind: Kind, engine: Engine) -> bool:
    """Whether its jobs can start there, or will be able to when a load or a claim is through."""
    if engine.is_paused or not kind.may_use(engine):
        return False
    if engine.claim is not None and engine.claim.model == kind.model:
        return True
    return engine.is_home_of(kind.model) and kind.has_room(engine)


def _is_held(engine: Engine, held: Held) -> bool:
    """Whether a job that is to come first waits for rows of this engine."""
    return any(_can_start(kind, engine) for model in engine.models for kind in held.get(model, ()))
