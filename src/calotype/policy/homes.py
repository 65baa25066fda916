"""Which engines have which model, and which could be told to load one.

An engine is a model's *home* if the model is warm there or is being loaded. Engines that may be
told to load now (*ready*: up, not paused, nothing being loaded or leaving) are kept by what their
devices can hold, so that of a mixed fleet only those are looked at on which a model fits, small
devices first, and by whether they idle, those that have idled longest first.

It keeps the ledgers; what is to be loaded is decided in ``loads``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy
from itertools import chain, islice

from calotype.core.events import ModelKnown
from calotype.core.nouns import Component, Reserve
from calotype.policy.arena import Fragmentation
from calotype.policy.engines import Claim, Engine, Load, Size
from calotype.policy.kinds import Kind
from calotype.policy.ledger import Ledger, past_reserves

_ROOM_STEPS = 32  # of a device: what adapters need is rounded up to one of so many amounts
_LOOKED_AT = 32  # idle engines of each size, and as many busy ones, among which a load is placed


class Homes:
    """Models and the devices that hold them."""

    def __init__(self) -> None:
        self.known: dict[str, ModelKnown] = {}
        self.counts: dict[str, int] = {}  # homes by model, but for engines that are paused
        self.engines = 0  # that are up, not paused, and load on demand
        self.version = 0  # grows when a load may have become possible that wasn't
        self.claimed: dict[str, Engine] = {}  # some models leave it
        self.unpinned: dict[str, Engine] = {}  # ready, and lacks a pinned model
        self.torn: dict[str, Engine] = {}  # up, and its free memory is in pieces
        self.laying: dict[str, Engine] = {}  # up, and models are to come back to it
        self._sizes: dict[Size, int] = {}  # engines that are up, by what they can hold
        self._idle: dict[Size, dict[str, Engine]] = {}  # ready and without rows, by that
        self._busy: dict[Size, dict[str, Engine]] = {}  # ready and with rows, by that
        self.fits_version = 0  # grows when what a device can hold may have changed, or is news
        # Bytes that a device has left beside a model; below 0: it is too large.
        self._left: dict[tuple[Size, str], int] = {}

    def copy(self, engines: Mapping[str, Engine]) -> Homes:
        """The same of these engines, by name: copies of ours."""
        mine = copy(self)
        mine.counts, mine._sizes = dict(self.counts), dict(self._sizes)
        for kept in ("claimed", "unpinned", "torn", "laying"):
            setattr(mine, kept, {name: engines[name] for name in getattr(self, kept)})
        mine._idle, mine._busy = (
            {size: {name: engines[name] for name in held} for size, held in group.items()}
            for group in (self._idle, self._busy)
        )
        return mine

    # Engines.

    def up(self, engine: Engine) -> None:
        """An engine came up, or goes on after a pause."""
        self._count(engine, 1)
        if engine.ledger is None:
            return
        self._enter(engine)
        self.engines += 1
        self.version += 1
        self.refresh(engine)

    def down(self, engine: Engine) -> None:
        """An engine is gone, or pauses: what was to leave it stays."""
        self.release(engine)
        self.lay(engine, ())
        self.torn.pop(engine.name, None)
        self._count(engine, -1)
        if engine.ledger is None:
            return
        self.engines -= 1
        self._leave(engine)

    def pin(self, engine: Engine, models: tuple[str, ...]) -> None:
        """These are pinned on an engine from now on, and no others."""
        if engine.ledger is None or engine.pinned == models:
            return
        if not engine.is_paused:
            self._leave(engine)
        engine.pinned, engine.size = models, engine.size._replace(pinned=models)
        if not engine.is_paused:
            self._enter(engine)
            self.refresh(engine)
        self.version += 1

    def refresh(self, engine: Engine) -> None:
        """Its rows, or what it loads, have changed."""
        self._put(engine, is_ready=self.is_ready(engine))

    def is_ready(self, engine: Engine) -> bool:
        """Whether an engine that is up may be told to load."""
        return engine.loading is None and engine.claim is None and not engine.is_paused

    def ready(self, known: ModelKnown, *, idle_only: bool = False) -> Iterator[Engine]:
        """Engines that may be told to load and could hold the model; the idle ones first."""
        groups = (self._idle,) if idle_only else (self._idle, self._busy)
        sizes = [size for size in sorted(self._sizes) if self._fits(size, known)]
        return chain.from_iterable(
            islice(group.get(size, {}).values(), _LOOKED_AT) for group in groups for size in sizes
        )

    def could_hold(
        self, model: str, engine: Engine | None = None, beyond: Collection[Size] = ()
    ) -> bool:
        """Whether a device that is up (but for some sizes), or this one, could hold the model
        beside what is pinned there."""
        if (known := self.known.get(model)) is None:
            return False
        if engine is None:
            return any(size not in beyond and self._fits(size, known) for size in self._sizes)
        return engine.ledger is not None and self._fits(engine.size, known)

    def kind(self, model: str, adapters: Collection[Reserve], found: int = 0) -> Kind:
        """Of jobs of a model with these adapters, by the devices that are up.

        Adapters lie in what is kept free for such; what goes past that has to be free beside the
        model, or as much as engines have ``found`` to be needed. More than all is never needed.
        """
        kind = Kind(model)
        if not (adapters or found) or (known := self.known.get(model)) is None:
            return kind
        beyond, room = list[Size](), list[tuple[Size, int]]()
        for size in sorted(self._sizes):
            left, more = self._beside(size, known), past_reserves(adapters, dict(size.kept))
            step = max(1, size.capacity_bytes // _ROOM_STEPS)
            if more > left:
                beyond.append(size)
            elif wanted := max(more, found):
                room.append((size, min(-(-wanted // step) * step, left)))
        return kind._replace(beyond=tuple(beyond), room=tuple(room))

    @property
    def has_idle(self) -> bool:
        """Whether an engine that may be told to load has no rows."""
        return any(self._idle.values())

    @property
    def has_ready(self) -> bool:
        """Whether an engine may be told to load."""
        return self.has_idle or any(self._busy.values())

    # What lies where.

    def learn(self, known: ModelKnown, engines: Iterable[Engine]) -> None:
        """What a model needs; ledgers that hold it are corrected."""
        before = self.known.get(known.model)
        if before is None or _bytes_of(before) != _bytes_of(known):
            self._left.clear()
            self.fits_version += 1
        self.known[known.model] = known
        for engine in engines:
            if engine.ledger is not None and known.model in engine.ledger:
                engine.ledger = engine.ledger.plus(known)
            if known.model in engine.host:
                engine.host = engine.host.plus(known)
        self.version += 1

    def forget(self, model: str, engines: Iterable[Engine]) -> None:
        """A model is no longer there to be loaded; where it is warm it stays until it has to go."""
        self.known.pop(model, None)
        self._left.clear()
        self.fits_version += 1
        for engine in engines:
            engine.host = engine.host.minus(model)
        self.version += 1

    def lay(self, engine: Engine, back: tuple[str, ...]) -> None:
        """These are to come back to an engine, in this order."""
        engine.anew = back
        if back:
            self.laying[engine.name] = engine
        else:
            self.laying.pop(engine.name, None)

    def seen(
        self, engine: Engine, memory: Fragmentation, settled: tuple[str, ...], *, is_torn: bool
    ) -> None:
        """How an engine's free memory lies; until models come or go there."""
        engine.memory, engine.settled = memory, settled
        self.version += 1
        if is_torn and not engine.is_paused:
            self.torn[engine.name] = engine
        else:
            self.torn.pop(engine.name, None)

    def claim(self, engine: Engine, model: str, leaving: tuple[str, ...], room: int = 0) -> None:
        """Let nothing more of these start there, so that the model can be loaded when they end.

        Or, where it is there already, so that there is so much room beside it.
        """
        engine.claim = Claim(model, leaving, room)
        self.claimed[engine.name] = engine
        for name in leaving:
            if name in engine.models:
                del engine.models[name]
                self._add(name, -1)
        self._expect(engine, model, 1)
        self.refresh(engine)

    def release(self, engine: Engine) -> None:
        """What was to leave an engine stays; nothing to do if nothing was."""
        claim = engine.claim
        if claim is None:
            return
        engine.claim = None
        del self.claimed[engine.name]
        self._expect(engine, claim.model, -1)
        for name in claim.leaving:
            if engine.ledger is not None and name in engine.ledger:
                engine.models[name] = None
                self._add(name, 1)
        self.version += 1
        self.refresh(engine)

    def begin(self, engine: Engine, known: ModelKnown, evict: tuple[str, ...], now: float) -> float:
        """A load begins once these are unloaded; returns the seconds it is expected to take.

        Of a model that is there it takes none: then they leave for the room alone.
        """
        assert engine.ledger is not None, "an engine that loads nothing on demand"
        self.release(engine)
        assert not any(engine.using.get(name) for name in evict), "evicted under its rows"
        for name in evict:
            del engine.models[name]
            self._add(name, -1)
        left = engine.ledger.minus(*evict)  # what only those had is gone with them
        load_s = left.load_s(known, engine.host)
        engine.ledger = left.plus(known)
        assert engine.ledger.free_bytes >= 0, "more than the device's budget"
        engine.host = engine.host.minus(known.model)
        engine.loading = Load(known.model, now + load_s)
        engine.memory, engine.settled = None, ()
        self.torn.pop(engine.name, None)
        self._expect(engine, known.model, 1)
        self.refresh(engine)
        return load_s

    def warmed(self, engine: Engine, model: str) -> None:
        """A model is warm on an engine that is up, whoever wanted it there."""
        was_expected = engine.loading is not None and engine.loading.model == model
        if was_expected:
            engine.loading = None
        engine.host = engine.host.minus(model)
        if model not in engine.models:
            engine.models[model] = None
            if not (was_expected or engine.is_paused):
                self._add(model, 1)
        if engine.ledger is not None:
            if model not in engine.ledger:
                known = self.known.get(model) or ModelKnown(model, (), 0.0)
                engine.ledger = engine.ledger.plus(known)
            self.version += 1
            self.refresh(engine)

    def gone(self, engine: Engine, model: str, *, has_failed: bool = False) -> None:
        """A model is no longer on an engine that is up, or (``has_failed``) couldn't be loaded."""
        is_loading = engine.loading is not None and engine.loading.model == model
        if is_loading and model in engine.models and not has_failed:
            # It was there, and others leave it room: that has yet to be answered.
            del engine.models[model]
            return
        if is_loading or model in engine.models:
            engine.models.pop(model, None)
            if is_loading:
                engine.loading = None
            if not engine.is_paused:
                self._add(model, -1)
        if engine.ledger is not None:
            engine.ledger = engine.ledger.minus(model)
            self.version += 1
            self.refresh(engine)

    def _enter(self, engine: Engine) -> None:
        self.fits_version += engine.size not in self._sizes
        self._sizes[engine.size] = self._sizes.get(engine.size, 0) + 1

    def _leave(self, engine: Engine) -> None:
        self._sizes[engine.size] -= 1
        if not self._sizes[engine.size]:
            del self._sizes[engine.size]
        self._put(engine, is_ready=False)

    def _fits(self, size: Size, known: ModelKnown) -> bool:
        return self._beside(size, known) >= 0

    def _beside(self, size: Size, known: ModelKnown) -> int:
        """Bytes that are left beside a model and what is pinned; below 0 if it is too large."""
        if (left := self._left.get((size, known.model))) is None:
            pinned = (self.known[name] for name in size.pinned if name in self.known)
            left = Ledger(size.capacity_bytes, (), pinned).plus(known).free_bytes
            self._left[size, known.model] = left
        return left

    def _count(self, engine: Engine, sign: int) -> None:
        for model in engine.models:
            self._add(model, sign)
        if engine.loading is not None:
            self._expect(engine, engine.loading.model, sign)

    def _expect(self, engine: Engine, model: str, count: int) -> None:
        """An engine is a home of a model that comes, or no longer; of one it has it is one."""
        if model not in engine.models:
            self._add(model, count)

    def _add(self, model: str, count: int) -> None:
        self.counts[model] = self.counts.get(model, 0) + count
        if not self.counts[model]:
            del self.counts[model]

    def _put(self, engine: Engine, *, is_ready: bool) -> None:
        assert engine.ledger is not None, "an engine that loads nothing on demand"
        name, size = engine.name, engine.size
        idle, busy = self._idle.setdefault(size, {}), self._busy.setdefault(size, {})
        if is_ready and not engine.rows:
            busy.pop(name, None)
            idle.setdefault(name, engine)
        elif is_ready:
            idle.pop(name, None)
            busy.setdefault(name, engine)
        else:
            idle.pop(name, None)
            busy.pop(name, None)
        if is_ready and any(one not in engine.models for one in engine.pinned):
            self.unpinned[name] = engine
        else:
            self.unpinned.pop(name, None)


def _bytes_of(known: ModelKnown) -> tuple[tuple[Component, ...], int]:
    """What decides where a model fits."""
    return known.components, known.room_bytes
