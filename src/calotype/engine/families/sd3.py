"""Stable Diffusion 3 and 3.5 (Esser 2024): two CLIP encoders, a T5 that may be absent, a
transformer that has learnt a flow.

How text, shifts and the decoder are used follows StableDiffusion3Pipeline 0.42.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from calotype.core.errors import ModelBroken
from calotype.engine.families.base import Encoding, Model, tokens_of
from calotype.engine.families.flow import Flow
from calotype.engine.forwards import Forwards

_T5_TOKENS = 256


class SD3(Flow, Model):
    """Text: ``embeds`` (n, CLIP's tokens + 256, width), ``pooled`` (n, width)."""

    family: ClassVar[str] = "sd3"
    max_shift: ClassVar[float] = 1.16

    def __init__(self, name: str, build: str, pipeline: Any, device: torch.device) -> None:
        super().__init__(name, build, pipeline, device)
        if pipeline.text_encoder is None or pipeline.text_encoder_2 is None:
            raise ModelBroken(f"{name}: a text encoder is missing", field="text_encoder")

    @property
    def size_multiple(self) -> int:
        """A patch of latents."""
        return self.pixels_per_latent * int(self.denoiser.config.patch_size)

    def encode(self, text: str) -> Encoding:
        """CLIP's hidden states side by side, padded to T5's width, and T5's after them.

        Without T5 zeros stand for its part. What is cut off is what no encoder has read.
        """
        length = int(self.tokenizers[0].model_max_length)
        states, pooled, cuts = [], [], []
        for tokenizer, encoder in zip(self.tokenizers[:2], self.encoders[:2], strict=True):
            tokens, cut = tokens_of(tokenizer, text, length)
            output = encoder(tokens.to(self.device), output_hidden_states=True)
            pooled.append(output[0].float())
            states.append(output.hidden_states[-2].float())
            cuts.append(cut)
        clip = torch.cat(states, dim=-1)
        t5, t5_cut = self._t5(text)
        clip = torch.nn.functional.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        tensors = {"embeds": torch.cat((clip, t5), dim=-2), "pooled": torch.cat(pooled, dim=-1)}
        return Encoding(tensors, max(cuts) if t5_cut is None else t5_cut)

    def _t5(self, text: str) -> tuple[torch.Tensor, int | None]:
        """(1, 256, width), float32, and how many tokens are cut off; None without a T5."""
        if len(self.encoders) < 3:
            width = int(self.denoiser.config.joint_attention_dim)
            return torch.zeros((1, _T5_TOKENS, width), device=self.device), None
        tokens, cut = tokens_of(self.tokenizers[2], text, _T5_TOKENS)
        states: torch.Tensor = self.encoders[2](tokens.to(self.device))[0]
        return states.float(), cut

    def run_denoiser(self, forwards: Forwards, residuals: dict[str, Any]) -> torch.Tensor:
        """One pass of the transformer."""
        dtype, text = self.denoiser.dtype, forwards.text
        output: torch.Tensor = self.denoiser(
            hidden_states=forwards.latents.to(dtype),
            timestep=forwards.timesteps,
            encoder_hidden_states=text["embeds"].to(dtype),
            pooled_projections=text["pooled"].to(dtype),
            return_dict=False,
            **residuals,
        )[0]
        return output.float()
