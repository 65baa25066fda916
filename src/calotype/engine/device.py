"""The device an engine owns, and the settings that make its arithmetic repeatable."""

from __future__ import annotations

import torch

from calotype.engine.threads import thread_count


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


def weights_dtype(device: torch.device) -> torch.dtype:
    """How weights are held there: float32 on the CPU, float16 on a GPU."""
    return torch.float32 if device.type == "cpu" else torch.float16
