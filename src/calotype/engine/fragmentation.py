"""How torn a GPU's memory is, by its allocator's own counts.

PyTorch keeps what is freed, in the segments it got from the driver. A segment of which nothing is
in use can go back and be joined to the rest; the free parts of one that is partly in use can't
(``inactive_split_bytes``). So the largest block that can be had is what the driver has free with
all whole segments, and the splits are what is torn. Not run on a GPU: there was none.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from calotype.policy.arena import Fragmentation


def fragmentation(device: torch.device) -> Fragmentation | None:
    """A GPU's, as it is now; None on a CPU, where every allocation gets addresses of its own."""
    if device.type != "cuda":
        return None
    driver_free, _ = torch.cuda.mem_get_info(device)
    return of_stats(torch.cuda.memory_stats(device), driver_free)


def of_stats(stats: Mapping[str, int], driver_free: int) -> Fragmentation:
    """By ``torch.cuda.memory_stats``, and the bytes that the driver has free."""
    reserved = stats.get("reserved_bytes.all.current", 0)
    allocated = stats.get("allocated_bytes.all.current", 0)
    split = stats.get("inactive_split_bytes.all.current", 0)
    free = driver_free + max(reserved - allocated, 0)
    return Fragmentation(free=free, largest=max(free - split, 0))
