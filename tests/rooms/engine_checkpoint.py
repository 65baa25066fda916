"""A model's folder turned into what checkpoints are passed around as: one file.

The makers' own names of a diffusers model's weights, the way back of what ``from_single_file``
does: Stable Diffusion's first code (Rombach 2022) for UNets and autoencoders, OpenCLIP's for the
second encoder of Stable Diffusion XL.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.rooms.engine_checkpoint_flow import flux_transformer, sd3_transformer
from tests.rooms.engine_models import plain_pipeline

_Tensors = Iterator[tuple[str, torch.Tensor]]

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
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
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


_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "self_attn": "attn",
}
_OPEN_CLIP_ENDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def as_single_file(
    folder: Path, single: Path, *, own: tuple[str, ...] = (), prefix: str = "model.diffusion_model."
) -> Path:
    """Copy the folder's configurations to ``single``, and its weights into one file there.

    Components in ``own`` keep weights of their own and aren't in the file. ``prefix`` is the
    denoiser's: some files hold nothing else, and have none.
    """
    pipeline = plain_pipeline(folder)
    shutil.copytree(folder, single)
    kind = json.loads((folder / "model_index.json").read_text())["_class_name"]
    weights: dict[str, torch.Tensor] = {}
    for part, (before, named) in _PARTS[kind].items():
        if part not in own and getattr(pipeline, part) is not None:
            for file in (single / part).glob("*.safetensors"):
                file.unlink()
            begin = prefix if before == _DENOISER else before
            weights |= {begin + it: tensor for it, tensor in named(getattr(pipeline, part))}
    save_file({name: it.contiguous() for name, it in weights.items()}, single / "model.safetensors")
    return single


def _unet(unet: Any) -> _Tensors:
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
        yield f"{places[place]}{rest}", tensor


def _vae(vae: Any) -> _Tensors:
    ups = len(vae.decoder.up_blocks)
    for name, tensor in vae.state_dict().items():
        known = re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{ups - 1 - int(found[1])}", name)
        known = _replaced(known.replace("down_blocks", "down"), _VAE_PARTS)
        is_convolution = ".attn_1." in known and known.endswith("weight") and tensor.ndim == 2
        yield known, tensor[..., None, None] if is_convolution else tensor


def _clip(encoder: Any) -> _Tensors:
    for name, tensor in encoder.state_dict().items():
        bare = name.removeprefix("text_model.")
        yield (name if name.startswith("text_projection") else f"text_model.{bare}"), tensor


def _open_clip(encoder: Any) -> _Tensors:
    state = dict(encoder.state_dict())
    yield "text_projection", state.pop("text_projection.weight").T
    for name, tensor in state.items():
        if name in _OPEN_CLIP_ENDS:
            yield _OPEN_CLIP_ENDS[name], tensor
            continue
        place = name.replace("text_model.encoder.layers", "transformer.resblocks")
        if ".q_proj." in name:
            three = [state[name.replace("q_proj", f"{it}_proj")] for it in "qkv"]
            place = place.replace("self_attn.q_proj.", "attn.in_proj_")
            yield place, torch.cat(three)
        elif ".k_proj." not in name and ".v_proj." not in name:
            yield _replaced(place, _OPEN_CLIP), tensor


def _t5(encoder: Any) -> _Tensors:
    """Its table of words is in a file once."""
    for name, tensor in encoder.state_dict().items():
        if name != "encoder.embed_tokens.weight":
            yield name, tensor


_DENOISER = ""
_CLIP_L, _CLIP_G, _T5 = (f"text_encoders.{it}.transformer." for it in ("clip_l", "clip_g", "t5xxl"))
_PARTS: Mapping[str, Mapping[str, tuple[str, Callable[[Any], _Tensors]]]] = {
    "StableDiffusionPipeline": {
        "unet": (_DENOISER, _unet),
        "vae": ("first_stage_model.", _vae),
        "text_encoder": ("cond_stage_model.transformer.", _clip),
    },
    "StableDiffusionXLPipeline": {
        "unet": (_DENOISER, _unet),
        "vae": ("first_stage_model.", _vae),
        "text_encoder": ("conditioner.embedders.0.transformer.", _clip),
        "text_encoder_2": ("conditioner.embedders.1.model.", _open_clip),
    },
    "StableDiffusion3Pipeline": {
        "transformer": (_DENOISER, sd3_transformer),
        "vae": ("first_stage_model.", _vae),
        "text_encoder": (_CLIP_L, _clip),
        "text_encoder_2": (_CLIP_G, _clip),
        "text_encoder_3": (_T5, _t5),
    },
    "FluxPipeline": {
        "transformer": (_DENOISER, flux_transformer),
        "vae": ("vae.", _vae),
        "text_encoder": (_CLIP_L, _clip),
        "text_encoder_2": (_T5, _t5),
    },
}


def _replaced(name: str, parts: Mapping[str, str]) -> str:
    for part, other in parts.items():
        name = re.sub(rf"(^|\.){re.escape(part)}(?=\.|$)", rf"\g<1>{other}", name)
    return name
