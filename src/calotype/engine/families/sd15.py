"""Stable Diffusion 1.5 and 2 (Rombach 2022): one CLIP encoder, a UNet.

How text and the decoder are used follows StableDiffusionPipeline 0.42. Its safety checker is left
alone: the safety room judges.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from calotype.engine.families.base import Encoding, Model, tokens_of
from calotype.engine.families.guidance import GuidanceInTime
from calotype.engine.forwards import Forwards


class SD15(GuidanceInTime, Model):
    """Text: ``embeds`` (n, tokens, width)."""

    family: ClassVar[str] = "sd15"

    def encode(self, text: str) -> Encoding:
        """The encoder's last hidden states, after its last norm."""
        tokens, cut = tokens_of(self.tokenizers[0], text)
        encoder = self.encoders[0]
        mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            mask = (tokens != self.tokenizers[0].pad_token_id).long().to(self.device)
        states = encoder(tokens.to(self.device), attention_mask=mask)[0]
        end = int((tokens[0] == self.tokenizers[0].eos_token_id).int().argmax())
        return Encoding({"embeds": states.float()}, cut, end)

    def ending(self, encoding: Encoding) -> torch.Tensor:
        """The state at the first end of the text, as CLIP pools."""
        return encoding.tensors["embeds"][0, encoding.end]

    def run_denoiser(self, forwards: Forwards, residuals: dict[str, Any]) -> torch.Tensor:
        """One pass of the UNet."""
        dtype, text = self.denoiser.dtype, forwards.text
        output: torch.Tensor = self.denoiser(
            forwards.latents.to(dtype),
            forwards.timesteps,
            encoder_hidden_states=text["embeds"].to(dtype),
            timestep_cond=self.guidance_input(forwards),
            return_dict=False,
            **residuals,
        )[0]
        return output.float()
