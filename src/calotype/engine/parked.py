"""A row between two engines: its latents, its sampler's history, its generator, its step.

One engine writes it at a step boundary, another takes it up there and goes on to the same bits.
What a row's command says anew (texts, hints, the source it began from) is made again there.

It is a safetensors file: tensors, and beside them JSON. So it holds numbers and nothing that runs.
Of a sampler it holds what differs from one that hasn't begun: a few past outputs of the model, not
the thousand numbers of its noise schedule.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from calotype.core import limits
from calotype.core.errors import CalotypeError, InternalError
from calotype.core.headers import LENGTH, parse_header
from calotype.core.messages import RowParked
from calotype.engine.samplers import RowSampler

if TYPE_CHECKING:
    from calotype.engine.rows import Row

_LATENTS, _GENERATOR, _TOLD = "latents", "generator", "row"
_NOT_ITS = ("row", "tier", "is_coarse", "parked_bytes")  # of a command: they change on the way


def handed_back(row: Row, fresh: RowSampler) -> tuple[RowParked, bytes]:
    """What the engine says of a row that it hands back, and the row itself, if it has begun.

    ``fresh`` is a sampler as the row's was before its first step.
    """
    raw, reason = b"", ""
    if row.steps_done:
        try:
            raw = _written(row, fresh)
        except InternalError as error:
            reason = error.detail
    if len(raw) > (most := limits.PARKED_ROW_BYTES_MAX):
        raw, reason = b"", f"it takes {len(raw):,} bytes, and no row may take more than {most:,}"
    name = row.command.row
    return RowParked(name, row.steps_done, row.steps, row.device_s, reason), raw


def take_up(row: Row, raw: torch.Tensor) -> None:
    """Have a row that hasn't begun go on where another engine left it; ``raw`` is uint8, (bytes,).

    Raises InternalError for what isn't of this row.
    """
    told, tensors = _read(bytes(raw.numpy()))
    step = told.get("steps_done")
    if told.get("of") != _recipe(row) or not isinstance(step, int) or not 0 < step < row.steps:
        raise InternalError("what was kept of the row is of another")
    latents, generator = tensors[_LATENTS], tensors[_GENERATOR]
    if latents.shape != row.latents.shape or latents.dtype != row.latents.dtype:
        raise InternalError(f"what was kept of the row has latents of {tuple(latents.shape)}")
    state = {name: _joined(value, tensors, row.latents) for name, value in told["sampler"].items()}
    row.sampler.restore(state)
    row.generator.set_state(generator)
    row.latents = latents.to(row.latents.device)
    row.steps_done, row.previewed = step, told["previewed"]


def _written(row: Row, fresh: RowSampler) -> bytes:
    tensors = {_LATENTS: row.latents, _GENERATOR: row.generator.get_state()}
    sampler = {
        name: _parted(value, f"sampler.{name}", tensors)
        for name, value in row.sampler.state(fresh).items()
    }
    told = {
        "of": _recipe(row),
        "steps_done": row.steps_done,
        "previewed": row.previewed,
        "sampler": sampler,
    }
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return bytes(save(own, {_TOLD: json.dumps(told)}))


def _read(raw: bytes) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        (length,) = LENGTH.unpack_from(raw)
        begin = LENGTH.size + length
        header = parse_header(raw[LENGTH.size : begin], len(raw) - begin, "a parked row")
        told, tensors = json.loads(header.told[_TOLD]), load(raw)
    except (CalotypeError, SafetensorError, struct.error, ValueError, KeyError) as error:
        raise InternalError(f"what was kept of the row can't be read: {error}"[:500]) from error
    if not isinstance(told, dict) or not {_LATENTS, _GENERATOR} <= tensors.keys():
        raise InternalError("what was kept of the row lacks a part")
    return told, tensors


def _parted(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """A value as JSON; its tensors are put beside it, under names."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, list):
        return [_parted(one, f"{name}.{at}", tensors) for at, one in enumerate(value)]
    raise InternalError(f"{name} is a {type(value).__name__}, which can't be written down")


def _joined(value: Any, tensors: Mapping[str, torch.Tensor], beside: torch.Tensor) -> Any:
    """The value again; what is as large as the picture lies on its device, the rest on the CPU."""
    if isinstance(value, list):
        return [_joined(one, tensors, beside) for one in value]
    if isinstance(value, dict):
        tensor = tensors[value["tensor"]]
        return tensor.to(beside.device) if tensor.ndim == beside.ndim else tensor
    return value


def _recipe(row: Row) -> str:
    """Of which row it is: a hash of all that decides its bits, but for what its pictures show."""
    command = asdict(row.command)
    for name in _NOT_ITS:
        del command[name]
    for adapter in (*command["loras"], *command["controls"]):
        del adapter["path"]  # another machine's may be another; the build is what counts
    text = json.dumps([row.model.build, command], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
