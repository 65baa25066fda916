"""Where models lie in a device's memory, what lies between them, and when to lay them anew.

Free bytes are of no use in pieces too small for what has to be loaded. A GPU's allocator says how
torn its memory is (``engine.fragmentation``); on a CPU, where every allocation gets addresses of
its own, an arena stands for such a device, so that the rules are tested and simulated without one.

Laying anew means that an engine ends its rows, unloads and loads again. So it is done in a quiet
moment only: never while turbo waits; for a model that would fit, but finds no block, once nothing
runs there; because memory is torn, only while nobody waits at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from calotype.core.errors import InternalError
from calotype.core.limits import FRAGMENTATION_MAX
from calotype.core.nouns import Tier


class Fit(StrEnum):
    """Which of the free blocks that are large enough is taken."""

    FIRST = "first"  # the one at the lowest place
    BEST = "best"  # the smallest; of equals, the one at the lowest place


class Why(StrEnum):
    """Why models are laid anew."""

    NO_BLOCK = "free bytes suffice for a model that is wanted, but no block does"
    TORN = "free memory is in pieces"


@dataclass(frozen=True)
class Fragmentation:
    """How a device's free memory lies. Bytes."""

    free: int
    largest: int  # block of it

    @property
    def index(self) -> float:
        """0: it is one block; towards 1: it is in ever smaller pieces."""
        return 1.0 - self.largest / self.free if self.free > 0 else 0.0


class Arena:
    """A device's memory as blocks that lie side by side, and don't move."""

    def __init__(self, size: int, fit: Fit = Fit.BEST) -> None:
        """``size`` in bytes."""
        self.size, self._fit = size, fit
        self._blocks: dict[str, tuple[int, int]] = {}  # where each begins, and its bytes

    def __contains__(self, name: object) -> bool:
        return name in self._blocks

    def copy(self) -> Arena:
        """Another one of the same."""
        other = Arena(self.size, self._fit)
        other._blocks = dict(self._blocks)
        return other

    @property
    def blocks(self) -> dict[str, tuple[int, int]]:
        """Where each begins, and its bytes, in the order they lie."""
        return dict(sorted(self._blocks.items(), key=lambda it: it[1]))

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """Where each free block begins, and its bytes, in the order they lie."""
        found, at = [], 0
        there = [(begin, count) for begin, count in self.blocks.values() if count]
        for begin, count in [*there, (self.size, 0)]:
            if begin > at:
                found.append((at, begin - at))
            at = max(at, begin + count)
        return found

    @property
    def fragmentation(self) -> Fragmentation:
        """How its free memory lies."""
        counts = [count for _, count in self.gaps]
        return Fragmentation(sum(counts), max(counts, default=0))

    def place(self, name: str, count: int) -> bool:
        """Put something of so many bytes there; False, and nothing changes, if no block has room.

        Raises InternalError for a name that is there already.
        """
        if name in self._blocks:
            raise InternalError(f"{name} lies in the arena already")
        rooms = [(size, begin) for begin, size in self.gaps if size >= count]
        if count and not rooms:
            return False
        if self._fit is Fit.FIRST:
            begin = min((begin for _, begin in rooms), default=0)
        else:
            begin = min(rooms, default=(0, 0))[1]
        self._blocks[name] = (begin, count)
        return True

    def take(self, name: str) -> None:
        """Take something away; raises InternalError if it isn't there."""
        if name not in self._blocks:
            raise InternalError(f"{name} doesn't lie in the arena")
        del self._blocks[name]

    def hold(self, parts: Mapping[str, int]) -> bool:
        """Have just these, by their bytes: others are taken away, then what is new is placed.

        False if something new found no block: that is left out.
        """
        for name in [one for one in self._blocks if one not in parts]:
            self.take(name)
        missing = [name for name in parts if name not in self._blocks]
        placed = [self.place(name, parts[name]) for name in missing]
        return all(placed)

    def settled(self) -> list[str]:
        """What lies at the beginning without a gap: it may stay when the rest is laid anew."""
        found, at = [], 0
        for name, (begin, count) in self.blocks.items():
            if begin != at and count:
                break
            found.append(name)
            at = begin + count
        return found


@dataclass(frozen=True)
class Anew:
    """Unload these, then load them again in this order."""

    why: Why
    models: tuple[str, ...]


def is_in_pieces(memory: Fragmentation, wanted_bytes: int) -> bool:
    """Whether free bytes suffice for a block, but none is so large."""
    return memory.largest < wanted_bytes <= memory.free


def lay_anew(
    memory: Fragmentation,
    wanted_bytes: int,
    held: Sequence[str],
    *,
    rows: int,
    waiting: Mapping[Tier, int],
    settled: Iterable[str] = (),
    torn_max: float = FRAGMENTATION_MAX,
) -> Anew | None:
    """Whether to lay a device's models anew now, and in which order they are loaded.

    ``wanted_bytes`` is the largest block that a model needs which is to be loaded there, 0 for
    none; ``held`` the models there, those most worth keeping first: loaded first they lie at the
    beginning, and what leaves next leaves its room to the free block behind it. ``rows`` run there,
    and ``waiting`` has how many jobs wait in each tier, but for that model. What is ``settled``
    stays. ``torn_max`` is the index past which memory is torn.
    """
    if waiting.get(Tier.TURBO) or rows:
        return None
    kept = dict.fromkeys(settled)
    models = tuple(name for name in held if name not in kept)
    if is_in_pieces(memory, wanted_bytes):
        return Anew(Why.NO_BLOCK, models)
    if memory.index > torn_max and models and not any(waiting.values()):
        return Anew(Why.TORN, models)
    return None
