"""A base model made resident: text in, denoising passes, pictures out.

Loads a folder in diffusers' layout with diffusers' own pipeline class and uses its components; how
text, micro-conditioning and the decoder are used follows StableDiffusionXLPipeline 0.42. It knows
nothing of rows, samplers or batching.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from calotype.core.errors import InvalidInput, ModelBroken
from calotype.core.messages import LoadModel
from calotype.engine.buckets import steady
from calotype.engine.device import weights_dtype
from calotype.engine.forwards import Forwards

FAMILIES = ("StableDiffusionXLPipeline",)  # pipeline classes an engine can run
_TIME_IDS = 6  # height and width of the original, top and left of the crop, height and width


@dataclass(frozen=True)
class Encoding:
    """A text as the denoiser reads it, float32."""

    embeds: torch.Tensor  # (1, tokens, width): both encoders' last but one hidden states
    pooled: torch.Tensor  # (1, width): the second encoder's projection
    tokens_cut: int = 0  # that didn't fit


class Model:
    """One resident base model. Everything it does is for one picture, but ``denoise``.

    Gradients are the caller's to turn off (``torch.inference_mode``): the loop does so once.
    """

    def __init__(self, name: str, build: str, pipeline: Any, device: torch.device) -> None:
        """Take over a loaded pipeline's components; raise ModelBroken if it needs what we lack."""
        self.name, self.build, self.device = name, build, device
        self.vae, self.unet = pipeline.vae, pipeline.unet
        self._texts = (
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        )
        self._zeros_for_empty = bool(pipeline.config.force_zeros_for_empty_prompt)
        self.scheduler_config: dict[str, Any] = dict(pipeline.scheduler.config)
        self.pixels_per_latent = int(pipeline.vae_scale_factor)  # each way
        if self.unet.config.time_cond_proj_dim is not None:
            raise ModelBroken(f"{name}: a denoiser that embeds its guidance is not supported yet")
        steady(self.unet)

    @property
    def parameter_bytes(self) -> int:
        """Device memory of all weights."""
        parts = (self.vae, self.unet, *(encoder for _, encoder in self._texts))
        return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())

    @property
    def default_size(self) -> int:
        """The side of the pictures it was made for, in pixels."""
        return int(self.unet.config.sample_size) * self.pixels_per_latent

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The shape of a picture's latents; raise InvalidInput if the size can't be made."""
        for field, value in (("width", width), ("height", height)):
            if value < self.pixels_per_latent or value % self.pixels_per_latent:
                detail = f"{field} must be a multiple of {self.pixels_per_latent}, not {value}"
                raise InvalidInput(detail, field=field, limit=self.pixels_per_latent)
        channels = int(self.unet.config.in_channels)
        return (1, channels, height // self.pixels_per_latent, width // self.pixels_per_latent)

    def time_ids(self, width: int, height: int) -> torch.Tensor:
        """The micro-conditioning of an uncropped picture of this size: (1, 6), float32."""
        size = [float(height), float(width)]
        ids = torch.tensor([[*size, 0.0, 0.0, *size]], device=self.device)
        assert ids.shape == (1, _TIME_IDS)
        return ids

    def encode(self, text: str) -> Encoding:
        """Encode one prompt, alone: a neighbour must not change its bits. Cut at the limit."""
        states, pooled, tokens_cut = [], None, 0
        for tokenizer, encoder in self._texts:
            tokens, cut = _tokens(tokenizer, text)
            output = encoder(tokens.to(self.device), output_hidden_states=True)
            pooled = output[0]  # the second's is kept: only it has a projection
            states.append(output.hidden_states[-2])
            tokens_cut = max(tokens_cut, cut)
        assert pooled is not None
        return Encoding(torch.cat(states, dim=-1).float(), pooled.float(), tokens_cut)

    def encode_negative(self, text: str, prompt: Encoding) -> Encoding | None:
        """What the empty text stands for: zeros if the model wants that, else None (encode it)."""
        if text or not self._zeros_for_empty:
            return None
        return Encoding(torch.zeros_like(prompt.embeds), torch.zeros_like(prompt.pooled))

    def denoise(self, forwards: Forwards) -> torch.Tensor:
        """One pass of the denoiser: (n, channels, height, width), float32."""
        dtype = self.unet.dtype
        added = {"text_embeds": forwards.pooled.to(dtype), "time_ids": forwards.time_ids.to(dtype)}
        output: torch.Tensor = self.unet(
            forwards.latents.to(dtype),
            forwards.timesteps,
            encoder_hidden_states=forwards.embeds.to(dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output.float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Turn one picture's latents into (3, height, width), float32, about -1..1, on the CPU."""
        config = self.vae.config
        latents = latents / config.scaling_factor
        if getattr(config, "latents_mean", None) and getattr(config, "latents_std", None):
            mean, std = (
                torch.tensor(values, device=latents.device).view(1, -1, 1, 1)
                for values in (config.latents_mean, config.latents_std)
            )
            latents = latents * std + mean
        picture: torch.Tensor = self.vae.decode(latents, return_dict=False)[0][0]
        return picture.float().cpu()


def _tokens(tokenizer: Any, text: str) -> tuple[torch.Tensor, int]:
    """Token ids, (1, the tokenizer's length) int64, and how many tokens of the text are cut off."""
    length = int(tokenizer.model_max_length)
    whole = len(tokenizer(text).input_ids)  # with its begin and end, as the cut one has them
    ids: torch.Tensor = tokenizer(
        text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids, max(0, whole - length)


def load_model(command: LoadModel, device: torch.device) -> Model:
    """Read a model's folder into memory; raise ModelBroken with the reason if that can't be done.

    Weights become what ``weights_dtype`` says, but the decoder always float32: SDXL's overflows in
    half precision.
    """
    folder = Path(command.path)
    try:
        family = json.loads((folder / "model_index.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelBroken(f"{command.name}: no readable model_index.json ({error})") from error
    if family not in FAMILIES:
        raise ModelBroken(f"{command.name}: family {family} is not supported", limit=FAMILIES)
    _be_quiet()
    try:
        pipeline = getattr(diffusers, family).from_pretrained(
            folder,
            dtype=weights_dtype(device),
            local_files_only=True,
            use_safetensors=True,
            add_watermarker=False,  # provenance is another room's work
        )
        pipeline.to(device)
        pipeline.vae.to(torch.float32)
    except Exception as error:  # damaged files fail in each library's own way
        raise ModelBroken(f"{command.name}: {type(error).__name__}: {error}") from error
    return Model(command.name, command.build, pipeline, device)


def _be_quiet() -> None:
    """No progress bars and no advice on the console: the engine speaks in messages."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"diffusers|transformers")
