"""The device an engine owns, and the settings that make its arithmetic repeatable."""

from __future__ import annotations

import os

import torch

from calotype.core.errors import OperatorError

THREADS_VARIABLE = "CALOTYPE_ENGINE_THREADS"  # CPU threads of a pass; default: one a core


def prepare_device() -> torch.device:
    """Choose the device and fix what could change bits from run to run.

    The number of threads is part of that: it decides how sums are split. Raises OperatorError if
    CALOTYPE_ENGINE_THREADS isn't a number of at least 1.
    """
    torch.set_num_threads(_threads())
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def _threads() -> int:
    text = os.environ.get(THREADS_VARIABLE, "").strip()
    if not text:
        return os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise OperatorError(
            f"{THREADS_VARIABLE} must be a whole number of at least 1, not {text!r}",
            field=THREADS_VARIABLE,
            limit=1,
        )
    return int(text)
