"""What LoRAs one pass needs: which forward wants which, in an order that no neighbour changes.

Each (forward, LoRA) is an entry. A layer computes its entries in one batch for each rank class;
the classes, and a forward's LoRAs within one, are added in an order that only the forward's own
LoRAs decide. So its bits are the same alone and beside others, if a product's bits don't depend on
how many share its batch. Measured on 2 CPU cores, float32, with one thread and with two: entries of
1..1,024 tokens, 32..1,280 wide, rank classes 4..256, 1..40 in a batch (1,672 combinations of
shapes, both products): no bit ever differed from a batch of 2, for the first entry and the last.
A batch of one didn't differ either, but is padded to 2 all the same: ``buckets`` tells of layers
where one row goes to another kernel. Nothing of this was measured on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_ENTRIES_MIN = 2  # in a batch of products


@dataclass(frozen=True)
class Entry:
    """A LoRA at work in one forward."""

    forward: int  # its place in the pass
    key: str  # of the LoRA
    weight: float


@dataclass(frozen=True)
class Group:
    """Entries of one rank class, at least two; what is padded repeats the first."""

    keys: tuple[str, ...]
    forwards: torch.Tensor  # (entries,), int64
    weights: torch.Tensor  # (entries, 1, 1), float32
    turns: tuple[tuple[torch.Tensor, torch.Tensor], ...]  # entries, and forwards, to be added
    # together: no forward is twice in one, so that the order of its sum is known on any device


class Work:
    """One pass. The same few groups serve all its layers, so they are made once."""

    def __init__(self, wanted: Sequence[Sequence[tuple[str, float]]], device: torch.device) -> None:
        """``wanted``: for each forward its LoRAs' keys and weights."""
        self.entries = tuple(
            Entry(forward, key, weight)
            for forward, loras in enumerate(wanted)
            for key, weight in loras
            if weight
        )
        self._device = device
        self._groups: dict[tuple[int, ...], tuple[Group, ...]] = {}

    def groups(self, ranks: tuple[int, ...]) -> tuple[Group, ...]:
        """The batches of a layer in which the entries have these rank classes; 0: no part in it."""
        if ranks not in self._groups:
            classes = sorted({rank for rank in ranks if rank})
            self._groups[ranks] = tuple(
                self._group([e for e, r in zip(self.entries, ranks, strict=True) if r == rank])
                for rank in classes
            )
        return self._groups[ranks]

    def _group(self, entries: Sequence[Entry]) -> Group:
        padded = [*entries, *[entries[0]] * (_ENTRIES_MIN - len(entries))]
        turns: list[list[int]] = []
        seen: dict[int, int] = {}
        for place, entry in enumerate(entries):
            turn = seen[entry.forward] = seen.get(entry.forward, -1) + 1
            if turn == len(turns):
                turns.append([])
            turns[turn].append(place)
        return Group(
            keys=tuple(entry.key for entry in padded),
            forwards=self._indices([entry.forward for entry in padded]),
            weights=torch.tensor([e.weight for e in padded], device=self._device).view(-1, 1, 1),
            turns=tuple(
                (self._indices(turn), self._indices([entries[place].forward for place in turn]))
                for turn in turns
            ),
        )

    def _indices(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, device=self._device)


@dataclass
class Current:
    """The pass that runs now; None when no forward of it has a LoRA."""

    work: Work | None = None
