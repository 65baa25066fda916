"""The layers of a denoiser that a LoRA may change, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

# Where attention, feed-forward and convolution blocks lie. What embeds time, text and size, and
# what normalises the output, lies outside.
_BLOCKS = (
    "down_blocks",
    "mid_block",
    "up_blocks",
    "transformer_blocks",
    "single_transformer_blocks",
)
ACCEPTED = "attention, feed-forward and convolution layers of the denoiser"


@dataclass(frozen=True)
class Layer:
    """The shape of a linear layer, (out, in), or a convolution, (out, in, height, width)."""

    name: str
    shape: tuple[int, ...]

    @property
    def is_convolution(self) -> bool:
        """True for a layer with a kernel."""
        return len(self.shape) == 4

    @property
    def says(self) -> str:
        """Its shape, for people."""
        return " x ".join(str(size) for size in self.shape)


@dataclass(frozen=True)
class Layers:
    """What a LoRA of this base model is checked against; never changes, so any thread may read."""

    accepted: Mapping[str, Layer]
    others: frozenset[str]  # linear layers and convolutions that it must leave alone
    aliases: Mapping[str, str]  # accepted and others, by the names that kohya's files give them


def layers_of(denoiser: torch.nn.Module) -> Layers:
    """Look through a denoiser that no LoRA has changed yet."""
    accepted: dict[str, Layer] = {}
    others: set[str] = set()
    for name, module in denoiser.named_modules():
        shape = _shape(module)
        if shape is None:
            continue
        is_convolution = len(shape) == 4
        if (name.split(".")[0] in _BLOCKS or is_convolution) and _is_plain(module):
            accepted[name] = Layer(name, shape)
        else:
            others.add(name)
    known = [*accepted, *others]
    aliases = {name.replace(".", "_"): name for name in known}
    first = {name: old for old, name in _first_names(denoiser).items()}
    for name in known:
        for end in (*(at for at, it in enumerate(name) if it == "."), len(name)):
            if (old := first.get(name[:end])) is not None:
                aliases[(old + name[end:]).replace(".", "_")] = name
    return Layers(accepted, frozenset(others), aliases)


def _shape(module: torch.nn.Module) -> tuple[int, ...] | None:
    if isinstance(module, torch.nn.Conv2d):
        return (module.out_channels, module.in_channels, *module.kernel_size)
    if hasattr(module, "in_features") and hasattr(module, "out_features"):  # quantised ones, too
        return (int(module.out_features), int(module.in_features))
    return None


def _is_plain(module: torch.nn.Module) -> bool:
    """A convolution of a kind that the usual LoRAs have."""
    if not isinstance(module, torch.nn.Conv2d):
        return True
    usual = (module.groups, module.padding_mode, module.dilation)
    return bool(usual == (1, "zeros", (1, 1)))


def _first_names(unet: Any) -> dict[str, str]:
    """A UNet's modules by the names of its first code (Rombach 2022), which kohya's SDXL has.

    There, blocks are counted through: each residual block with the attention behind it is one, and
    so is each change of size on the way down; on the way up it belongs to the one before.
    """
    if not (hasattr(unet, "down_blocks") and hasattr(unet, "up_blocks")):
        return {}
    found = {"input_blocks.0.0": "conv_in", "out.2": "conv_out"}
    found |= {f"time_embed.{2 * i}": f"time_embedding.linear_{i + 1}" for i in (0, 1)}
    found |= {f"label_emb.0.{2 * i}": f"add_embedding.linear_{i + 1}" for i in (0, 1)}
    count = 1
    for b, block in enumerate(unet.down_blocks):
        for i in range(len(block.resnets)):
            found |= _residual(f"input_blocks.{count}.0", f"down_blocks.{b}.resnets.{i}")
            found[f"input_blocks.{count}.1"] = f"down_blocks.{b}.attentions.{i}"
            count += 1
        if getattr(block, "downsamplers", None):
            found[f"input_blocks.{count}.0.op"] = f"down_blocks.{b}.downsamplers.0.conv"
            count += 1
    for i in (0, 1):
        found |= _residual(f"middle_block.{2 * i}", f"mid_block.resnets.{i}")
    found["middle_block.1"] = "mid_block.attentions.0"
    count = 0
    for b, block in enumerate(unet.up_blocks):
        for i in range(len(block.resnets)):
            found |= _residual(f"output_blocks.{count}.0", f"up_blocks.{b}.resnets.{i}")
            found[f"output_blocks.{count}.1"] = f"up_blocks.{b}.attentions.{i}"
            count += 1
        if getattr(block, "upsamplers", None):
            place = 2 if getattr(block, "attentions", None) else 1
            old = f"output_blocks.{count - 1}.{place}.conv"
            found[old] = f"up_blocks.{b}.upsamplers.0.conv"
    return found


def _residual(old: str, name: str) -> dict[str, str]:
    return {
        f"{old}.in_layers.2": f"{name}.conv1",
        f"{old}.emb_layers.1": f"{name}.time_emb_proj",
        f"{old}.out_layers.3": f"{name}.conv2",
        f"{old}.skip_connection": f"{name}.conv_shortcut",
    }
