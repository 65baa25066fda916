"""Tensors by their bytes in memory: each storage once, however many share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch


def tensors_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """A module's parameters and buffers; of one that stands for several tensors, those."""
    for tensor in (*module.parameters(), *module.buffers()):
        yield from plain(tensor)


def plain(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor, or what a quantised one is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        for part in tensor.__tensor_flatten__()[0]:
            yield from plain(getattr(tensor, part))
    else:
        yield tensor


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Of all their storages; one that several share counts once."""
    return sum(storages(tensors).values())


def storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    """Bytes of each storage, by what names it while it lives."""
    each = (it.untyped_storage() for it in tensors)
    return {one._cdata: one.nbytes() for one in each}


def by_line(lines: Iterable[tuple[str, Iterable[torch.Tensor]]]) -> dict[str, int]:
    """Bytes by line; a storage that several lines have counts in the first of them."""
    seen: set[int] = set()
    counted: dict[str, int] = {}
    for name, tensors in lines:
        mine = {key: count for key, count in storages(tensors).items() if key not in seen}
        seen.update(mine)
        counted[name] = counted.get(name, 0) + sum(mine.values())
    return counted
