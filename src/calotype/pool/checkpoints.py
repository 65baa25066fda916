"""A base model in one file, as checkpoints are passed around: its family, and its parts' tensors.

By the makers' own names: Stable Diffusion's first code (Rombach 2022) for UNets and autoencoders,
Stability's and Black Forest Labs' for transformers. Only a header is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping

from calotype.core.families import FAMILIES, Family
from calotype.core.headers import Header, Tensor

_DENOISER = "model.diffusion_model."
_VAES = ("first_stage_model.", "vae.")
_CLIP_L, _CLIP_G, _T5 = (f"text_encoders.{name}." for name in ("clip_l", "clip_g", "t5xxl"))
_ENCODERS = {  # by family: where each encoder's tensors are, by diffusers' name of it
    "sd15": {"text_encoder": "cond_stage_model."},
    "sdxl": {
        "text_encoder": "conditioner.embedders.0.",
        "text_encoder_2": "conditioner.embedders.1.",
    },
    "sd3": {"text_encoder": _CLIP_L, "text_encoder_2": _CLIP_G, "text_encoder_3": _T5},
    "flux": {"text_encoder": _CLIP_L, "text_encoder_2": _T5},
}
_MARKS = (  # of a denoiser's names, the first that is there tells the family
    ("flux", ("double_blocks.", "single_blocks.")),
    ("sd3", ("joint_blocks.",)),
    ("sdxl", ("label_emb.",)),
    ("sd15", ("input_blocks.",)),
)
_BESIDE = ("model_ema.", "denoiser.", "cond_stage_model.", "conditioner.", "text_encoders.")


def family_of(header: Header) -> Family | None:
    """The family of a checkpoint; None if there is no denoiser that is known."""
    tops = {name.removeprefix(_DENOISER).split(".")[0] + "." for name in header.tensors}
    for family, marks in _MARKS:
        if any(mark in tops for mark in marks):
            return FAMILIES[family]
    return None


def parts_in(header: Header, family: Family) -> dict[str, dict[str, Tensor]]:
    """A checkpoint's tensors by component, as diffusers names it; only those that are there.

    Some files hold a denoiser and nothing else, without a prefix.
    """
    places: dict[str, tuple[str, ...]] = {
        family.denoiser: (_DENOISER,),
        "vae": _VAES,
        **{name: (prefix,) for name, prefix in _ENCODERS[family.name].items()},
    }
    found = {name: _under(header.tensors, prefixes) for name, prefixes in places.items()}
    if not found[family.denoiser]:
        others = (*_VAES, *_BESIDE)
        found[family.denoiser] = {
            name: tensor for name, tensor in header.tensors.items() if not name.startswith(others)
        }
    return {name: tensors for name, tensors in found.items() if tensors}


def _under(tensors: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}
