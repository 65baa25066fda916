"""``python -m calotype.engine.marking``: started by ``calotype watermark train``.

It is told what to do by one line of JSON on stdin (``train.Order``, and the key's bits, which are
nobody's to see in a list of processes), and tells how far it is by lines of JSON on stdout.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from calotype.core.errors import CalotypeError
from calotype.engine.libraries import before_libraries, without_progress

TELL_S = 0.5  # between two lines, while it learns


class Teller:
    """Tells how far it is, not too often; and hears that it shall stop."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._told_at = 0.0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def tell(self, fact: Mapping[str, Any]) -> None:
        """One line; steps in between two are left out."""
        is_last = fact.get("step") == fact.get("steps")
        if not is_last and time.monotonic() < self._told_at + TELL_S:
            return
        self._told_at = time.monotonic()
        print(json.dumps(dict(fact)), flush=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.is_stopped = True


def main() -> None:
    """Read what is to be done, and do it; exit code 1 with ``{"failed"}`` if it can't be."""
    told = json.loads(sys.stdin.readline())
    teller = Teller()
    before_libraries()
    import torch

    from calotype.engine.marking.hiding import HidingPlan
    from calotype.engine.marking.rooting import RootingPlan
    from calotype.engine.marking.train import Order, train

    without_progress()
    torch.set_flush_denormal(True)
    if told["threads"]:
        torch.set_num_threads(told["threads"])
    if told["device"] == "cuda" and not torch.cuda.is_available():
        _fail("there is no CUDA device")
    order = Order(
        vae=Path(told["vae"]),
        pictures=Path(told["pictures"]),
        folder=Path(told["folder"]),
        key=tuple(told["key"]),
        side_px=told["side_px"],
        hiding=HidingPlan(bits=len(told["key"]), **told["hiding"]),
        rooting=RootingPlan(**told["rooting"]),
        device=torch.device(told["device"]),
    )
    try:
        is_done = train(order, teller.tell, lambda: teller.is_stopped)
    except CalotypeError as error:
        _fail(error.detail)
    print(json.dumps({"done": is_done}), flush=True)


def _fail(why: str) -> None:
    print(json.dumps({"failed": why}), flush=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
