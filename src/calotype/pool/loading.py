"""Which models an engine is told to load: one at a time, and what failed again and again not.

A load that fails, or ends the engine, is tried again with the next process, or when the engine has
nothing else to do; after some failures in a row a breaker lets that rest (``policy.breaker``). So a
model that kills its engine is left out before long, and the others are made pictures with.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from calotype.core.nouns import ModelInfo
from calotype.policy.breaker import BreakerMoved, Breakers, load

log = structlog.get_logger("calotype.pool")


class Loading:
    """One engine's models, through all its lives. Times are seconds that never go back."""

    def __init__(self, engine: str, models: Sequence[ModelInfo]) -> None:
        self._engine, self._models = engine, models
        self._breakers = Breakers()  # by model: they outlive a process
        self._asked: set[str] = set()  # of this process
        self.current: ModelInfo | None = None  # told to load, not answered yet
        self.warm: list[str] = []
        self.failed: dict[str, str] = {}  # model -> reason, in words for those that wait

    def begin(self) -> None:
        """Another process: it has nothing warm, and what failed may be asked for again."""
        self._asked.clear()
        self.current = None
        self.warm, self.failed = [], {}

    def next(self, now: float, *, again: bool = False) -> ModelInfo | None:
        """The model to be loaded now, or None; ``again`` for those that failed in this process."""
        if self.current is not None:
            return None
        for model in self._models:
            name = model.name
            if name in self.warm or (name in self._asked and not again):
                continue
            if self._breakers.may_try(load(self._engine, name), now):
                self._asked.add(name)
                self.current = model
                return model
            if name not in self._asked:
                self._asked.add(name)
                self._failed(name, self._breakers.reason(load(self._engine, name)))
        return None

    @property
    def is_over(self) -> bool:
        """Whether each model was loaded or refused by this process."""
        return self.current is None and len(self._asked) == len(self._models)

    def loaded(self, name: str) -> None:
        """The engine has it warm."""
        self.current = None
        self.warm.append(name)
        self.failed.pop(name, None)
        self._tell(self._breakers.succeeded(load(self._engine, name)))

    def refused(self, name: str, reason: str, now: float) -> None:
        """The engine can't load it."""
        self.current = None
        self._tell(self._breakers.failed(load(self._engine, name), reason, now))
        self._failed(name, reason)

    def died(self, reason: str, now: float) -> None:
        """The engine's process is gone: if it was loading, that is what it died of."""
        if self.current is not None:
            said = f"the engine ended while it loaded it: {reason}"
            self.refused(self.current.name, said, now)

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
