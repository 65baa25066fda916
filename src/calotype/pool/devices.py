"""What kind of device the engines of this machine will have; found out without torch."""

from __future__ import annotations

import os
from pathlib import Path

from calotype.pool.pool import DEVICES_VARIABLE


def device_kind() -> str:
    """``cuda`` where there is a GPU of NVIDIA's that engines may see, else ``cpu``."""
    may_see = os.environ.get(DEVICES_VARIABLE) not in ("", "-1")
    return "cuda" if may_see and any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"
