"""Weights of a denoiser's linear layers in 8 bits, by torchao (BSD-3): half of bfloat16's bytes.

Only weights: sums are as wide as before. Each output of a layer has a scale of its own. What isn't
in a block (the embeddings of time and text, the last projection) is a few hundredths of the bytes
and stays; so do convolutions, which torchao leaves alone.
"""

from __future__ import annotations

from typing import Any

import torch

from calotype.core.errors import ModelBroken
from calotype.core.families import QUANTISED


def quantise(denoiser: torch.nn.Module, kind: str) -> None:
    """Hold its blocks' linear weights as ``int8`` or ``fp8`` (e4m3); empty: change nothing.

    Raises ModelBroken on another kind, and where torchao isn't installed.
    """
    if not kind:
        return
    if kind not in QUANTISED:
        raise ModelBroken(f"can't quantise to {kind!r}", field="quantise", limit=[*QUANTISED])
    try:
        from torchao import quantization
    except ImportError as error:
        raise ModelBroken(
            "quantised weights need torchao: install calotype[quantised]", field="quantise"
        ) from error
    config: Any = {
        "int8": quantization.Int8WeightOnlyConfig,
        "fp8": quantization.Float8WeightOnlyConfig,
    }[kind]()
    quantization.quantize_(denoiser, config, filter_fn=_is_chosen)


def _is_chosen(layer: torch.nn.Module, name: str) -> bool:
    return isinstance(layer, torch.nn.Linear) and "block" in name


def stored_bytes(tensor: torch.Tensor) -> int:
    """What a tensor takes in memory; a quantised one claims the dtype that it stands for."""
    if hasattr(tensor, "__tensor_flatten__"):
        parts: list[str] = tensor.__tensor_flatten__()[0]
        return sum(stored_bytes(getattr(tensor, part)) for part in parts)
    return int(tensor.numel() * tensor.element_size())
