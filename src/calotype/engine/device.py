"""The device an engine owns, and the settings that make its arithmetic repeatable."""

from __future__ import annotations

import torch

from calotype.core.errors import ModelBroken
from calotype.core.families import DTYPES
from calotype.engine.threads import thread_count

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare_device() -> torch.device:
    """Choose the device and fix what could change bits from run to run.

    The number of threads is part of that: it decides how sums are split. Raises OperatorError if
    that number is set wrongly.
    """
    torch.set_num_threads(thread_count())
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def weights_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """How weights are held there: as named, or float32 on the CPU, float16 on a GPU.

    Raises ModelBroken on an unknown name.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in _DTYPES:
        raise ModelBroken(f"there is no dtype {name!r}", field="dtype", limit=[*DTYPES])
    return _DTYPES[name]
