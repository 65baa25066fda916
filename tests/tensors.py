"""Safetensors files for tests that look at headers: any shapes, and bytes that say nothing."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from calotype.core.headers import DTYPE_BYTES

Shapes = Mapping[str, Sequence[int]]


def tensors(
    shapes: Shapes, dtype: str = "F32", told: Mapping[str, str] | None = None, fill: bytes = b"\0"
) -> bytes:
    """A file with tensors of these shapes, all of one dtype, each byte the same."""
    header: dict[str, Any] = {"__metadata__": dict(told)} if told else {}
    at = 0
    for name, shape in shapes.items():
        end = at + prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    return whole(json.dumps(header).encode(), fill * at)


def whole(header: bytes, data: bytes = b"") -> bytes:
    """A file of these parts, right or wrong."""
    return struct.pack("<Q", len(header)) + header + data


# A UNet's layers that tell its family by their shapes, as diffusers and as its makers name them.


def unet(width: int = 8, text: int = 16) -> dict[str, Sequence[int]]:
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    return {
        "conv_in.weight": (width, 4, 3, 3),
        f"{block}.attn1.to_q.weight": (width, width),
        f"{block}.attn2.to_k.weight": (width, text),
        "down_blocks.0.resnets.0.conv1.weight": (width, width, 3, 3),
    }


def checkpoint(width: int = 8, text: int = 16, *, is_xl: bool = True) -> dict[str, Sequence[int]]:
    first = "model.diffusion_model."
    block = f"{first}input_blocks.1.1.transformer_blocks.0"
    encoders = ("conditioner.embedders.0.", "conditioner.embedders.1.")
    return {
        f"{first}input_blocks.0.0.weight": (width, 4, 3, 3),
        f"{block}.attn1.to_q.weight": (width, width),
        f"{block}.attn2.to_k.weight": (width, text),
        f"{first}input_blocks.1.0.in_layers.2.weight": (width, width, 3, 3),
        **({f"{first}label_emb.0.0.weight": (width, width)} if is_xl else {}),
        "first_stage_model.decoder.conv_in.weight": (8, 4, 3, 3),
        **{f"{it}word": (3, text) for it in (encoders if is_xl else ("cond_stage_model.",))},
    }


def autoencoder(channels: int = 4) -> dict[str, Sequence[int]]:
    return {"decoder.conv_in.weight": (8, channels, 3, 3), "post_quant_conv.weight": (4, 4, 1, 1)}


def lora(width: int = 8, text: int = 16, rank: int = 2) -> dict[str, Sequence[int]]:
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    return {
        f"{layer}.lora_A.weight": (rank, text),
        f"{layer}.lora_B.weight": (width, rank),
    }


# Folders.


def make_base(
    folder: Path,
    *,
    sample_size: Any = 128,
    kind: str = "StableDiffusionXLPipeline",
    denoiser: str = "unet",
    width: int = 8,
    text: int = 16,
    fill: bytes = b"\0",
    dtype: str = "F32",
) -> Path:
    """A model in diffusers' layout, with all that the registry looks at."""
    parts = {denoiser: ["diffusers", "Denoiser"], "vae": ["diffusers", "AutoencoderKL"]}
    weights = {denoiser: unet(width, text), "vae": autoencoder()}
    for part in parts:
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps({"sample_size": sample_size}))
        file = folder / part / "diffusion_pytorch_model.safetensors"
        file.write_bytes(tensors(weights[part], dtype, fill=fill))
    index = {"_class_name": kind, "force_zeros_for_empty_prompt": True, **parts}
    index["image_encoder"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def make_classifier(folder: Path, task: str = "ViTForImageClassification") -> Path:
    """A classifier in transformers' layout."""
    folder.mkdir(parents=True)
    config = {"architectures": [task], "id2label": {"0": "safe", "1": "not safe"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(tensors({"classifier.weight": (2, 8)}))
    return folder


def make_autoencoder(folder: Path, channels: int = 4) -> Path:
    """An autoencoder in diffusers' layout."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(tensors(autoencoder(channels)))
    return folder


def make_controlnet(folder: Path, width: int = 8, text: int = 16) -> Path:
    """A ControlNet in diffusers' layout, for a UNet of these widths."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"_class_name": "ControlNetModel"}')
    shapes = {**unet(width, text), "controlnet_mid_block.weight": (77, 77)}
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(tensors(shapes))
    return folder
