"""What the names of a LoRA's tensors mean: diffusers', peft's and kohya's ways of writing them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from calotype.core.errors import AdapterBroken
from calotype.engine.lora.layers import ACCEPTED, Layers


class Part(StrEnum):
    """Of a low-rank pair: y + alpha / rank x up(down(x)). Without an alpha it is the rank."""

    DOWN = "down"
    UP = "up"
    ALPHA = "alpha"


@dataclass(frozen=True)
class Place:
    """Which part of which layer's pair a tensor is."""

    layer: str  # the module's name in the denoiser
    part: Part


_ENDINGS = {
    ".lora_A.weight": Part.DOWN,
    ".lora_B.weight": Part.UP,
    ".lora_A.default.weight": Part.DOWN,
    ".lora_B.default.weight": Part.UP,
    ".lora_down.weight": Part.DOWN,
    ".lora_up.weight": Part.UP,
    ".lora.down.weight": Part.DOWN,
    ".lora.up.weight": Part.UP,
    ".alpha": Part.ALPHA,
}
# diffusers once kept attention's pairs in the processor: attn1.processor.to_q_lora.down.weight
_PROCESSOR = re.compile(r"(?:\.processor)?\.(to_[qkv]|to_out)_lora(\.(?:down|up)\.weight|\.alpha)$")
_DENOISER = ("unet.", "transformer.", "lora_unet_", "lora_transformer_", "diffusion_model.")
_WRAPPED = ("base_model.model.",)
# What must never be changed by a LoRA, by how its names begin.
_OTHER_PARTS = {
    "text_encoder": "a text encoder",
    "lora_te": "a text encoder",
    "te1_": "a text encoder",
    "te2_": "a text encoder",
    "cond_stage_model": "a text encoder",
    "conditioner": "a text encoder",
    "vae": "the autoencoder",
    "lora_vae": "the autoencoder",
    "first_stage_model": "the autoencoder",
    "safety": "a safety model",
}
_OTHER_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "hada_w": "LoHa",
    "hada_t": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "lora_mid": "a three-part LoCon",
    "lora_B.bias": "a LoRA with biases",
    ".diff": "full differences of weights",
}


def place_of(key: str, layers: Layers) -> Place:
    """Find a tensor's place in this base model.

    Raises AdapterBroken, which names the key, for another kind of adapter, for what isn't the
    denoiser's, and for layers that this denoiser hasn't got or that must be left alone.
    """
    bare = _without(key, _WRAPPED)
    for beginning, owner in _OTHER_PARTS.items():
        if bare.startswith(beginning):
            raise AdapterBroken(f"{_short(key)} is for {owner}; accepted are only {ACCEPTED}")
    for mark, kind in _OTHER_KINDS.items():
        if mark in bare:
            raise AdapterBroken(f"{_short(key)} is of {kind}; accepted are only plain LoRAs")
    name, part = _split(key, _without(bare, _DENOISER))
    layer = name if name in layers.accepted else layers.aliases.get(name.replace(".", "_"), name)
    if layer in layers.others:
        raise AdapterBroken(f"{_short(key)} changes {layer}; accepted are only {ACCEPTED}")
    if layer not in layers.accepted:
        raise AdapterBroken(
            f"{_short(key)} is for no layer of this base model: the LoRA is made for another, or"
            f" isn't one of its {ACCEPTED}"
        )
    return Place(layer, part)


def _split(key: str, bare: str) -> tuple[str, Part]:
    """A layer's name and a part, from a name without its beginning."""
    if found := _PROCESSOR.search(bare):
        projection = "to_out.0" if found[1] == "to_out" else found[1]
        return f"{bare[: found.start()]}.{projection}", Part(found[2].split(".")[1])
    for ending, part in _ENDINGS.items():
        if bare.endswith(ending):
            return bare.removesuffix(ending), part
    raise AdapterBroken(f"{_short(key)} is no part of a LoRA: it would end in {[*_ENDINGS]}")


def _without(key: str, beginnings: tuple[str, ...]) -> str:
    return next((key.removeprefix(one) for one in beginnings if key.startswith(one)), key)


def _short(key: str) -> str:
    """A key from a stranger's file, fit for a message."""
    return repr(key[:200])
