"""How torn a device's memory is: told by a GPU's allocator, on a CPU by blocks that stand for one.

PyTorch keeps what is freed, in the segments it got from the driver. A segment of which nothing is
in use can go back and be joined to the rest; the free parts of one that is partly in use can't
(``inactive_split_bytes``). So the largest block that can be had is what the driver has free with
all whole segments, and the splits are what is torn. Not run on a GPU: there was none.

On a CPU every allocation gets addresses of its own: nothing is torn, and laying models anew gains
nothing. There an arena (``policy.arena``) says how a device would be torn by what comes and goes,
and no more; only where an engine is told to *act* on it (CALOTYPE_ENGINE_ARENA), to try that, is a
load refused that finds no block.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch

from calotype.core.messages import ARENA_VARIABLE
from calotype.policy.arena import Arena, Fragmentation

Parts = Mapping[str, int]  # bytes of a model's parts, by content


class Blocks:
    """Where models' parts lie on one device, as far as that is known."""

    def __init__(self, device: torch.device, budget: int | None, *, acts: bool = False) -> None:
        """``budget`` in bytes; None: there is no bound, and nothing to tell."""
        self._device, self._budget, self._acts = device, budget, acts
        is_modelled = device.type != "cuda" and budget is not None
        self._arena = Arena(budget) if is_modelled and budget is not None else None

    @property
    def matter(self) -> bool:
        """Whether torn memory is in a model's way here, and the line should know of it."""
        return self._budget is not None and (self._device.type == "cuda" or self._acts)

    def hold(self, parts: Parts, work: int = 0) -> bool:
        """Have these parts there and no others; False if one that is new found no block.

        What passes and decodes need (``work``, bytes) lies at the end, and is nobody else's. Where
        blocks don't matter, all are laid anew then, as if it had been a quiet moment.
        """
        if self._arena is None or self._budget is None:
            return True
        self._arena.size = max(self._budget - work, 0)
        if self._arena.hold(parts):
            return True
        if self._acts:
            return False
        self._arena.hold({})
        self._arena.hold(parts)
        return True

    def seen(self) -> Fragmentation | None:
        """How the free memory lies now; None where there is no bound."""
        if self._budget is None:
            return None
        if self._arena is not None:
            return self._arena.fragmentation
        driver_free, _ = torch.cuda.mem_get_info(self._device)
        return of_stats(torch.cuda.memory_stats(self._device), driver_free, self._budget)

    def settled(self, models: Sequence[tuple[str, Parts]]) -> tuple[str, ...]:
        """Of these, by name and parts, those that lie at the beginning without a gap."""
        if self._arena is None:
            return ()
        there = set(self._arena.settled())
        return tuple(name for name, parts in models if there.issuperset(parts))


def acts_on_arena() -> bool:
    """Whether an engine on a CPU is to work as if its memory were a GPU's."""
    return os.environ.get(ARENA_VARIABLE, "") == "1"


def of_stats(stats: Mapping[str, int], driver_free: int, budget: int) -> Fragmentation:
    """By ``torch.cuda.memory_stats``, and the bytes that the driver has free.

    No more is free than the budget leaves.
    """
    reserved = stats.get("reserved_bytes.all.current", 0)
    allocated = stats.get("allocated_bytes.all.current", 0)
    split = stats.get("inactive_split_bytes.all.current", 0)
    free = min(driver_free + max(reserved - allocated, 0), max(budget - allocated, 0))
    return Fragmentation(free=free, largest=max(free - split, 0))
