"""Between pictures and latents, in both directions, whatever the autoencoder.

Latents here are the denoiser's: shifted and scaled as the autoencoder's configuration says, which
is what diffusers' pipelines do around their autoencoder. Large pictures go through in tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from calotype.engine.tiles import TILE_PX, in_tiles


class Autoencoder:
    """A model's: variational (AutoencoderKL; Kingma 2013) or plain (AutoencoderTiny)."""

    def __init__(self, vae: Any, pixels_per_latent: int) -> None:
        self._vae, self._pixels_per_latent = vae, pixels_per_latent
        self._is_variational = not type(vae).__name__.startswith("AutoencoderTiny")
        self._tile = TILE_PX // pixels_per_latent

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """One picture's latents, (1, channels, h, w), as (3, height, width), about -1..1, float32,
        on the CPU."""
        latents = self._unscaled(latents).to(self._vae.dtype)

        def decoded(tile: torch.Tensor) -> torch.Tensor:
            picture: torch.Tensor = self._vae.decode(tile, return_dict=False)[0]
            return picture

        high, wide = latents.shape[-2:]
        return in_tiles(decoded, latents, (high, wide), self._tile)[0].float().cpu()

    def encode(
        self, picture: torch.Tensor, generator: torch.Generator | None, *, shifted: bool = True
    ) -> torch.Tensor:
        """Latents (1, channels, h, w), float32, of a picture (1, 3, height, width) in -1..1.

        A variational encoder draws from the generator, as diffusers' pipelines do; without one it
        gives its mean. Without ``shifted`` the autoencoder's shift is left out.
        """
        picture = picture.to(self._vae.device, self._vae.dtype)
        high, wide = (side // self._pixels_per_latent for side in picture.shape[-2:])
        latents = in_tiles(self._encoded, picture, (high, wide), self._tile)
        if self._is_variational:
            spread = DiagonalGaussianDistribution(latents)
            latents = spread.mode() if generator is None else spread.sample(generator)
        latents = latents.float()
        return self._scaled(latents if shifted else latents + self._shift)

    def skip(self, shape: tuple[int, ...], generator: torch.Generator) -> None:
        """Draw what encoding a picture to latents of this shape would draw, and nothing else."""
        if self._is_variational:
            torch.randn(shape, generator=generator)

    def _encoded(self, tile: torch.Tensor) -> torch.Tensor:
        encoded = self._vae.encode(tile)
        found: torch.Tensor = (
            encoded.latent_dist.parameters if self._is_variational else encoded.latents
        )
        return found

    def _scaled(self, latents: torch.Tensor) -> torch.Tensor:
        """From the autoencoder's latents to the denoiser's; the inverse of ``_unscaled``."""
        if (normal := self._normal(latents.device)) is not None:
            mean, std = normal
            return (latents - mean) * self._vae.config.scaling_factor / std
        return (latents - self._shift) * self._vae.config.scaling_factor

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        if (normal := self._normal(latents.device)) is not None:
            mean, std = normal
            return latents * std / self._vae.config.scaling_factor + mean
        return latents / self._vae.config.scaling_factor + self._shift

    @property
    def _shift(self) -> float:
        return float(getattr(self._vae.config, "shift_factor", None) or 0.0)

    def _normal(self, device: torch.device) -> Sequence[torch.Tensor] | None:
        """Mean and deviation of the latents, each (1, channels, 1, 1), where the VAE has them."""
        config = self._vae.config
        if not (getattr(config, "latents_mean", None) and getattr(config, "latents_std", None)):
            return None
        values = (config.latents_mean, config.latents_std)
        return [torch.tensor(one, device=device).view(1, -1, 1, 1) for one in values]
