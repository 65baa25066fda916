"""ControlNets (Zhang 2023) of each family: what they want to see, and where they add to their base.

A ControlNet is a copy of a part of its base that has learnt to read a picture; what it says is
added to the base's own states, place by place. How each is fed follows diffusers' pipelines 0.42
(StableDiffusion(XL)ControlNetPipeline, StableDiffusion3ControlNetPipeline, FluxControlNetPipeline)
without guess mode.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import ControlNetModel, FluxControlNetModel, SD3ControlNetModel

from calotype.core.errors import InvalidInput, ModelBroken
from calotype.engine.buckets import steady
from calotype.engine.families.base import Model
from calotype.engine.families.flux import packed, positions
from calotype.engine.forwards import Forwards
from calotype.engine.pictures import signal, unit
from calotype.engine.tensors import bytes_of, tensors_of

Config = Mapping[str, Any]


class ControlNet(ABC):
    """A ControlNet in memory, beside the base it is for."""

    kind: ClassVar[Any]  # diffusers' class
    families: ClassVar[tuple[str, ...]]  # of its bases
    same: ClassVar[tuple[str, ...]]  # what of its configuration must be as in the base's

    def __init__(self, net: Any, model: Model) -> None:
        """Take over a loaded network that ``check`` had no objection to."""
        self.net, self._device = net, model.device
        self._autoencoder = model.autoencoder
        steady(net)

    @classmethod
    def check(cls, name: str, config: Config, model: Model) -> None:
        """Raise InvalidInput if it was made for another base; ModelBroken if it wants too much."""
        base = model.denoiser.config
        for key in cls.same:
            ours, theirs = _plain(config[key]), _plain(base.get(key))
            if ours != theirs:
                raise _other_base(name, key, ours, theirs)
        cls._check_more(name, config, model)

    @classmethod
    @abstractmethod
    def _check_more(cls, name: str, config: Config, model: Model) -> None: ...

    @property
    def bytes(self) -> int:
        """Device memory of its weights."""
        return bytes_of(tensors_of(self.net))

    @abstractmethod
    def hint(self, picture: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """What it sees of a picture, uint8 (height, width, 3): (1, ...), float32.

        Some encode it with the base's autoencoder and draw from the row's generator.
        """

    @abstractmethod
    def run(self, forwards: Forwards) -> list[torch.Tensor]:
        """What it says of forwards whose text holds a ``hint`` (n, ...): each (n, ...)."""

    @property
    @abstractmethod
    def places(self) -> tuple[int | None, ...]:
        """For each place of the base, which of ``run``'s tensors is added there, if any."""

    @staticmethod
    @abstractmethod
    def named(added: Sequence[torch.Tensor | None], base: Any) -> dict[str, Any]:
        """What is added at each place, by the names of the base denoiser's arguments."""


