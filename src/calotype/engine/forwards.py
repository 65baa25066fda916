"""The inputs of one pass of the denoiser: forwards stacked along the first axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Steering:
    """A ControlNet at work in one forward."""

    control: Any  # engine.controls.Control: the loaded ControlNet
    picture: torch.Tensor  # as its ControlNet sees it: (1, ...), float32
    weight: float


@dataclass(frozen=True)
class Adapters:
    """What one forward has beside the base model's own weights."""

    loras: tuple[tuple[str, float], ...] = ()  # names in the model's bank, with their weights
    controls: tuple[Steering, ...] = ()


NONE = Adapters()


@dataclass(frozen=True)
class Forwards:
    """``n`` forwards, float32, each with its own timestep. A guided row brings two.

    Rows can share a pass if latents and all of ``text`` have the same shapes; nothing else of them
    needs to be equal.
    """

    latents: torch.Tensor  # (n, channels, height, width), scaled for the model
    timesteps: torch.Tensor  # (n,)
    text: dict[str, torch.Tensor]  # by the family's names, each (n, ...)
    adapters: tuple[Adapters, ...] = field(default=())  # n, or empty: none anywhere

    def __post_init__(self) -> None:
        if not self.adapters:
            object.__setattr__(self, "adapters", (NONE,) * len(self))

    def __len__(self) -> int:
        return int(self.latents.shape[0])

    def take(self, *indices: int) -> Forwards:
        """Those forwards, in that order, repeats allowed."""
        chosen = list(indices)
        return Forwards(
            latents=self.latents[chosen],
            timesteps=self.timesteps[chosen],
            text={name: tensor[chosen] for name, tensor in self.text.items()},
            adapters=tuple(self.adapters[index] for index in indices),
        )

    def padded(self, bucket: int) -> Forwards:
        """Add forwards of zeros up to ``bucket``; their outputs are thrown away."""
        missing = bucket - len(self)
        assert missing >= 0, f"{len(self)} forwards don't fit a bucket of {bucket}"
        if not missing:
            return self

        def longer(tensor: torch.Tensor) -> torch.Tensor:
            return torch.cat((tensor, tensor.new_zeros(missing, *tensor.shape[1:])))

        return Forwards(
            latents=longer(self.latents),
            timesteps=longer(self.timesteps),
            text={name: longer(tensor) for name, tensor in self.text.items()},
            adapters=(*self.adapters, *(NONE,) * missing),
        )

    def with_adapters(self, adapters: Adapters) -> Forwards:
        """The same forwards, each with these."""
        return replace(self, adapters=(adapters,) * len(self))


def joined(parts: Sequence[Forwards]) -> Forwards:
    """Stack the forwards of several rows of one key, in order."""
    return Forwards(
        latents=torch.cat([part.latents for part in parts]),
        timesteps=torch.cat([part.timesteps for part in parts]),
        text={name: torch.cat([part.text[name] for part in parts]) for name in parts[0].text},
        adapters=tuple(adapters for part in parts for adapters in part.adapters),
    )
