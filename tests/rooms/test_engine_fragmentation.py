"""What a GPU's allocator tells of its memory; the counts are PyTorch's documented ones."""

from __future__ import annotations

import torch

from calotype.engine.fragmentation import fragmentation, of_stats

GB = 10**9


def stats(reserved: int, allocated: int, split: int) -> dict[str, int]:
    return {
        "reserved_bytes.all.current": reserved,
        "allocated_bytes.all.current": allocated,
        "inactive_split_bytes.all.current": split,
    }


def test_whole_segments_can_be_joined_to_what_the_driver_has_and_splits_can_not() -> None:
    memory = of_stats(stats(reserved=60 * GB, allocated=40 * GB, split=12 * GB), 20 * GB)
    assert (memory.free, memory.largest) == (40 * GB, 28 * GB)
    assert abs(memory.index - 0.3) < 1e-9


def test_memory_in_one_piece_is_not_torn() -> None:
    assert of_stats(stats(reserved=8 * GB, allocated=8 * GB, split=0), 10 * GB).index == 0
    assert of_stats({}, 10 * GB).largest == 10 * GB, "nothing was allocated yet"


def test_a_cpu_has_no_such_thing() -> None:
    assert fragmentation(torch.device("cpu")) is None
