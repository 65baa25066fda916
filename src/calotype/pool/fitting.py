"""Which base models a LoRA, a ControlNet or an autoencoder can be for, by the shapes of tensors.

A LoRA's pairs have the shapes of the layers they are for, and a ControlNet is a copy of a part of
its base. So where a shape isn't among the base's, it is for another. That is all that is said:
whether each layer is the right one is for the engine to find out, with the base in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from calotype.core.headers import Header, Tensor

Shape = tuple[int, ...]
Shapes = frozenset[Shape]

_PART = r"(?:lora_{0}(?:\.default)?|lora_{1}|lora\.{1})\.weight$"
_DOWN = re.compile(r"[._]" + _PART.format("A", "down"))
_UP = re.compile(r"[._]" + _PART.format("B", "up"))
_ENCODERS = ("text_encoder", "lora_te", "te1_", "te2_")  # the engine refuses these, and says so
_TEXT = re.compile(r"attn2[._](?:processor\.)?to_[kv]$")  # what reads the words, in a UNet
_TEXT_WIDTHS = {768: "sd15", 2048: "sdxl"}
_MARKS = (  # parts of names that only one family has
    ("single_transformer_blocks", "flux"),
    ("single_blocks", "flux"),
    ("double_blocks", "flux"),
    ("joint_blocks", "sd3"),
    ("attn_add_q_proj", "sd3"),  # of FLUX's, too, that are above by then
    ("attn.add_q_proj", "sd3"),
)
_TRAINERS = ("ss_base_model_version", "modelspec.architecture")  # where they write the base
_WORDS = (("flux", "flux"), ("sd3", "sd3"), ("stable-diffusion-3", "sd3"), ("xl", "sdxl"),
          ("sd_v1", "sd15"), ("stable-diffusion-v1", "sd15"))  # fmt: skip
_COPIED = ("down_blocks.", "mid_block.", "transformer_blocks.", "single_transformer_blocks.")
_LATENTS_IN = "decoder.conv_in.weight"  # of an autoencoder: (channels, channels of latents, 3, 3)


@dataclass(frozen=True)
class Base:
    """What is known of a base model that something may be for."""

    name: str
    family: str
    shapes: Shapes  # of its denoiser's layers
    latent_channels: int | None = None


def layer_shapes(tensors: Iterable[Tensor], *, is_fused: bool = False) -> Shapes:
    """Shapes of linear layers and convolutions; a kernel of 1 x 1 is none.

    ``is_fused`` for makers' own files, where query, key and value are one layer, and FLUX's single
    blocks have the feed-forward's with them: the parts are added.
    """
    shapes = {_stripped(tensor.shape) for tensor in tensors if len(tensor.shape) in (2, 4)}
    if is_fused:
        for outer, inner in [shape for shape in shapes if len(shape) == 2]:
            if outer == 3 * inner:
                shapes.add((inner, inner))
            if outer == 7 * inner:
                shapes |= {(inner, inner), (4 * inner, inner)}
    return frozenset(shapes)


def lora_shapes(header: Header) -> Shapes:
    """Shapes of the layers that a LoRA's pairs are for; empty where there is no whole pair."""
    return frozenset(_pairs(header).values())


def lora_family(header: Header) -> str | None:
    """The family that a LoRA was made for: as its trainer wrote, or by what only one has."""
    for place in _TRAINERS:
        said = header.told.get(place, "").lower()
        if found := next((family for word, family in _WORDS if word in said), None):
            return found
    for mark, family in _MARKS:
        if any(mark in name for name in header.tensors):
            return family
    widths = {shape[1] for name, shape in _pairs(header).items() if _TEXT.search(name)}
    return _TEXT_WIDTHS.get(widths.pop()) if len(widths) == 1 else None


def control_shapes(header: Header) -> Shapes:
    """Shapes of the layers that a ControlNet has from its base."""
    copied = (it for name, it in header.tensors.items() if name.startswith(_COPIED))
    return layer_shapes(copied)


def latent_channels(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int | None:
    """Channels of the latents that an autoencoder decodes; None if nothing tells."""
    said = config.get("latent_channels")
    if isinstance(said, int):
        return said
    found = next((it for name, it in tensors.items() if name.endswith(_LATENTS_IN)), None)
    return found.shape[1] if found is not None and len(found.shape) == 4 else None


def suited(shapes: Shapes, families: Iterable[str], bases: Iterable[Base]) -> tuple[str, ...]:
    """What an adapter with these shapes may be for, of one of the families (none: of any).

    The bases that are here and have each of the shapes; where there are none, what is missing, in
    words that name no base. Empty if the shapes say nothing.
    """
    families = tuple(families)
    if not shapes:
        return families
    fitting = dict.fromkeys(
        base.name
        for base in bases
        if shapes <= base.shapes and (not families or base.family in families)
    )
    return (
        tuple(fitting)
        or tuple(f"a model of {family} that isn't here" for family in families)
        or ("a model that isn't here",)
    )


def _pairs(header: Header) -> dict[str, Shape]:
    """By layer, as the file names it: (out, in), or with its kernel (out, in, height, width)."""
    downs, ups = _parts(header, _DOWN), _parts(header, _UP)
    return {
        name: _stripped((ups[name][0], *down[1:]))
        for name, down in downs.items()
        if name in ups and len(down) > 1 and ups[name]
    }


def _parts(header: Header, ending: re.Pattern[str]) -> dict[str, Shape]:
    return {
        ending.sub("", name): tensor.shape
        for name, tensor in header.tensors.items()
        if ending.search(name) and not name.startswith(_ENCODERS)
    }


def _stripped(shape: Shape) -> Shape:
    """Without a kernel of 1 x 1: linear layers are written as such convolutions, and back."""
    return shape[:2] if shape[2:] == (1, 1) else shape
