"""Reads a LoRA's file for one base model: all of it is checked before any of it is used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from calotype.core import limits
from calotype.core.errors import AdapterBroken, ModelBroken
from calotype.engine.lora.header import Header, read_header
from calotype.engine.lora.layers import Layer, Layers
from calotype.engine.lora.names import Part, Place, place_of
from calotype.engine.weights import Reader

_RANK_CLASS_MIN = 4


@dataclass(frozen=True)
class Pair:
    """One layer's low-rank pair, alpha / rank in ``up``, padded with zeros to its rank class.

    For a linear layer ``down`` is (in, rank) and ``up`` (rank, out), as ``bmm`` wants them; for a
    convolution (rank, in, height, width) and (out, rank, 1, 1).
    """

    down: torch.Tensor
    up: torch.Tensor
    rank: int  # the class: a power of two, so that few shapes of products exist

    @property
    def bytes(self) -> int:
        """Of both, as they are held."""
        return sum(it.numel() * it.element_size() for it in (self.down, self.up))

    def to(self, device: torch.device) -> Pair:
        """The same on a device."""
        return Pair(self.down.to(device), self.up.to(device), self.rank)

    def product(self) -> torch.Tensor:
        """What it adds to the layer's weight, in the weight's shape, float32."""
        down, up = self.down.float(), self.up.float()
        if down.ndim == 2:
            return (down @ up).T
        return (up.flatten(1) @ down.flatten(1)).view(len(up), *down.shape[1:])


@dataclass(frozen=True)
class Lora:
    """A LoRA that fits a base model."""

    key: str  # names it in a bank: name@build
    pairs: Mapping[str, Pair]  # by layer

    @property
    def bytes(self) -> int:
        """Of all its tensors."""
        return sum(pair.bytes for pair in self.pairs.values())


@dataclass
class _Parts:
    """A layer's tensors as the file names them."""

    keys: dict[Part, str] = field(default_factory=dict)


def read_lora(path: Path, key: str, layers: Layers, dtype: torch.dtype) -> Lora:
    """Read it, for layers of this dtype.

    Raises AdapterBroken with the reason for a file that isn't a plain LoRA of this base model, and
    for one with numbers that aren't finite. Nothing but the header is read before names, shapes
    and ranks are known to be right.
    """
    header = read_header(path)
    parts = _parts_of(header, layers)
    for layer, found in parts.items():
        _check_shapes(layers.accepted[layer], found, header)
    tensors = _tensors(path)
    told = _told(header)
    pairs = {}
    for layer, found in parts.items():
        pairs[layer] = _pair(layers.accepted[layer], found, tensors, told, dtype)
    return Lora(key, pairs)


def _parts_of(header: Header, layers: Layers) -> dict[str, _Parts]:
    """Which tensors make up which layer's pair."""
    parts: dict[str, _Parts] = {}
    for key in header.shapes:
        place: Place = place_of(key, layers)
        keys = parts.setdefault(place.layer, _Parts()).keys
        if place.part in keys:
            raise AdapterBroken(f"{key[:200]!r} and {keys[place.part][:200]!r} are the same")
        keys[place.part] = key
    for layer, found in parts.items():
        if missing := {Part.DOWN, Part.UP} - found.keys.keys():
            raise AdapterBroken(f"{layer} lacks a part: {', '.join(sorted(missing))}")
    return parts


def _check_shapes(layer: Layer, parts: _Parts, header: Header) -> None:
    down, up = (header.shapes[parts.keys[part]] for part in (Part.DOWN, Part.UP))
    if Part.ALPHA in parts.keys and math.prod(header.shapes[parts.keys[Part.ALPHA]]) != 1:
        raise AdapterBroken(f"{layer.name}: alpha isn't one number")
    outer, inner, *kernel = layer.shape
    rank = down[0] if down else 0
    if _stripped((outer, inner, *kernel)) != _stripped((*up[:1], *down[1:])):
        theirs = Layer(layer.name, _stripped((*up[:1], *down[1:])))
        raise AdapterBroken(
            f"made for another base model: {layer.name} is {layer.says}, the LoRA has {theirs.says}"
        )
    if len(up) < 2 or up[1] != rank or math.prod(up[2:]) != 1:
        raise AdapterBroken(f"{layer.name}: a part of {down} and one of {up} make no pair")
    if not 1 <= rank <= limits.LORA_RANK_MAX:
        raise AdapterBroken(f"{layer.name} has rank {rank}", limit=limits.LORA_RANK_MAX)


def _stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without a kernel of 1 x 1: linear layers are written as such convolutions, and back."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors, as they are in the file."""
    try:
        with Reader(torch.device("cpu")) as reader:
            tensors = reader.read(path, lambda _, dtype: dtype)
            reader.wait()
    except ModelBroken as error:
        raise AdapterBroken(f"the file is damaged or cut short: {error.detail}"[:300]) from error
    return tensors


def _told(header: Header) -> dict[str, Any]:
    """peft's settings, where diffusers wrote them beside the tensors."""
    try:
        told = json.loads(header.told.get("lora_adapter_metadata", "{}"))
    except (ValueError, TypeError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise AdapterBroken("what the file tells of its settings doesn't parse")
    bare = {
        name.removeprefix("unet.").removeprefix("transformer."): it for name, it in told.items()
    }
    if bare.get("use_dora"):
        raise AdapterBroken("the file is of DoRA; accepted are only plain LoRAs")
    return bare


def _pair(
    layer: Layer,
    parts: _Parts,
    tensors: Mapping[str, torch.Tensor],
    told: Mapping[str, Any],
    dtype: torch.dtype,
) -> Pair:
    down, up = (tensors[parts.keys[part]] for part in (Part.DOWN, Part.UP))
    rank = len(down)
    if (scale := _scale(layer, parts, tensors, told, rank)) != 1.0:
        up = up.float() * scale
    down, up = down.view(rank, *layer.shape[1:]).to(dtype), up.view(-1, rank).to(dtype)
    if not (_is_finite(down) and _is_finite(up)):
        raise AdapterBroken(f"{layer.name}: the LoRA has numbers that aren't finite")
    padded = max(_RANK_CLASS_MIN, 1 << (rank - 1).bit_length())
    if padded > rank:
        down = torch.cat((down, down.new_zeros(padded - rank, *down.shape[1:])))
        up = torch.cat((up, up.new_zeros(len(up), padded - rank)), dim=1)
    if layer.is_convolution:
        return Pair(down, up[:, :, None, None], padded)
    return Pair(down.T.contiguous(), up.T.contiguous(), padded)


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all of it is, in one pass: a NaN is the smallest and the largest."""
    return all(math.isfinite(float(it)) for it in tensor.aminmax())


def _scale(
    layer: Layer,
    parts: _Parts,
    tensors: Mapping[str, torch.Tensor],
    told: Mapping[str, Any],
    rank: int,
) -> float:
    """Alpha / rank (Hu 2021), or alpha / sqrt(rank) (Kalajdzievski 2023) where the file says so."""
    try:
        if Part.ALPHA in parts.keys:
            return float(tensors[parts.keys[Part.ALPHA]]) / rank
        patterns = told.get("alpha_pattern") or {}
        own = [it for name, it in patterns.items() if f".{layer.name}".endswith(f".{name}")]
        alpha = float(own[0] if own else told.get("lora_alpha", rank))
    except (TypeError, ValueError, AttributeError) as error:
        raise AdapterBroken(f"{layer.name}: alpha isn't a number") from error
    return alpha / (math.sqrt(rank) if told.get("use_rslora") else rank)
