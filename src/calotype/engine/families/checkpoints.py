"""Checkpoints as they are passed around, all weights in one file, by their makers' own names.

The names are turned into diffusers' by diffusers' own conversions; which text encoder of a file is
which is told by its place and its width, as ``create_diffusers_clip_model_from_ldm`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_open_clip_checkpoint,
    convert_sd3_t5_checkpoint_to_diffusers,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from calotype.core.errors import ModelBroken
from calotype.core.families import SINGLE_FILE
from calotype.engine.families.parts import fill

Tensors = dict[str, torch.Tensor]
_VAE = ("first_stage_model.", "vae.")
_ENCODERS = ("cond_stage_model.", "conditioner.", "text_encoders.")
_UNUSED = ("model_ema.",)  # training's averages, beside the weights themselves
_T5 = "text_encoders.t5xxl.transformer."
_CLIP_L = "text_encoders.clip_l.transformer."
_CLIP = (
    "cond_stage_model.transformer.",
    "conditioner.embedders.0.transformer.",
    _CLIP_L,
    "text_encoders.clip_g.transformer.",
)
_OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.")
_POSITIONS = "text_model.embeddings.position_embedding.weight"


def wanted(
    dtype: torch.dtype, parts: Collection[str]
) -> Callable[[str, torch.dtype], torch.dtype | None]:
    """As which dtype a tensor of the file is wanted, by its name and dtype there; None: not at all.

    Only of these parts, by diffusers' names; of text encoders all, if any is wanted: which is which
    is told by width. The decoder's are float32 always, and so are T5's last projections among
    float16.
    """
    has_encoders = any(part.startswith("text_encoder") for part in parts)
    has_denoiser = any(part != "vae" and not part.startswith("text_encoder") for part in parts)

    def is_wanted(name: str) -> bool:
        if name.startswith(_VAE):
            return "vae" in parts
        return has_encoders if name.startswith(_ENCODERS) else has_denoiser

    def choose(name: str, stored: torch.dtype) -> torch.dtype | None:
        if name.startswith(_UNUSED) or not is_wanted(name):
            return None
        if not stored.is_floating_point:
            return stored
        is_wide = dtype == torch.float16 and name.startswith(_T5) and "wo" in name.split(".")
        return torch.float32 if is_wide or name.startswith(_VAE) else dtype

    return choose


def fill_part(name: str, module: Any, checkpoint: Mapping[str, torch.Tensor]) -> None:
    """Give a part its weights.

    Raises ModelBroken if the file has none of it, or others than the part's configuration says.
    """
    try:
        found = _convert(module, dict(checkpoint))  # a copy: conversions take things out
        if not found:
            raise ModelBroken(f"no weights of {name}", field=name)
        fill(module, {key: tensor.contiguous() for key, tensor in found.items()}, name)
    except ModelBroken as error:
        raise ModelBroken(f"{SINGLE_FILE}: {error.detail}", field=error.field) from error
    except (KeyError, IndexError, ValueError, RuntimeError) as error:  # other tensors than wanted
        raise ModelBroken(
            f"{SINGLE_FILE} isn't what the folder describes: {type(error).__name__}: {error}"[:500]
        ) from error


def _convert(module: Any, checkpoint: Tensors) -> Tensors:
    found: Tensors
    if isinstance(module, T5EncoderModel):
        found = convert_sd3_t5_checkpoint_to_diffusers(checkpoint)
        return found
    if isinstance(module, CLIPTextModel | CLIPTextModelWithProjection):
        return _clip(module, checkpoint)
    if module.state_dict().keys() == checkpoint.keys():
        return checkpoint
    for kind in type(module).__mro__:
        if ways := SINGLE_FILE_LOADABLE_CLASSES.get(kind.__name__):
            found = ways["checkpoint_mapping_fn"](checkpoint=checkpoint, config=module.config)
            return found
    return {}


def _clip(module: Any, checkpoint: Tensors) -> Tensors:
    width = module.config.hidden_size
    found: Tensors
    for prefix in _CLIP:
        if _has(checkpoint, prefix + _POSITIONS, width):
            found = convert_ldm_clip_checkpoint(
                {key: it for key, it in checkpoint.items() if key.startswith(prefix)}, prefix
            )
            if prefix == _CLIP_L:  # such files have no projection of it: none is
                like = checkpoint[prefix + _POSITIONS]
                found["text_projection.weight"] = torch.eye(width).to(like)
            return found
    for prefix in _OPEN_CLIP:
        if _has(checkpoint, f"{prefix}positional_embedding", width):
            found = convert_open_clip_checkpoint(module, checkpoint, prefix=prefix)
            return found
    return {}


def _has(checkpoint: Tensors, name: str, width: int) -> bool:
    return name in checkpoint and checkpoint[name].shape[-1] == width
