"""The header of a LoRA's file, read before anything else of it: only dtypes and sizes we take.

Pickles aren't read anywhere: reading one can run its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calotype.core import limits
from calotype.core.errors import AdapterBroken, ModelBroken
from calotype.files import headers

DTYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Header:
    """What a file says that it holds."""

    shapes: Mapping[str, tuple[int, ...]]  # by the tensors' names
    told: Mapping[str, str]  # what trainers write beside the tensors


def read_header(path: Path) -> Header:
    """Raise AdapterBroken if it isn't a safetensors file of a size and with dtypes that we take."""
    try:
        size = path.stat().st_size
        if size > limits.LORA_FILE_BYTES_MAX:
            raise AdapterBroken(
                f"the file has {size:,} bytes, more than a LoRA may have",
                limit=limits.LORA_FILE_BYTES_MAX,
            )
        read = headers.read_header(path)
    except OSError as error:
        raise AdapterBroken(f"the file can't be read: {error.strerror}") from error
    except ModelBroken as error:
        raise AdapterBroken(f"the file isn't safetensors: {error.detail}") from error
    if not 0 < len(read.tensors) <= limits.LORA_TENSORS_MAX:
        count = len(read.tensors)
        raise AdapterBroken(f"the file has {count} tensors", limit=limits.LORA_TENSORS_MAX)
    for name, tensor in read.tensors.items():
        if tensor.dtype not in DTYPES:
            raise AdapterBroken(f"{name[:200]!r} is {tensor.dtype}", limit=[*DTYPES])
    return Header({name: it.shape for name, it in read.tensors.items()}, read.told)
