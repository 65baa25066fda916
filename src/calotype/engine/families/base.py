"""What all families of base models have in common: text in, denoising passes, pictures out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from calotype.core.errors import InvalidInput
from calotype.core.families import FAMILIES
from calotype.core.nouns import Sampler
from calotype.engine.autoencoder import Autoencoder
from calotype.engine.buckets import steady
from calotype.engine.families.quantising import stored_bytes
from calotype.engine.forwards import Forwards
from calotype.engine.lora.bank import LoraBank
from calotype.engine.residuals import residuals
from calotype.engine.tensors import tensors_of


@dataclass(frozen=True)
class Encoding:
    """A text as the denoiser reads it: tensors by the family's names, each (1, ...), float32."""

    tensors: dict[str, torch.Tensor]
    tokens_cut: int = 0  # that didn't fit
    end: int = 0  # which token ends the text, where the family pools by that

    def zeros(self) -> Encoding:
        """Same shapes, nothing said."""
        return Encoding({name: torch.zeros_like(it) for name, it in self.tensors.items()})


class Model(ABC):
    """One resident base model. Everything it does is for one picture, but ``denoise``.

    Gradients are the caller's to turn off (``torch.inference_mode``): the loop does so once.
    """

    family: ClassVar[str]
    contents: tuple[str, ...] = ()  # of its parts, by which they are shared; empty: not known

    def __init__(self, name: str, build: str, pipeline: Any, device: torch.device) -> None:
        """Take over a loaded pipeline's components; raise ModelBroken if it needs what we lack."""
        self.name, self.build, self.device = name, build, device
        self.vae = pipeline.vae
        self.denoiser: Any = getattr(pipeline, "unet", None) or pipeline.transformer
        self.encoders: tuple[Any, ...] = tuple(
            encoder
            for part in ("text_encoder", "text_encoder_2", "text_encoder_3")
            if (encoder := getattr(pipeline, part, None)) is not None
        )
        self.tokenizers: tuple[Any, ...] = tuple(
            getattr(pipeline, part.replace("text_encoder", "tokenizer"))
            for part in ("text_encoder", "text_encoder_2", "text_encoder_3")
            if getattr(pipeline, part, None) is not None
        )
        self.scheduler_config: dict[str, Any] = dict(pipeline.scheduler.config)
        self.pixels_per_latent = int(pipeline.vae_scale_factor)  # each way
        self.autoencoder = Autoencoder(self.vae, self.pixels_per_latent)
        for module in (self.denoiser, *self.encoders):
            steady(module)
        self.loras = LoraBank(self.denoiser)

    @property
    def samplers(self) -> tuple[Sampler, ...]:
        """Those that suit what it has learnt."""
        return FAMILIES[self.family].samplers

    @property
    def parameter_bytes(self) -> int:
        """Device memory of all weights."""
        parts = (self.vae, self.denoiser, *self.encoders)
        return sum(stored_bytes(p) for part in parts for p in part.parameters())

    def tensors(self) -> Iterator[torch.Tensor]:
        """All its weights, and what is merged into them."""
        for part in (self.vae, self.denoiser, *self.encoders):
            yield from tensors_of(part)
        yield from self.loras.originals()

    @property
    def default_size(self) -> int:
        """The side of the pictures it was made for, in pixels."""
        return int(self.denoiser.config.sample_size) * self.pixels_per_latent

    @property
    def latent_channels(self) -> int:
        """Channels of a picture's latents."""
        return int(self.vae.config.latent_channels)

    @property
    def size_multiple(self) -> int:
        """Width and height must be multiples of it, in pixels."""
        return self.pixels_per_latent

    @property
    def sees_mask(self) -> bool:
        """Whether the denoiser was made for inpainting: it sees the mask and the masked picture."""
        return int(self.denoiser.config.in_channels) == 2 * self.latent_channels + 1

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The shape of a picture's latents; raise InvalidInput if the size can't be made."""
        for field, value in (("width", width), ("height", height)):
            if value < self.size_multiple or value % self.size_multiple:
                detail = f"{field} must be a multiple of {self.size_multiple}, not {value}"
                raise InvalidInput(detail, field=field, limit=self.size_multiple)
        high, wide = height // self.pixels_per_latent, width // self.pixels_per_latent
        return (1, self.latent_channels, high, wide)

    def is_guided(self, guidance: float) -> bool:
        """Whether a step needs two forwards, without and with the prompt (Ho 2022)."""
        return guidance > 1.0

    @abstractmethod
    def encode(self, text: str) -> Encoding:
        """Encode one prompt, alone: a neighbour must not change its bits. Cut at the limit."""

    def encode_negative(self, text: str, prompt: Encoding) -> Encoding:
        """Encode what the picture is guided away from."""
        del prompt
        return self.encode(text)

    def ending(self, encoding: Encoding) -> torch.Tensor:
        """CLIP's embedding of the end of a text, (width,), float32: what all of it says."""
        return encoding.tensors["pooled"][0]

    def conditioning(self, width: int, height: int, guidance: float) -> dict[str, torch.Tensor]:
        """What a forward is told beside the text, each (1, ...), float32."""
        del width, height, guidance
        return {}

    def set_steps(self, scheduler: Any, steps: int, width: int, height: int) -> None:
        """Set a scheduler to so many steps, as the family's pipeline does."""
        del width, height
        scheduler.set_timesteps(steps)

    def denoise(self, forwards: Forwards) -> torch.Tensor:
        """One pass of the denoiser: (n, channels, height, width), float32."""
        with self.loras.using(forwards.adapters):
            return self.run_denoiser(forwards, residuals(forwards, self.denoiser))

    @abstractmethod
    def run_denoiser(self, forwards: Forwards, residuals: dict[str, Any]) -> torch.Tensor:
        """Run it once, ``residuals`` (of ControlNets, by the denoiser's own names) added."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Turn one picture's latents into (3, height, width), float32, about -1..1, on the CPU."""
        return self.autoencoder.decode(latents)


def tokens_of(tokenizer: Any, text: str, length: int | None = None) -> tuple[torch.Tensor, int]:
    """Token ids, (1, length) int64, and how many tokens of the text are cut off.

    ``length`` is the tokenizer's own if None.
    """
    length = length or int(tokenizer.model_max_length)
    whole = len(tokenizer(text).input_ids)  # with its begin and end, as the cut one has them
    ids: torch.Tensor = tokenizer(
        text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    return ids, max(0, whole - length)
