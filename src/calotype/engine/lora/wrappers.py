"""Layers that add LoRAs to the forwards that ask for them, and leave all others as they are.

A wrapper stands in the denoiser in place of a layer. What the layer answers isn't touched but in
the places of forwards that have a LoRA, so a forward without one keeps its bits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from calotype.engine.lora.reading import Pair
from calotype.engine.lora.work import Current, Group, Work


class Wrapped(torch.nn.Module, ABC):  # type: ignore[misc]  # torch is not followed
    """A layer of the base model, with a bank of low-rank pairs by LoRA."""

    def __init__(self, base: torch.nn.Module, current: Current) -> None:
        super().__init__()
        self.base = base
        self._current = current
        self.bank: dict[str, Pair] = {}

    def __getattr__(self, name: str) -> Any:
        """What the layer has, the wrapper has: diffusers looks at ``weight`` here and there."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, inputs: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's own output, (n, ...), with what the pass's LoRAs add to it."""
        output: torch.Tensor = self.base(inputs, *args, **kwargs)
        if self._current.work is not None:
            self._add(self._current.work, inputs, output)
        return output

    def _add(self, work: Work, inputs: torch.Tensor, output: torch.Tensor) -> None:
        ranks = tuple(
            pair.rank if (pair := self.bank.get(entry.key)) else 0 for entry in work.entries
        )
        for group in work.groups(ranks):
            delta = self._delta(group, inputs).to(output.dtype)
            for entries, forwards in group.turns:
                output.index_add_(0, forwards, delta.index_select(0, entries))

    def pass_bytes(self, keys: Sequence[str]) -> int:
        """What its pairs take, side by side for these entries; none where they go one by one."""
        del keys
        return 0

    @abstractmethod
    def _delta(self, group: Group, inputs: torch.Tensor) -> torch.Tensor:
        """What each entry adds: (entries, ...), as the output of one forward is."""


class WrappedLinear(Wrapped):
    """For (n, width) and (n, ..., width)."""

    def pass_bytes(self, keys: Sequence[str]) -> int:
        """Those of the rank class that takes most: the classes take turns."""
        by_rank: dict[int, int] = {}
        for pair in (self.bank[key] for key in keys if key in self.bank):
            by_rank[pair.rank] = by_rank.get(pair.rank, 0) + pair.bytes
        return max(by_rank.values(), default=0)

    def _delta(self, group: Group, inputs: torch.Tensor) -> torch.Tensor:
        pairs = [self.bank[key] for key in group.keys]
        down = torch.stack([pair.down for pair in pairs])
        up = torch.stack([pair.up for pair in pairs])
        chosen = inputs.index_select(0, group.forwards).to(down.dtype)
        tokens = chosen.reshape(len(pairs), -1, chosen.shape[-1])
        delta = torch.bmm(torch.bmm(tokens, down), up) * group.weights.to(down.dtype)
        return delta.view(*chosen.shape[:-1], -1)


class WrappedConv2d(Wrapped):
    """For (n, channels, height, width): ``down`` has the layer's kernel, ``up`` is 1 x 1.

    Entries go one by one: each sees the same shapes whoever else is there, so nothing else can
    decide its bits. Unfolding, and one product for all, was slower for most shapes that were tried.
    """

    def _delta(self, group: Group, inputs: torch.Tensor) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        count = sum(len(entries) for entries, _ in group.turns)  # without the padding
        for key, forward, weight in zip(
            group.keys[:count], group.forwards.tolist(), group.weights.tolist(), strict=False
        ):
            pair = self.bank[key]
            one = inputs[forward : forward + 1].to(pair.down.dtype)
            low = functional.conv2d(one, pair.down, None, self.base.stride, self.base.padding)
            parts.append(functional.conv2d(low, pair.up) * weight[0][0])
        return torch.cat(parts)


def wrapped(base: torch.nn.Module, current: Current) -> Wrapped:
    """The wrapper for a layer, without any LoRA yet."""
    kind = WrappedConv2d if isinstance(base, torch.nn.Conv2d) else WrappedLinear
    return kind(base, current)
