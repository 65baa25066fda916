"""What a recipe takes on a device, line by line, and whether it fits: the ledger, filled by hand.

Bytes are counted as the line's own ledger counts them (``policy.ledger``): components that models
share once, the working room of the most demanding, and reserves for all that isn't a base model.
GB are 10**9 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.core.events import ModelKnown
from calotype.core.nouns import Reserve
from calotype.policy.ledger import Ledger, bytes_of
from calotype.sim.fleet import GB

DEVICE_GB_MAX = 10_000.0
DEVICES_GB = {
    "A100-80GB": 80.0,
    "A100-40GB": 40.0,
    "A10G": 24.0,
    "H100": 80.0,
    "H200": 141.0,
    "L4": 24.0,
    "L40S": 48.0,
    "T4": 16.0,
}
# What an 80 GB device keeps free of base models, in GB, unless told otherwise.
RESERVES_GB = {"LoRA": 2.0, "ControlNet": 4.0, "safety": 4.0, "overhead": 6.0}
LATENTS_GB = 8.0  # for a full pass and a decode beside it


def device_bytes(device: str) -> int:
    """Of a device by its name, or so many GB ("24GB"); raise InvalidInput that names the limit."""
    given = re.fullmatch(r"(\d+(?:\.\d+)?) ?GB", device)
    size_gb = float(given[1]) if given else DEVICES_GB.get(device)
    if size_gb is None:
        known = ", ".join(DEVICES_GB)
        said = f"device {device!r} is none of {known}, and no size as 24GB"
        raise InvalidInput(said, field="device")
    return amount("device", size_gb)


def amount(field: str, size_gb: float) -> int:
    """So many GB in bytes; raise InvalidInput that names field and limit."""
    if not 0 <= size_gb <= DEVICE_GB_MAX:
        said = f"{field} must be from 0 to {DEVICE_GB_MAX:,.0f} GB, not {size_gb:g}"
        raise InvalidInput(said, field=field, limit={"min": 0, "max": DEVICE_GB_MAX})
    return round(size_gb * GB)


def plan(
    models: Sequence[ModelKnown], reserves: Mapping[str, int], budget_bytes: int
) -> dict[str, Any]:
    """The ledger as JSON: lines, sums, and what each model adds to those before it."""
    ledger = Ledger(budget_bytes, tuple(Reserve(*line) for line in reserves.items()))
    added = {}
    for known in models:
        added[known.model] = {
            "bytes": bytes_of(known) + known.room_bytes,
            "adds_bytes": ledger.needs_bytes(known),
        }
        ledger = ledger.plus(known)
    return {
        "budget_bytes": budget_bytes,
        "lines": ledger.lines(),
        "used_bytes": budget_bytes - ledger.free_bytes,
        "free_bytes": ledger.free_bytes,
        "fits": ledger.free_bytes >= 0,
        "models": added,
    }
