"""FLUX.1 (Black Forest Labs 2024): CLIP for the gist, T5 for the words, a transformer over packed
latents that has learnt a flow.

How text, shifts, packing and the decoder are used follows FluxPipeline 0.42. Guidance is an input
of the denoiser (of "dev"), or there is none ("schnell"); a negative prompt does nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.engine.families.base import Encoding, Model, tokens_of
from calotype.engine.families.flow import Flow
from calotype.engine.forwards import Forwards

_PATCH = 2  # latents a side that make one token
_T5_TOKENS = 512
_T5_TOKENS_SCHNELL = 256  # what it was distilled with
_SIZE_PX = 1024


class Flux(Flow, Model):
    """Text: ``embeds`` (n, tokens, width), ``pooled`` (n, width), ``guidance`` (n,) or none.

    Rows keep their latents as pictures, (1, channels, h, w); they are packed for each pass.
    """

    family: ClassVar[str] = "flux"
    max_shift: ClassVar[float] = 1.15

    def __init__(self, name: str, build: str, pipeline: Any, device: torch.device) -> None:
        super().__init__(name, build, pipeline, device)
        if len(self.encoders) != 2:
            raise ModelBroken(f"{name}: a text encoder is missing", field="text_encoder")
        if self.denoiser.config.in_channels != self.latent_channels * _PATCH**2:
            raise ModelBroken(f"{name}: a denoiser that wants more than latents is not supported")
        self._embeds_guidance = bool(self.denoiser.config.guidance_embeds)
        self.text_tokens = _T5_TOKENS if self._embeds_guidance else _T5_TOKENS_SCHNELL

    @property
    def default_size(self) -> int:
        """The autoencoder's, in pixels, where it says one that can be; the denoiser knows none."""
        size = int(self.vae.config.sample_size)
        return size if size >= limits.SIZE_PX_MIN else _SIZE_PX

    @property
    def size_multiple(self) -> int:
        """A patch of latents."""
        return self.pixels_per_latent * _PATCH

    def is_guided(self, guidance: float) -> bool:
        """Never by a second forward."""
        del guidance
        return False

    def encode(self, text: str) -> Encoding:
        """T5's last hidden states; CLIP's pooled output. What T5 doesn't read is cut off."""
        tokens, _ = tokens_of(self.tokenizers[0], text)
        pooled = self.encoders[0](tokens.to(self.device)).pooler_output
        tokens, cut = tokens_of(self.tokenizers[1], text, self.text_tokens)
        states = self.encoders[1](tokens.to(self.device))[0]
        return Encoding({"embeds": states.float(), "pooled": pooled.float()}, cut)

    def conditioning(self, width: int, height: int, guidance: float) -> dict[str, torch.Tensor]:
        """``guidance``, if the denoiser embeds it."""
        del width, height
        if not self._embeds_guidance:
            return {}
        return {"guidance": torch.full((1,), guidance, device=self.device)}

    def sigmas(self, steps: int) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """Even steps from 1 to 1 / steps, before the shift."""
        return np.linspace(1.0, 1 / steps, steps)

    def run_denoiser(self, forwards: Forwards, residuals: dict[str, Any]) -> torch.Tensor:
        """One pass of the transformer."""
        dtype, text = self.denoiser.dtype, forwards.text
        high, wide = (int(side) // _PATCH for side in forwards.latents.shape[-2:])
        output: torch.Tensor = self.denoiser(
            hidden_states=packed(forwards.latents).to(dtype),
            timestep=forwards.timesteps / 1000,
            guidance=text.get("guidance"),
            pooled_projections=text["pooled"].to(dtype),
            encoder_hidden_states=text["embeds"].to(dtype),
            txt_ids=torch.zeros((text["embeds"].shape[1], 3), device=self.device),
            img_ids=positions(high, wide).to(self.device),
            return_dict=False,
            **residuals,
        )[0]
        return unpacked(output.float(), high, wide)


def packed(latents: torch.Tensor) -> torch.Tensor:
    """Patches of 2 x 2 latents as tokens: (n, c, h, w) to (n, h/2 * w/2, 4 c), row by row."""
    count, channels, height, width = latents.shape
    patches = latents.view(count, channels, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: torch.Tensor, high: int, wide: int) -> torch.Tensor:
    """The inverse of ``packed``: (n, high * wide, 4 c) to (n, c, 2 high, 2 wide)."""
    count, _, width = tokens.shape
    patches = tokens.view(count, high, wide, width // _PATCH**2, _PATCH, _PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(count, -1, high * _PATCH, wide * _PATCH)


def positions(high: int, wide: int) -> torch.Tensor:
    """Where each token lies: (high * wide, 3) float32, each (0, row, column)."""
    rows, columns = torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
    return torch.stack((torch.zeros_like(rows), rows, columns), dim=-1).flatten(0, 1).float()
