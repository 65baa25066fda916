"""UNets that were taught their guidance: it comes in beside the timestep, not as a second forward.

Models distilled for few steps (Meng 2023; LCM, Luo 2023) are of this kind.
"""

from __future__ import annotations

import math

import torch

from calotype.engine.families.base import Model
from calotype.engine.forwards import Forwards


class GuidanceInTime(Model):
    """Adds ``guidance`` (n, width) to a UNet's inputs, if it has been made for it."""

    @property
    def _guidance_width(self) -> int | None:
        width: int | None = self.denoiser.config.time_cond_proj_dim
        return width

    def is_guided(self, guidance: float) -> bool:
        """Never by a second forward, if the UNet embeds its guidance."""
        return self._guidance_width is None and super().is_guided(guidance)

    def conditioning(self, width: int, height: int, guidance: float) -> dict[str, torch.Tensor]:
        """The guidance's embedding beside what there is else."""
        beside = super().conditioning(width, height, guidance)
        if self._guidance_width is None:
            return beside
        scale = torch.tensor([guidance - 1.0])
        return {**beside, "guidance": embedded(scale, self._guidance_width).to(self.device)}

    def guidance_input(self, forwards: Forwards) -> torch.Tensor | None:
        """What the UNet takes as ``timestep_cond``."""
        guidance = forwards.text.get("guidance")
        return None if guidance is None else guidance.to(self.denoiser.dtype)


def embedded(scales: torch.Tensor, width: int) -> torch.Tensor:
    """Sines, then cosines of 1000 times the scales (n,): (n, width), float32 (Kingma 2021)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10000.0) / (half - 1)))
    angles = 1000.0 * scales[:, None].float() * rates[None]
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)
    return torch.nn.functional.pad(waves, (0, width % 2))
