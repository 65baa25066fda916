"""The inputs of one pass of the denoiser: forwards stacked along the first axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True)
class Forwards:
    """``n`` forwards, float32, each with its own timestep. A guided row brings two."""

    latents: torch.Tensor  # (n, channels, height, width), scaled for the model
    timesteps: torch.Tensor  # (n,)
    embeds: torch.Tensor  # (n, tokens, width)
    pooled: torch.Tensor  # (n, width)
    time_ids: torch.Tensor  # (n, 6): original size, crop, target size, in pixels

    def __len__(self) -> int:
        return int(self.latents.shape[0])

    def take(self, *indices: int) -> Forwards:
        """Those forwards, in that order, repeats allowed."""
        return Forwards(*(getattr(self, field.name)[list(indices)] for field in fields(self)))

    def padded(self, bucket: int) -> Forwards:
        """Add forwards of zeros up to ``bucket``; their outputs are thrown away."""
        missing = bucket - len(self)
        assert missing >= 0, f"{len(self)} forwards don't fit a bucket of {bucket}"
        if not missing:
            return self
        tensors = (getattr(self, field.name) for field in fields(self))
        return Forwards(*(torch.cat((t, t.new_zeros(missing, *t.shape[1:]))) for t in tensors))


def joined(parts: Sequence[Forwards]) -> Forwards:
    """Stack the forwards of several rows of one key, in order."""
    names = [field.name for field in fields(Forwards)]
    return Forwards(*(torch.cat([getattr(part, name) for part in parts]) for name in names))
