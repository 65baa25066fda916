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

EVERY_S = 0.05


def _count() -> None:
    while not gc.get_freeze_count():
        time.sleep(EVERY_S)
    import torch

    with Path(os.environ["METER_FILE"]).open("a") as file:
        while True:
            begun_s = time.monotonic()
            storages = {}
            for one in gc.get_objects():
                if isinstance(one, torch.Tensor):
                    storage = one.untyped_storage()
                    storages[storage._cdata] = storage.nbytes()
            del one
            file.write(f"{begun_s:.3f} {sum(storages.values())}\n")
            file.flush()
            time.sleep(max(0.0, EVERY_S - (time.monotonic() - begun_s)))


if "calotype.engine" in sys.orig_argv and "METER_FILE" in os.environ:
    threading.Thread(target=_count, daemon=True).start()
