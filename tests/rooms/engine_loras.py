"""Random LoRAs for tiny models, in the formats that are about."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from calotype.core.messages import RowLora
from calotype.engine.lora.layers import Layer, layers_of

SHARE = 0.5  # of a layer's own weights' scale that a LoRA of weight 1 adds
RANKS = (1, 4, 7, 16, 64)  # of five rank classes but one
_ATTENTION = re.compile(r"attn\d?\.(to_[qkv]|to_out\.0)$")
Name = Callable[[str, str], str]  # of a tensor, from its layer's name and "down", "up" or "alpha"


def is_attention(name: str) -> bool:
    """The projections that the old format has."""
    return bool(_ATTENTION.search(name))


def is_any(name: str) -> bool:
    """Attention, feed-forward, convolutions."""
    return bool(name)


def peft_name(prefix: str = "unet") -> Name:
    """``unet.<layer>.lora_A.weight``."""
    ends = {"down": "lora_A.weight", "up": "lora_B.weight", "alpha": "alpha"}
    return lambda layer, part: f"{prefix}.{layer}.{ends[part]}"


def processor_name(layer: str, part: str) -> str:
    """As diffusers wrote attention's pairs once."""
    owner, _, projection = layer.replace(".to_out.0", ".to_out").rpartition(".")
    return f"unet.{owner}.processor.{projection}_lora.{part}.weight"


def plain_name(layer: str, part: str) -> str:
    """``unet.<layer>.lora.down.weight``."""
    return f"unet.{layer}.lora.{part}.weight"


def kohya_name(layer: str, part: str) -> str:
    """``lora_unet_<layer, underscored>.lora_down.weight``."""
    end = "alpha" if part == "alpha" else f"lora_{part}.weight"
    return f"lora_unet_{layer.replace('.', '_')}.{end}"


def first_name(denoiser: Any) -> Name:
    """kohya's for SDXL, whose blocks are counted through."""
    layers = layers_of(denoiser)
    olds = {
        name: alias
        for alias, name in layers.aliases.items()
        if alias.startswith(("input_blocks", "middle_block", "output_blocks"))
    }
    return lambda layer, part: kohya_name(olds[layer], part)


def random_tensors(
    denoiser: Any,
    name: Name,
    *,
    rank: int = 4,
    alpha: float | None = None,
    seed: int = 0,
    chosen: Callable[[str], bool] = is_any,
) -> dict[str, torch.Tensor]:
    """Pairs for the chosen layers of a denoiser, float32, that change its pictures."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in _layers(denoiser, chosen):
        weight = denoiser.get_submodule(layer.name).weight
        outer, inner, *kernel = layer.shape
        wide = weight[0].numel()
        down = torch.randn(rank, inner, *kernel, generator=generator) * wide**-0.5
        up = torch.randn(outer, rank, *(1,) * len(kernel), generator=generator)
        up *= SHARE * float(weight.detach().std()) * (wide / rank) ** 0.5 * (rank / (alpha or rank))
        tensors[name(layer.name, "down")], tensors[name(layer.name, "up")] = down, up
        if alpha is not None:
            tensors[name(layer.name, "alpha")] = torch.tensor(alpha)
    return tensors


def save(tensors: dict[str, torch.Tensor], path: Path, told: dict[str, str] | None = None) -> Path:
    """Write them, whole and contiguous."""
    save_file({key: it.contiguous() for key, it in tensors.items()}, path, told)
    return path


def save_some(model: Path, folder: Path) -> list[Path]:
    """A LoRA of each of ``RANKS`` for a model's UNet; every other one for attention alone."""
    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    chosen: list[Callable[[str], bool]] = [is_any, is_attention]
    return [
        save(
            random_tensors(unet, peft_name(), rank=rank, seed=number, chosen=chosen[number % 2]),
            folder / f"lora{number}.safetensors",
        )
        for number, rank in enumerate(RANKS)
    ]


def lora(path: Path, weight: float = 1.0) -> RowLora:
    """A file as a row asks for it."""
    build = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return RowLora(path.stem, str(path), build, weight)


def _layers(denoiser: Any, chosen: Callable[[str], bool]) -> Iterable[Layer]:
    return [layer for name, layer in layers_of(denoiser).accepted.items() if chosen(name)]
