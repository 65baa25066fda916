"""Stable Diffusion XL (Podell 2023): two CLIP encoders, a UNet, micro-conditioning.

How text, sizes and the decoder are used follows StableDiffusionXLPipeline 0.42.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from calotype.engine.families.base import Encoding, Model, tokens_of
from calotype.engine.families.guidance import GuidanceInTime
from calotype.engine.forwards import Forwards


class SDXL(GuidanceInTime, Model):
    """Text: ``embeds`` (n, tokens, width), ``pooled`` (n, width), ``time_ids`` (n, 6)."""

    family: ClassVar[str] = "sdxl"

    def __init__(self, name: str, build: str, pipeline: Any, device: torch.device) -> None:
        super().__init__(name, build, pipeline, device)
        self._zeros_for_empty = bool(pipeline.config.force_zeros_for_empty_prompt)

    def encode(self, text: str) -> Encoding:
        """Both encoders' last but one hidden states; the second's projection, pooled."""
        states, pooled, tokens_cut = [], None, 0
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            tokens, cut = tokens_of(tokenizer, text)
            output = encoder(tokens.to(self.device), output_hidden_states=True)
            pooled = output[0]  # the second's is kept: only it has a projection
            states.append(output.hidden_states[-2])
            tokens_cut = max(tokens_cut, cut)
        assert pooled is not None
        tensors = {"embeds": torch.cat(states, dim=-1).float(), "pooled": pooled.float()}
        return Encoding(tensors, tokens_cut)

    def encode_negative(self, text: str, prompt: Encoding) -> Encoding:
        """The empty text stands for zeros, if the model wants that."""
        return prompt.zeros() if not text and self._zeros_for_empty else self.encode(text)

    def conditioning(self, width: int, height: int, guidance: float) -> dict[str, torch.Tensor]:
        """``time_ids``: original size, crop, target size, in pixels, of an uncropped picture."""
        size = [float(height), float(width)]
        time_ids = torch.tensor([[*size, 0.0, 0.0, *size]], device=self.device)
        return {"time_ids": time_ids, **super().conditioning(width, height, guidance)}

    def run_denoiser(self, forwards: Forwards, residuals: dict[str, Any]) -> torch.Tensor:
        """One pass of the UNet."""
        dtype, text = self.denoiser.dtype, forwards.text
        added = {"text_embeds": text["pooled"].to(dtype), "time_ids": text["time_ids"].to(dtype)}
        output: torch.Tensor = self.denoiser(
            forwards.latents.to(dtype),
            forwards.timesteps,
            encoder_hidden_states=text["embeds"].to(dtype),
            timestep_cond=self.guidance_input(forwards),
            added_cond_kwargs=added,
            return_dict=False,
            **residuals,
        )[0]
        return output.float()
