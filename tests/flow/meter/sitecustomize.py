"""Read by Python at its start, where PYTHONPATH names this folder: counts an engine's tensors.

Every 50 ms a line goes to the file that METER_FILE names: seconds, and the bytes of all tensors
that are alive. It begins when the engine has everything imported, and has told the collector so.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

EVERY_S = 0.05
ALONE_S = 10.0  # far longer than a look takes


def _count() -> None:
    while not gc.get_freeze_count():
        time.sleep(EVERY_S)
    import torch

    kinds = frozenset({torch.Tensor, torch.nn.Parameter})
    with Path(os.environ["METER_FILE"]).open("a") as file:
        while True:
            begun_s = time.monotonic()
            storages = {}
            for tensor in _alive(kinds):
                storage = tensor.untyped_storage()
                storages[storage._cdata] = storage.nbytes()
                del tensor, storage
            file.write(f"{begun_s:.3f} {sum(storages.values())}\n")
            file.flush()
            time.sleep(max(0.0, EVERY_S - (time.monotonic() - begun_s)))


def _alive(kinds: frozenset[type]) -> list[Any]:
    """All objects of just these types, found while no other thread runs.

    ``gc.get_objects`` holds tuples that other threads are making, and a tuple that is held by two
    can't be made longer: CPython raises SystemError there ("bad argument to internal function"). So
    nobody may have a turn before all of them are let go: others may ask for one after ALONE_S only,
    and those who wait by the usual interval have had theirs when this thread has slept for two.
    """
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(ALONE_S)
    time.sleep(2 * interval_s)
    gc.disable()  # a collection may call what lets others run
    try:
        return [found for found in gc.get_objects() if type(found) in kinds]
    finally:
        gc.enable()
        sys.setswitchinterval(interval_s)


if "calotype.engine" in sys.orig_argv and "METER_FILE" in os.environ:
    threading.Thread(target=_count, daemon=True).start()
