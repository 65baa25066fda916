"""How a row begins: from noise, from a picture, or from a picture of which a part may change.

It follows diffusers' image-to-image and inpainting pipelines, in arithmetic and in the order in
which they draw from the generator: the autoencoder's sample of the source, the noise, the
autoencoder's sample of the masked source. It knows nothing of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from calotype.core.messages import RunRow
from calotype.engine.families.base import Model
from calotype.engine.pictures import mask_of, signal
from calotype.engine.samplers import RowSampler


@dataclass(frozen=True)
class Repaint:
    """What a step must leave as it is: the source, outside the mask (Lugmayr 2022, without loops).

    All float32 on the model's device; the first two (1, channels, height, width).
    """

    source: torch.Tensor  # clean latents
    noise: torch.Tensor  # the row's first, so that the source is at the row's noise level
    mask: torch.Tensor  # (1, 1, height, width): 1 may change, 0 not

    def kept(self, latents: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """``latents`` inside the mask, ``source`` outside."""
        return (1 - self.mask) * source + self.mask * latents


@dataclass(frozen=True)
class Beginning:
    """What a row has before its first step, on the model's device, float32."""

    latents: torch.Tensor  # (1, channels, height, width), as noisy as the first step wants them
    repaint: Repaint | None = None
    beside: torch.Tensor | None = None  # (1, 1 + channels, height, width): see ``_beside``


def begin(
    command: RunRow,
    model: Model,
    sampler: RowSampler,
    generator: torch.Generator,
    pictures: Sequence[torch.Tensor],
) -> Beginning:
    """Draw a row's first latents; ``pictures`` are uint8 (height, width, channels).

    At full strength a row with a mask begins from noise alone; one without begins from its source
    all the same, as in diffusers.
    """
    shape = model.latent_shape(command.width, command.height)
    source = None if command.source is None else signal(pictures[command.source])
    mask = None if command.mask is None else mask_of(pictures[command.mask])
    is_blank = source is None or (mask is not None and command.strength >= 1.0)
    clean = None
    if source is not None and not (is_blank and model.sees_mask):
        clean = model.autoencoder.encode(source, generator)
    noise = torch.randn(shape, generator=generator).to(model.device)
    latents = noise * sampler.noise_scale
    if clean is not None and not is_blank:
        latents = sampler.noised(clean, noise, 0)
    if model.sees_mask:
        return Beginning(latents, beside=_beside(model, shape, source, mask, generator))
    if mask is None or clean is None:
        return Beginning(latents)
    model.autoencoder.skip(shape, generator)  # the pipelines encode the masked source for nothing
    return Beginning(latents, Repaint(clean, noise, _small(mask, shape).to(model.device)))


def _beside(
    model: Model,
    shape: tuple[int, int, int, int],
    source: torch.Tensor | None,
    mask: torch.Tensor | None,
    generator: torch.Generator,
) -> torch.Tensor:
    """What an inpainting denoiser sees beside the latents: the mask, and the rest of the picture.

    Without a mask all of it may change: then there is no rest, and what may change is grey.
    """
    pixels = [side * model.pixels_per_latent for side in shape[-2:]]
    if mask is None or source is None:
        mask, rest = torch.ones(1, 1, *pixels), torch.zeros(1, 3, *pixels)
    else:
        rest = source * (mask < 0.5)
    latents = model.autoencoder.encode(rest, generator)
    return torch.cat((_small(mask, shape).to(latents), latents), dim=1)


def _small(mask: torch.Tensor, shape: tuple[int, int, int, int]) -> torch.Tensor:
    """The mask at the latents' size: the pixel at each latent's corner decides."""
    return torch.nn.functional.interpolate(mask, size=shape[-2:])
