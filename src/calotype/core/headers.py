"""What a safetensors file says that it holds, checked before any tensor is touched.

Format: 8 bytes little-endian with the length of a JSON object, the object ({name: {dtype, shape,
data_offsets}, "__metadata__": {text: text}}), the tensors' bytes without gaps, as
github.com/huggingface/safetensors has it. A header comes from strangers, so nothing in it is
believed: lengths, shapes and offsets have to agree with each other and with the file's size.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calotype.core import limits
from calotype.core.errors import ModelBroken

DTYPE_BYTES = {  # of one number
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
LENGTH = struct.Struct("<Q")  # what a file begins with: the bytes of its header
_TOLD = "__metadata__"
_NAME_SHOWN_CHARS = 100


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    dtype: str  # of DTYPE_BYTES
    shape: tuple[int, ...]  # () for one number
    begin: int  # bytes from the end of the header ...
    end: int  # ... and up to which

    @property
    def numbers(self) -> int:
        """How many it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """As they lie in the file."""
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """What a file holds, in the order of its bytes."""

    tensors: Mapping[str, Tensor]  # by name
    told: Mapping[str, str]  # what its maker wrote beside the tensors
    data_at: int  # bytes from the beginning of the file to its first tensor

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors.values())


def parse_header(raw: bytes, data_bytes: int, where: str) -> Header:
    """A header from its JSON, for a file named ``where`` with so many bytes of tensors.

    Raises ModelBroken; whatever the bytes are, nothing else.
    """
    if not raw.startswith(b"{"):  # as the format has it: nothing may stand before the object
        raise unsound(where, "its header is no JSON object")
    try:
        parsed = json.loads(raw.decode(), object_pairs_hook=_each_once)
    except _Twice as error:
        raise unsound(where, f"{_short(error.name)} is there twice", "once") from error
    except (ValueError, RecursionError) as error:
        raise unsound(where, "its header doesn't parse") from error
    told = parsed.pop(_TOLD, {})
    if not isinstance(told, dict) or not all(isinstance(it, str) for it in told.values()):
        raise unsound(where, f"{_TOLD} isn't text by name")
    if len(parsed) > limits.MODEL_TENSORS_MAX:
        raise unsound(where, f"it has {len(parsed)} tensors", limits.MODEL_TENSORS_MAX)
    tensors = {name: _tensor(name, entry, where) for name, entry in parsed.items()}
    ordered = dict(sorted(tensors.items(), key=lambda it: (it[1].begin, it[1].end)))
    _check_gapless(ordered, data_bytes, where)
    return Header(ordered, told, LENGTH.size + len(raw))


class _Twice(ValueError):
    """A name that an object has twice: JSON allows it, and readers differ on which they take."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Twice(name)
        found[name] = value
    return found


def _tensor(name: str, entry: Any, where: str) -> Tensor:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise unsound(where, f"{_short(name)} isn't described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise unsound(where, f"{_short(name)} has dtype {_short(dtype)}", [*DTYPE_BYTES])
    most = limits.TENSOR_SIDES_MAX
    if not _are_whole(shape) or len(shape) > most:
        raise unsound(where, f"{_short(name)} has shape {_short(shape)}", {"min": 0, "sides": most})
    if not _are_whole(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise unsound(where, f"{_short(name)} has data_offsets {_short(offsets)}")
    tensor = Tensor(dtype, tuple(shape), *offsets)
    wanted = tensor.numbers * DTYPE_BYTES[dtype]
    if tensor.bytes != wanted:
        raise unsound(
            where, f"{_short(name)} has {tensor.bytes} bytes, and by its shape {_short(wanted)}"
        )
    return tensor


def _are_whole(values: Any) -> bool:
    """A list of whole numbers (true is none) from 0 on; no file is as large as the largest."""
    return isinstance(values, list) and all(type(it) is int and 0 <= it < 2**63 for it in values)


def _check_gapless(tensors: Mapping[str, Tensor], data_bytes: int, where: str) -> None:
    """Each tensor begins where the one before ends, and the last ends with the file."""
    at = 0
    for name, tensor in tensors.items():
        if tensor.begin != at:
            raise unsound(where, f"{_short(name)} begins at {tensor.begin} and not at {at}")
        at = tensor.end
    if at != data_bytes:
        what = "is cut short" if at > data_bytes else "has more than its tensors"
        raise unsound(where, f"it {what}: they take {at} bytes, and it has {data_bytes}", at)


def unsound(where: str, why: str, limit: Any = None) -> ModelBroken:
    """The error for a file, by its name, that isn't what it says."""
    return ModelBroken(f"{where} is no whole safetensors file: {why}", field=where, limit=limit)


def _short(value: Any) -> str:
    """A stranger's value, fit for a message."""
    text = repr(value)
    return text if len(text) <= _NAME_SHOWN_CHARS else f"{text[:_NAME_SHOWN_CHARS]}..."