class UNetControl(ControlNet):
    """For Stable Diffusion 1.5, 2 and XL: it adds to the skip connections and the middle."""

    kind = ControlNetModel
    families = ("sd15", "sdxl")
    same = (
        "block_out_channels",
        "down_block_types",
        "layers_per_block",
        "cross_attention_dim",
        "addition_embed_type",
        "projection_class_embeddings_input_dim",
    )

    @classmethod
    def _check_more(cls, name: str, config: Config, model: Model) -> None:
        seen, base = config["in_channels"], model.denoiser.config["in_channels"]
        if seen not in (model.latent_channels, base):
            raise _other_base(name, "in_channels", seen, model.latent_channels)
        if config["conditioning_channels"] != 3 or config["global_pool_conditions"]:
            raise ModelBroken(f"{name}: a ControlNet that isn't led by an RGB picture's places")

    def hint(self, picture: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The picture itself: (1, 3, height, width) in 0..1."""
        del generator
        return unit(picture).to(self._device)

    @property
    def places(self) -> tuple[int | None, ...]:
        """The base's skip connections, then its middle."""
        return tuple(range(len(self.net.controlnet_down_blocks) + 1))

    def run(self, forwards: Forwards) -> list[torch.Tensor]:
        """One for each place."""
        dtype, text, added = self.net.dtype, forwards.text, None
        if self.net.config.addition_embed_type == "text_time":
            added = {
                "text_embeds": text["pooled"].to(dtype),
                "time_ids": text["time_ids"].to(dtype),
            }
        skips, middle = self.net(
            # Without what an inpainting base sees beside the latents.
            forwards.latents[:, : self.net.config.in_channels].to(dtype),
            forwards.timesteps,
            encoder_hidden_states=text["embeds"].to(dtype),
            controlnet_cond=text["hint"].to(dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )
        return [*skips, middle]

    @staticmethod
    def named(added: Sequence[torch.Tensor | None], base: Any) -> dict[str, Any]:
        """As UNet2DConditionModel takes them."""
        del base
        return {
            "down_block_additional_residuals": tuple(added[:-1]),
            "mid_block_additional_residual": added[-1],
        }


class SD3Control(ControlNet):
    """For Stable Diffusion 3 and 3.5: it adds after the transformer's blocks."""

    kind = SD3ControlNetModel
    families = ("sd3",)
    same = ("in_channels", "patch_size", "pooled_projection_dim")

    def __init__(self, net: Any, model: Model) -> None:
        super().__init__(net, model)
        self._blocks = len(model.denoiser.transformer_blocks)
        # Those without a text of their own look at the base's patches.
        self._patches = None if net.config.use_pos_embed else model.denoiser.pos_embed

    @classmethod
    def _check_more(cls, name: str, config: Config, model: Model) -> None:
        base = model.denoiser.config
        _check_width(name, config, base)
        if config["joint_attention_dim"] not in (None, base["joint_attention_dim"]):
            ours, theirs = config["joint_attention_dim"], base["joint_attention_dim"]
            raise _other_base(name, "joint_attention_dim", ours, theirs)
        _check_depth(name, config["num_layers"], base["num_layers"])
        if config["extra_conditioning_channels"]:
            raise ModelBroken(f"{name}: a ControlNet that sees more than a picture")

    def hint(self, picture: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Latents (1, channels, h, w): the mean, where diffusers draws from no seed of the job's.

        InstantX's ControlNets have learnt latents without the autoencoder's shift.
        """
        del generator
        shifted = not self.net.config.force_zeros_for_pooled_projection
        return self._autoencoder.encode(signal(picture), None, shifted=shifted)

    @property
    def places(self) -> tuple[int | None, ...]:
        """After each block of the base; each of its own serves as many, in order."""
        each = self._blocks / len(self.net.transformer_blocks)
        return tuple(int(block / each) for block in range(self._blocks))

    def run(self, forwards: Forwards) -> list[torch.Tensor]:
        """One for each of its own blocks."""
        dtype, config, text = self.net.dtype, self.net.config, forwards.text
        latents, pooled = forwards.latents.to(dtype), text["pooled"].to(dtype)
        states = None if config.joint_attention_dim is None else text["embeds"].to(dtype)
        said: list[torch.Tensor] = self.net(
            hidden_states=latents if self._patches is None else self._patches(latents),
            timestep=forwards.timesteps,
            encoder_hidden_states=states,
            pooled_projections=(
                torch.zeros_like(pooled) if config.force_zeros_for_pooled_projection else pooled
            ),
            controlnet_cond=text["hint"].to(dtype),
            return_dict=False,
        )[0]
        return list(said)

    @staticmethod
    def named(added: Sequence[torch.Tensor | None], base: Any) -> dict[str, Any]:
        """As SD3Transformer2DModel takes them."""
        del base
        return {"block_controlnet_hidden_states": added}


class FluxControl(ControlNet):
    """For FLUX.1: it adds after the blocks of both streams and after those of one."""

    kind = FluxControlNetModel
    families = ("flux",)
    same = ("in_channels", "joint_attention_dim", "pooled_projection_dim")

    def __init__(self, net: Any, model: Model) -> None:
        super().__init__(net, model)
        self._double = len(model.denoiser.transformer_blocks)
        self._single = len(model.denoiser.single_transformer_blocks)

    @classmethod
    def _check_more(cls, name: str, config: Config, model: Model) -> None:
        base = model.denoiser.config
        _check_width(name, config, base)
        _check_depth(name, config["num_layers"], base["num_layers"])
        _check_depth(name, config["num_single_layers"], base["num_single_layers"])
        if config["guidance_embeds"] and not base["guidance_embeds"]:
            raise _other_base(name, "guidance_embeds", True, False)
        if config["num_mode"] is not None:
            raise ModelBroken(f"{name}: a ControlNet for several kinds of pictures")

    def hint(self, picture: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Latents as tokens; for XLabs' ControlNets the picture itself, (1, 3, h, w) in -1..1."""
        if self.net.input_hint_block is not None:
            return signal(picture).to(self._device)
        return packed(self._autoencoder.encode(signal(picture), generator))

    @property
    def places(self) -> tuple[int | None, ...]:
        """After each block of both streams, then after each of one."""
        double, single = len(self.net.transformer_blocks), len(self.net.single_transformer_blocks)
        if self.net.input_hint_block is not None:  # XLabs' few serve one after another
            first = [block % double if double else None for block in range(self._double)]
        else:
            first = _spread(0, double, self._double)
        return (*first, *_spread(double, single, self._single))

    def run(self, forwards: Forwards) -> list[torch.Tensor]:
        """One for each of its own blocks, in the same order."""
        dtype, text = self.net.dtype, forwards.text
        tokens = packed(forwards.latents).to(dtype)
        high, wide = (int(side) // 2 for side in forwards.latents.shape[-2:])
        double, single = self.net(
            hidden_states=tokens,
            controlnet_cond=text["hint"].to(dtype),
            timestep=forwards.timesteps / 1000,
            guidance=text["guidance"] if self.net.config.guidance_embeds else None,
            pooled_projections=text["pooled"].to(dtype),
            encoder_hidden_states=text["embeds"].to(dtype),
            txt_ids=torch.zeros((text["embeds"].shape[1], 3), device=tokens.device),
            img_ids=positions(high, wide).to(tokens.device),
            return_dict=False,
        )
        return [*(double or ()), *(single or ())]

    @staticmethod
    def named(added: Sequence[torch.Tensor | None], base: Any) -> dict[str, Any]:
        """As FluxTransformer2DModel takes them."""
        double = len(base.transformer_blocks)
        return {
            "controlnet_block_samples": _unless_missing(added[:double]),
            "controlnet_single_block_samples": _unless_missing(added[double:]),
        }


KINDS: dict[str, type[ControlNet]] = {
    control.kind.__name__: control for control in (UNetControl, SD3Control, FluxControl)
}


def _spread(begin: int, count: int, blocks: int) -> list[int | None]:
    """Which of ``count``, numbered from ``begin``, speaks after each of more blocks."""
    if not count:
        return [None] * blocks
    each = math.ceil(blocks / count)
    return [begin + block // each for block in range(blocks)]


def _unless_missing(added: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor | None] | None:
    return None if any(it is None for it in added) else added


def _check_width(name: str, config: Config, base: Config) -> None:
    ours, theirs = (it["num_attention_heads"] * it["attention_head_dim"] for it in (config, base))
    if ours != theirs:
        raise _other_base(name, "width", ours, theirs)


def _check_depth(name: str, ours: int, theirs: int) -> None:
    if not 0 <= ours <= theirs:
        raise _other_base(name, "number of layers", ours, theirs)


def _other_base(name: str, key: str, ours: Any, theirs: Any) -> InvalidInput:
    return InvalidInput(
        f"the control {name!r} was made for another base: its {key} is {ours}, not {theirs}",
        field="controls",
        limit=theirs,
    )


def _plain(value: Any) -> Any:
    """Sequences compare as lists, whether they come from JSON or from a default."""
    return list(value) if isinstance(value, tuple) else value
