"""How much of a device's memory is left, and who gives some back when another needs it.

What is needed is the ledger's to say (``memory``), bytes by named line; here is the budget it is
held against. On the CPU nothing else keeps an engine within it, so each pass is asked about
beforehand and one that has no room fails as it would on a GPU: out of memory. It knows no tensors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from calotype.core.errors import OperatorError, TooMany
from calotype.core.messages import ENGINES_VARIABLE, MEMORY_VARIABLE, STAGING_VARIABLE

HOST_SHARE = 0.75  # of the machine's memory, that all engines on it take where nothing is said
GPU_SHARE = 0.92  # of a GPU's; the rest is CUDA's own
_NO_BUDGET = 1 << 62
PASS = ("largest_pass", "adapters")  # lines of the ledger that a pass needs while it runs


class OutOfMemory(MemoryError):
    """The device's budget has no room for this, though its memory may have."""


class Full(TooMany):
    """What has to be kept finds no room now, and nobody there will give any back by himself."""

    short: int = 0  # bytes that it lacks


class Gives(Protocol):
    """Who keeps things that nobody needs now."""

    def give_up(self, count: int) -> None:
        """Forget what no row needs, up to so many bytes."""


class Room:
    """The budget of one device, and what of it is free."""

    def __init__(self, budget: int = _NO_BUDGET) -> None:
        """``budget`` in bytes."""
        self.budget = budget
        # Set by whoever holds it all: what is needed, by line; whether rows will give some back,
        # or a model that is about to leave.
        self.lines: Callable[[], Mapping[str, int]] = dict
        self.is_busy: Callable[[], bool] = lambda: False
        self.is_left: Callable[[], bool] = lambda: False
        self._givers: list[Gives] = []

    def join(self, giver: Gives) -> None:
        """It keeps things that can go when another needs room."""
        self._givers.append(giver)

    def leave(self, giver: Gives) -> None:
        """It keeps nothing any more."""
        self._givers.remove(giver)

    @property
    def is_bounded(self) -> bool:
        """Whether there is a budget at all."""
        return self.budget < _NO_BUDGET

    def free(self, *, without: Collection[str] = ()) -> int:
        """Bytes that no line needs, but those left out; below 0 if more is needed than there is."""
        if not self.is_bounded:
            return self.budget
        return self.budget - sum(n for line, n in self.lines().items() if line not in without)

    def for_a_pass(self) -> int:
        """The same for a pass: there is one at a time."""
        return self.free(without=PASS)

    def make(self, count: int) -> bool:
        """See to it that so many bytes are free; False if what is needed leaves fewer."""
        for giver in self._givers:
            if (short := count - self.free()) > 0:
                giver.give_up(short)
        return self.free() >= count

    def will_grow(self) -> bool:
        """Whether somebody gives some back before long: then it is worth waiting."""
        return self.is_busy() or self.is_left()

    def refusal(self, what: str, count: int, *, without: Collection[str] = ()) -> Full:
        """Why there is no room for it, with the arithmetic; ``without`` as for ``free``."""
        held = {name: count for name, count in self.lines().items() if name not in without}
        lines = ", ".join(f"{name} {count:,}" for name, count in held.items() if count)
        free = self.free(without=without)
        error = Full(
            f"{what} needs {count:,} bytes, and of {self.budget:,} only {max(free, 0):,} are free "
            f"({lines})",
            limit=self.budget,
        )
        error.short = max(count - free, 1)
        return error


def budget_of(total: int, share: float) -> int:
    """Bytes that an engine may use: as told, or a share of its device's.

    Raises OperatorError if CALOTYPE_ENGINE_MEMORY_BYTES isn't a number of at least 1.
    """
    return _number(MEMORY_VARIABLE) or int(total * share)


def staging_budget() -> int:
    """Bytes of host memory for copies of models, as told, or none; raises OperatorError."""
    return _number(STAGING_VARIABLE) or 0


def engines_here() -> int:
    """Engines that share this machine; raises OperatorError if that is told wrongly."""
    return _number(ENGINES_VARIABLE) or 1


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise OperatorError(
            f"{variable} must be a whole number of at least 1, not {text!r}",
            field=variable,
            limit=1,
        )
    return int(text)
