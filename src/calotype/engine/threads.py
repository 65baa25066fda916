"""CPU threads: how many, and what they do while they wait. Imports no torch: it comes before it."""

from __future__ import annotations

import os

from calotype.core.errors import OperatorError

THREADS_VARIABLE = "CALOTYPE_ENGINE_THREADS"  # CPU threads of a pass; default: one a core


def sleep_while_waiting() -> None:
    """Have threads that wait for each other sleep instead of spinning; call before torch comes.

    It is read when torch is imported. With two threads on two busy cores (load 16 to 22) a pass
    took 1.1 s asleep, 12 to 35 s spinning.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def thread_count() -> int:
    """Threads of a pass: as told, or one for each core this process may run on.

    Raises OperatorError if CALOTYPE_ENGINE_THREADS isn't a number of at least 1.
    """
    text = os.environ.get(THREADS_VARIABLE, "").strip()
    if not text:
        return _cores()
    if not text.isdecimal() or int(text) < 1:
        raise OperatorError(
            f"{THREADS_VARIABLE} must be a whole number of at least 1, not {text!r}",
            field=THREADS_VARIABLE,
            limit=1,
        )
    return int(text)


def _cores() -> int:
    """Cores of the machine, less those that a container or ``taskset`` keeps from us."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
