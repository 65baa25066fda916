"""Which models an engine is told to load: one at a time, and what failed again and again not.

At its start it is told those that fit its budget together, pinned ones first; all of them if it
names no budget. Then it is told what is asked of it, and to make room first. A load that fails, or
ends the engine, is tried again with the next process, or when the engine has nothing else to do;
after some failures in a row a breaker lets that rest (``policy.breaker``). So a model that kills
its engine is left out before long, and the others are made pictures with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import structlog

from calotype.core.events import ModelKnown
from calotype.core.nouns import ModelInfo, Reserve
from calotype.policy.breaker import BreakerMoved, Breakers, load
from calotype.policy.ledger import Ledger

log = structlog.get_logger("calotype.pool")

# Of a budget, what is kept free of base models; what a model's passes need is counted beside it.
RESERVES = {"loras": 0.025, "controls": 0.05, "rows": 0.025, "overhead": 0.05}


@dataclass(frozen=True)
class Order:
    """A model to be loaded, once others have left."""

    model: ModelInfo
    evict: tuple[str, ...] = ()
    stage: tuple[str, ...] = ()  # of those: a copy stays in host memory
    unstage: tuple[str, ...] = ()  # copies that make room for them
    is_asked: bool = False  # by the pool's user, who waits for the answer


@dataclass
class Coming:
    """A model that is being loaded. Times are seconds that never go back."""

    order: Order
    begun_at: float
    done: int = 0  # bytes that were read
    total: int = 0  # bytes; 0: that isn't known yet


def reserves_of(budget_bytes: int) -> tuple[Reserve, ...]:
    """What an engine with this budget keeps free of base models; nothing where there is none."""
    if not budget_bytes:
        return ()
    return tuple(Reserve(name, int(budget_bytes * share)) for name, share in RESERVES.items())


def _bare(model: ModelInfo) -> ModelInfo:
    """Without its checks: of those, other versions take their places while it is warm."""
    return replace(model, checks=(), trials=())


class Loading:
    """One engine's models, through all its lives. Times are seconds that never go back."""

    def __init__(
        self, engine: str, models: Sequence[ModelInfo], pinned: Sequence[str] = ()
    ) -> None:
        """``pinned`` are names of models that are loaded first."""
        self._engine, self._models = engine, list(models)
        self.pin(pinned)
        self._breakers = Breakers()  # by model: they outlive a process
        self._rooms: dict[str, int] = {}  # bytes that models were found to need beside weights
        self._crowds: dict[str, frozenset[str]] = {}  # rows that were there when one had no room
        self._ledger: Ledger | None = None  # of this process's device
        self._planned = self._models
        self._asked: deque[Order] = deque()
        self._tried: set[str] = set()  # of the planned, by this process
        self._held: dict[str, ModelInfo] = {}  # as it was loaded, of each warm one
        self._leaving: list[str] = []  # told to be forgotten, not answered yet
        self.current: Coming | None = None  # told to load, not answered yet
        self.warm: list[str] = []
        self.staged: list[str] = []  # with a copy in host memory
        self.failed: dict[str, str] = {}  # model -> reason, in words for those that wait

    def pin(self, pinned: Sequence[str]) -> None:
        """These are loaded first from the next process on."""
        self._models.sort(key=lambda model: model.name not in pinned)

    def begin(self) -> None:
        """Another process: it has nothing warm, and what failed may be asked for again."""
        self._asked.clear()
        self._tried.clear()
        self._held.clear()
        self._leaving.clear()
        self.current, self._ledger = None, None
        self.warm, self.staged, self.failed = [], [], {}
        self._planned = self._models

    def plan(self, budget_bytes: int) -> None:
        """The process has so much memory: what it loads at its start. 0 is no bound."""
        if not budget_bytes:
            return
        ledger, planned = Ledger(budget_bytes, reserves_of(budget_bytes)), []
        for model in self._models:
            known = self._known(model)
            if ledger.fits(known):
                ledger = ledger.plus(known)
                planned.append(model)
        self._ledger, self._planned = Ledger(budget_bytes, ledger.reserves), planned

    @property
    def planned(self) -> tuple[str, ...]:
        """The models it loads at its start, as far as that is known."""
        return tuple(model.name for model in self._planned)

    def ask(self, order: Order) -> None:
        """Load this when it has its turn."""
        self._asked.append(order)

    def next(self, now: float, *, again: bool = False) -> Order | None:
        """What is to be loaded now, or None; ``again`` for those that failed in this process."""
        if self.current is not None:
            return None
        if self._asked:
            order = self._asked.popleft()
            self._breakers.may_try(load(self._engine, order.model.name), now)
            return self._begun(order, now)
        for model in self._left(again=again):
            name = model.name
            if self._breakers.may_try(load(self._engine, name), now):
                self._tried.add(name)
                return self._begun(Order(model), now)
            if name not in self._tried:
                self._tried.add(name)
                self._failed(name, self._breakers.reason(load(self._engine, name)))
        return None

    @property
    def is_over(self) -> bool:
        """Whether each planned model was loaded or refused by this process."""
        return self.current is None and len(self._tried) == len(self._planned)

    def failing(self, now: float) -> dict[str, str]:
        """What nobody should ask for now, and why: what failed at the start, and what rests."""
        return {
            name: reason
            for name, reason in self.failed.items()
            if name in self.planned or self._rests(name, now)
        }

    def resting(self, now: float) -> frozenset[str]:
        """Models that failed again and again, and aren't tried for a while."""
        return frozenset(name for name in self.failed if self._rests(name, now))

    def progressed(self, done: int, total: int) -> None:
        """So much of the current one is read."""
        if self.current is not None:
            self.current.done, self.current.total = done, total

    def loaded(self, name: str, room_bytes: int = 0) -> Order | None:
        """The engine has it warm; the order that this answers."""
        self._rooms[name] = room_bytes
        self.unstaged(name)
        self._crowds.pop(name, None)
        self._count(name)
        self.failed.pop(name, None)
        self._tell(self._breakers.succeeded(load(self._engine, name)))
        if name in self.warm:
            self.warm.remove(name)
        self.warm.append(name)
        if (order := self._answered()) is not None:
            self._held[name] = _bare(order.model)
        return order

    def is_there(self, order: Order) -> bool:
        """Whether what is asked for is warm as it is; then it counts as answered."""
        name = order.model.name
        if not order.is_asked or name not in self.warm:
            return False
        if self._held.get(name) != _bare(order.model):
            return False
        self._tell(self._breakers.succeeded(load(self._engine, name)))
        self._answered()
        return True

    def refused(
        self,
        name: str,
        reason: str,
        now: float,
        *,
        is_full: bool = False,
        rows: Collection[str] = (),
    ) -> Order | None:
        """The engine can't load it, or (``is_full``) only has no room; the order this answers.

        ``rows`` are on the engine. No room is a failure, too, if it was asked for and they didn't
        take it: there are none, or none of those that were there when it had no room before. Each
        further try would cost others their place.
        """
        is_asked = self.current is not None and self.current.order.is_asked
        self.unstaged(name)
        if is_full:  # it waits until it is asked for
            self._planned = [model for model in self._planned if model.name != name]
            self._tried.discard(name)
        before = self._crowds.pop(name, None)
        if is_full:
            self._crowds[name] = frozenset(rows)
        is_crowded = bool(rows) and (before is None or not before.isdisjoint(rows))
        if not is_full or (is_asked and not is_crowded):
            self._tell(self._breakers.failed(load(self._engine, name), reason, now))
            self._failed(name, reason)
        return self._answered()

    def leaves(self, name: str) -> None:
        """The engine is told to forget it: nobody counts on it any longer."""
        self._leaving.append(name)
        self._forget(name)

    def unstaged(self, name: str) -> None:
        """There is no copy of it in host memory, or won't be."""
        if name in self.staged:
            self.staged.remove(name)

    def unloaded(self, name: str, *, is_staged: bool = False) -> bool:
        """The engine has it no longer, or only a copy; whether it was told to forget it."""
        self.unstaged(name)
        if is_staged:
            self.staged.append(name)
        if name in self._leaving:
            self._leaving.remove(name)
            return True
        self._forget(name)
        return False

    def _forget(self, name: str) -> None:
        self._held.pop(name, None)
        if name in self.warm:
            self.warm.remove(name)
        if self._ledger is not None:
            self._ledger = self._ledger.minus(name)

    def died(self, reason: str, now: float, *, is_told: bool = False) -> Order | None:
        """The engine's process is gone: if it was loading, that is what it died of.

        Unless it ``is_told`` to end: then the load is over, and nothing is wrong with the model.
        """
        if is_told or self.current is None:
            self.current = None
            return None
        said = f"the engine ended while it loaded it: {reason}"
        return self.refused(self.current.order.model.name, said, now)

    def _left(self, *, again: bool) -> list[ModelInfo]:
        """Of the planned; what failed on demand is for the asker to try again."""
        if again:
            return [it for it in self._planned if it.name in self.failed and self._fits(it)]
        left = [it for it in self._planned if it.name not in self._tried]
        for model in [it for it in left if not self._fits(it)]:  # one needs more than was known
            left.remove(model)
            self._planned = [it for it in self._planned if it is not model]
        return left

    def has_given_up(self, name: str) -> bool:
        """Whether a model's last failure was one too many."""
        return self._breakers.retry_at(load(self._engine, name)) is not None

    def _rests(self, name: str, now: float) -> bool:
        retry_at = self._breakers.retry_at(load(self._engine, name))
        return retry_at is not None and now < retry_at

    def _begun(self, order: Order, now: float) -> Order:
        self.current = Coming(order, now)
        return order

    def _answered(self) -> Order | None:
        current, self.current = self.current, None
        return current.order if current else None

    def _known(self, model: ModelInfo) -> ModelKnown:
        return ModelKnown(model.name, model.parts, 0.0, room_bytes=self._rooms.get(model.name, 0))

    def _fits(self, model: ModelInfo) -> bool:
        return self._ledger is None or self._ledger.fits(self._known(model))

    def _count(self, name: str) -> None:
        model = next((one for one in self._models if one.name == name), None)
        if self._ledger is not None and model is not None:
            self._ledger = self._ledger.plus(self._known(model))

    def _failed(self, name: str, reason: str) -> None:
        key = load(self._engine, name)
        is_resting = self._breakers.retry_at(key) is not None
        self.failed[name] = f"{reason} (not tried again for a while)" if is_resting else reason

    def _tell(self, moved: BreakerMoved | None) -> None:
        if moved is not None:
            log.warning(
                "breaker_moved",
                kind=moved.key.kind,
                name=moved.key.name,
                device=moved.key.device,
                before=moved.before.value,
                after=moved.after.value,
                reason=moved.reason,
            )
