"""What ControlNets add to a pass: scattered into zeros, so that to all others nothing is added.

It knows forwards and what steers them, but neither models nor how a ControlNet is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from calotype.engine.forwards import Forwards, Steering

_Said = list[torch.Tensor]  # by one ControlNet, of one forward, each (1, ...)


def residuals(forwards: Forwards, denoiser: Any) -> dict[str, Any]:
    """What the forwards' ControlNets add to one pass, by the names of the denoiser's arguments.

    A forward with several gets their weighted sum, in its own order (as MultiControlNetModel's);
    one with none gets zeros. Nothing if nobody has any.
    """
    asked = [
        (index, steering)
        for index, adapters in enumerate(forwards.adapters)
        for steering in adapters.controls
    ]
    if not asked:
        return {}
    said = _said(forwards, asked)
    kept: dict[tuple[int | None, ...], torch.Tensor | None] = {}  # few tensors serve many places
    added = []
    for which in zip(*(steering.control.net.places for _, steering in asked), strict=True):
        if which not in kept:
            parts = [
                (index, said[number][one], steering.weight)
                for number, ((index, steering), one) in enumerate(zip(asked, which, strict=True))
                if one is not None
            ]
            kept[which] = _scattered(len(forwards), parts)
        added.append(kept[which])
    return asked[0][1].control.net.named(added, denoiser)  # type: ignore[no-any-return]


def _said(forwards: Forwards, asked: Sequence[tuple[int, Steering]]) -> Mapping[int, _Said]:
    """What each of those asked says; each ControlNet runs once for all that ask it."""
    said: dict[int, _Said] = {}
    for control in {id(steering.control): steering.control for _, steering in asked}.values():
        mine = [number for number, (_, it) in enumerate(asked) if it.control is control]
        seen = forwards.take(*(asked[number][0] for number in mine))
        hints = [asked[number][1].picture for number in mine]
        said.update(zip(mine, control.run(seen, hints), strict=True))
    return said


def _scattered(count: int, parts: Sequence[tuple[int, torch.Tensor, float]]) -> torch.Tensor | None:
    """(count, ...) zeros, and at each part's index its tensor (1, ...) by its weight."""
    if not parts:
        return None
    total = parts[0][1].new_zeros(count, *parts[0][1].shape[1:])
    for index, tensor, weight in parts:
        total[index] += tensor[0] * weight
    return total
