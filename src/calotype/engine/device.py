"""The device an engine owns, and the settings that make its arithmetic repeatable."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from calotype.core.errors import ModelBroken
from calotype.core.families import DTYPES
from calotype.engine.room import (
    GPU_SHARE,
    HOST_SHARE,
    Room,
    budget_of,
    engines_here,
    staging_budget,
)
from calotype.engine.threads import thread_count

_CONTAINER_LIMITS = (  # control groups, version 2 and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
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


def prepare_room(device: torch.device) -> Room:
    """The budget of an engine on this device; a GPU's allocator is held to it.

    Raises OperatorError if it is set wrongly.
    """
    if device.type == "cuda":
        total = int(torch.cuda.get_device_properties(device).total_memory)
        budget = min(budget_of(total, GPU_SHARE), total)
        torch.cuda.set_per_process_memory_fraction(budget / total, device)
        return Room(budget)
    total = max(_machine_bytes() - staging_budget() * engines_here(), 1)  # copies lie there, too
    return Room(budget_of(total, HOST_SHARE / engines_here()))


def _machine_bytes() -> int:
    """Memory of the machine, or what a container leaves us of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _CONTAINER_LIMITS:
        try:
            total = min(total, int(file.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return total


def weights_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """How weights are held there: as named, or float32 on the CPU, float16 on a GPU.

    Raises ModelBroken on an unknown name.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in _DTYPES:
        raise ModelBroken(f"there is no dtype {name!r}", field="dtype", limit=[*DTYPES])
    return _DTYPES[name]
