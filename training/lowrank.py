"""Low-rank adapters of the UNet: trained as a sum of weights, kept in diffusers' format.

LoRA (Hu et al. 2021, arXiv:2106.09685): a weight W becomes W + scale B A, where B A has a low rank
and starts at zero. The sum is taken of the weights, not of what two layers answer: on a CPU, where
the UNet is small and its pictures are many, that costs a hundredth of the step and not a third.
A convolution's A has its kernel, its B is 1 x 1, as in peft.

File: ``unet.<module>.lora_A.weight`` and ``.lora_B.weight``, no alpha, so that the scale is 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

PREFIX = "unet."


class LowRank(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Adds B A to the weight of one layer, (out, in) or (out, in, height, width)."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, rank: int) -> None:
        super().__init__()
        outer, inner = layer.weight.shape[:2]
        self.first = nn.Parameter(torch.empty(rank, inner, *layer.weight.shape[2:]))
        self.second = nn.Parameter(torch.zeros(outer, rank))
        nn.init.normal_(self.first, std=1 / math.sqrt(layer.weight[0].numel()))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the adapter added."""
        with torch.autocast("cpu", enabled=False):  # W + B A is small beside W: not in bf16
            return weight + (self.second @ self.first.flatten(1)).view_as(weight)


def layers(unet: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """What has an adapter: attention, feed-forward and convolutions, not what embeds the time."""
    for name, module in unet.named_modules():
        is_embedding = name.split(".")[0] in {"time_embedding", "add_embedding"}
        if isinstance(module, nn.Linear | nn.Conv2d) and not is_embedding:
            yield name, module


def adapt(unet: nn.Module, rank: int) -> None:
    """Freeze the UNet and give each of ``layers`` an adapter that does nothing yet."""
    unet.requires_grad_(requires_grad=False)
    for _, layer in list(layers(unet)):
        parametrize.register_parametrization(layer, "weight", LowRank(layer, rank))


def _pairs(unet: nn.Module) -> Iterator[tuple[str, LowRank]]:
    for name, layer in layers(unet):
        yield name, layer.parametrizations.weight[0]


def save(unet: nn.Module, path: Path, told: dict[str, str] | None = None) -> int:
    """Write the adapters in fp16, ``told`` in the file's header; return the size in bytes."""
    weights = {}
    for name, pair in _pairs(unet):
        first, second = pair.first.detach(), pair.second.detach()
        second = second.view(*second.shape, *(1,) * (first.ndim - 2))
        weights[f"{PREFIX}{name}.lora_A.weight"] = first.half().contiguous()
        weights[f"{PREFIX}{name}.lora_B.weight"] = second.half().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    save_file(weights, beside, {"format": "pt"} | (told or {}))
    beside.replace(path)
    path.chmod(0o644)
    return path.stat().st_size


def merge(unet: nn.Module, path: Path, scale: float = 1.0) -> None:
    """Add the adapters of a file to the weights of a plain UNet, ``scale`` times."""
    kept: dict[str, Any] = load_file(path)
    with torch.no_grad():
        for name, layer in layers(unet):
            first = kept.pop(f"{PREFIX}{name}.lora_A.weight").float()
            second = kept.pop(f"{PREFIX}{name}.lora_B.weight").float()
            layer.weight += scale * (second.flatten(1) @ first.flatten(1)).view_as(layer.weight)
    if kept:
        raise ValueError(f"{path} has weights of no layer: {sorted(kept)[:3]}")
