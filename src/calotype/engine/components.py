"""Weights that several models have in common, in memory once.

What is shared are tensors, never modules: each model builds layers of its own around them, so what
is wrapped, patched or compiled in one can't show in another. Nothing here keeps weights alive: they
are there while a model has them. What writes to its weights gives them other memory first
(``lora.merging``), and is no longer found by the old name. What no model has may have a copy in
host memory (``staging``). It knows nothing of files or families.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from calotype.engine.tensors import plain

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Seen:
    """A tensor of a loaded model, and where its numbers were when it was told."""

    tensor: weakref.ref[torch.Tensor]
    places: tuple[int, ...]

    def now(self) -> torch.Tensor | None:
        """The same numbers, or None: they are gone, or the model has others."""
        tensor = self.tensor()
        if tensor is None or _places(tensor) != self.places:
            return None
        return tensor.detach()


class Components:
    """Of one engine, by content. Not thread-safe."""

    def __init__(self, copied: Callable[[str], Tensors | None] = lambda content: None) -> None:
        """``copied`` gives what no model has, if there is a copy of it."""
        self._copied = copied
        self._seen: dict[str, list[dict[str, _Seen]]] = {}  # of each model that has it

    def find(self, content: str) -> Tensors | None:
        """The weights, by name, of a model in memory, or of a copy."""
        return self.live(content) or self._copied(content)

    def live(self, content: str) -> Tensors | None:
        """The weights, by name, if a model in memory has all of them as they were read."""
        for seen in self._seen.get(content, []):
            found = {name: one.now() for name, one in seen.items()}
            whole = {name: it for name, it in found.items() if it is not None}
            if len(whole) == len(seen):
                return whole
        return None

    def tell(self, content: str, module: torch.nn.Module) -> None:
        """A model has these weights, of which this is the module."""
        tensors: Mapping[str, torch.Tensor] = module.state_dict(keep_vars=True)
        seen = {name: _Seen(weakref.ref(it), _places(it)) for name, it in tensors.items()}
        self._seen.setdefault(content, []).append(seen)
        self._forget_gone()

    def _forget_gone(self) -> None:
        kept = {
            content: [seen for seen in each if all(it.tensor() is not None for it in seen.values())]
            for content, each in self._seen.items()
        }
        self._seen = {content: each for content, each in kept.items() if each}


def _places(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(it.data_ptr() for it in plain(tensor))
