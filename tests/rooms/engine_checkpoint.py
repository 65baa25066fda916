"""A Stable Diffusion 1.5 folder turned into what checkpoints are passed around as: one file.

The first code's names (Rombach 2022) of a diffusers model's weights, the way back of what
``from_single_file`` does.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.rooms.engine_models import plain_pipeline

_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}
_VAE_PARTS = {
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "downsamplers.0.conv": "downsample.conv",
    "upsamplers.0.conv": "upsample.conv",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "resnets": "block",
}


def as_single_file(folder: Path, single: Path, *, own: tuple[str, ...] = ()) -> Path:
    """Copy the folder's configurations to ``single``, and its weights into one file there.

    Components in ``own`` keep weights of their own and aren't in the file.
    """
    pipeline = plain_pipeline(folder)
    shutil.copytree(folder, single)
    weights: dict[str, torch.Tensor] = {}
    for part, named in (("unet", _unet), ("vae", _vae), ("text_encoder", _text)):
        if part not in own:
            for file in (single / part).glob("*.safetensors"):
                file.unlink()
            weights |= dict(named(getattr(pipeline, part)))
    save_file({name: it.contiguous() for name, it in weights.items()}, single / "model.safetensors")
    return single


def _unet(unet: Any) -> Iterator[tuple[str, torch.Tensor]]:
    places = dict(_UNET_ENDS) | {"mid_block.attentions.0": "middle_block.1"}
    places |= {f"mid_block.resnets.{i}": f"middle_block.{2 * i}" for i in (0, 1)}
    count = 1
    for b, block in enumerate(unet.down_blocks):
        for i in range(len(block.resnets)):
            places[f"down_blocks.{b}.resnets.{i}"] = f"input_blocks.{count}.0"
            places[f"down_blocks.{b}.attentions.{i}"] = f"input_blocks.{count}.1"
            count += 1
        places[f"down_blocks.{b}.downsamplers.0.conv"] = f"input_blocks.{count}.0.op"
        count += bool(block.downsamplers)
    count = 0
    for b, block in enumerate(unet.up_blocks):
        for i in range(len(block.resnets)):
            places[f"up_blocks.{b}.resnets.{i}"] = f"output_blocks.{count}.0"
            places[f"up_blocks.{b}.attentions.{i}"] = f"output_blocks.{count}.1"
            count += 1
        last = 2 if hasattr(block, "attentions") else 1
        places[f"up_blocks.{b}.upsamplers.0.conv"] = f"output_blocks.{count - 1}.{last}.conv"
    for name, tensor in unet.state_dict().items():
        place = next(it for it in sorted(places, reverse=True) if name.startswith(f"{it}."))
        rest = name.removeprefix(place)
        if "resnets" in place:
            rest = _replaced(rest, _RESIDUAL)
        yield f"model.diffusion_model.{places[place]}{rest}", tensor


def _vae(vae: Any) -> Iterator[tuple[str, torch.Tensor]]:
    ups = len(vae.decoder.up_blocks)
    for name, tensor in vae.state_dict().items():
        known = re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{ups - 1 - int(found[1])}", name)
        known = _replaced(known.replace("down_blocks", "down"), _VAE_PARTS)
        is_convolution = ".attn_1." in known and known.endswith("weight") and tensor.ndim == 2
        yield f"first_stage_model.{known}", tensor[..., None, None] if is_convolution else tensor


def _text(encoder: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in encoder.state_dict().items():
        yield f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}", tensor


def _replaced(name: str, parts: Mapping[str, str]) -> str:
    for part, other in parts.items():
        name = re.sub(rf"(^|\.){re.escape(part)}(?=\.|$)", rf"\g<1>{other}", name)
    return name
