"""The head of a safetensors file, read before anything else of it.

Format: 8 bytes little-endian with the length of a JSON object, the object ({name: {dtype, shape,
data_offsets}, "__metadata__": {text: text}}), the tensors' bytes (github.com/huggingface/
safetensors). Pickles aren't read anywhere: reading one can run its code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.core import limits
from calotype.core.errors import AdapterBroken

DTYPES = ("F32", "F16", "BF16")
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Header:
    """What a file says that it holds."""

    shapes: Mapping[str, tuple[int, ...]]  # by the tensors' names
    told: Mapping[str, Any]  # what trainers write beside the tensors


def read_header(path: Path) -> Header:
    """Raise AdapterBroken if it isn't a safetensors file of a size and with dtypes that we take."""
    try:
        size = path.stat().st_size
        if size > limits.LORA_FILE_BYTES_MAX:
            raise AdapterBroken(
                f"the file has {size:,} bytes, more than a LoRA may have",
                limit=limits.LORA_FILE_BYTES_MAX,
            )
        with path.open("rb") as file:
            raw = _json_bytes(file.read(_LENGTH.size), file, size)
    except OSError as error:
        raise AdapterBroken(f"the file can't be read: {error.strerror}") from error
    try:
        parsed = json.loads(raw)
        told = parsed.pop("__metadata__", {}) or {}
        shapes = {name: _shape(name, entry) for name, entry in parsed.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise AdapterBroken("the file isn't safetensors: its head doesn't parse") from error
    if not 0 < len(shapes) <= limits.LORA_TENSORS_MAX:
        raise AdapterBroken(f"the file has {len(shapes)} tensors", limit=limits.LORA_TENSORS_MAX)
    return Header(shapes, told if isinstance(told, dict) else {})


def _json_bytes(start: bytes, file: Any, size: int) -> bytes:
    length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
    if not 2 <= length <= min(limits.LORA_HEADER_BYTES_MAX, size - _LENGTH.size):
        raise AdapterBroken(
            "the file isn't safetensors, or is cut short: its head has no possible length;"
            " no other format is read, least of all a pickle"
        )
    raw: bytes = file.read(length)
    return raw


def _shape(name: str, entry: Mapping[str, Any]) -> tuple[int, ...]:
    if entry["dtype"] not in DTYPES:
        raise AdapterBroken(f"{name[:200]!r} is {str(entry['dtype'])[:20]}", limit=[*DTYPES])
    shape = tuple(entry["shape"])
    if not all(isinstance(side, int) and side >= 0 for side in shape):
        raise TypeError(name)
    return shape
