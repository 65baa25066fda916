"""What a GPU's allocator tells of its memory; the counts are PyTorch's documented ones."""

from __future__ import annotations

import torch

from calotype.engine.fragmentation import Blocks, of_stats

GB = 10**9


def stats(reserved: int, allocated: int, split: int) -> dict[str, int]:
    return {
        "reserved_bytes.all.current": reserved,
        "allocated_bytes.all.current": allocated,
        "inactive_split_bytes.all.current": split,
    }


def test_whole_segments_can_be_joined_to_what_the_driver_has_and_splits_can_not() -> None:
    memory = of_stats(stats(reserved=60 * GB, allocated=40 * GB, split=12 * GB), 20 * GB, 80 * GB)
    assert (memory.free, memory.largest) == (40 * GB, 28 * GB)
    assert abs(memory.index - 0.3) < 1e-9


def test_memory_in_one_piece_is_not_torn() -> None:
    whole = stats(reserved=8 * GB, allocated=8 * GB, split=0)
    assert of_stats(whole, 10 * GB, 80 * GB).index == 0
    assert of_stats({}, 10 * GB, 80 * GB).largest == 10 * GB, "nothing was allocated yet"


def test_no_more_is_free_than_the_budget_leaves() -> None:
    whole = stats(reserved=8 * GB, allocated=8 * GB, split=0)
    assert of_stats(whole, 70 * GB, 20 * GB).free == 12 * GB


def test_on_a_cpu_blocks_stand_for_a_device_and_matter_only_if_told_to() -> None:
    cpu = torch.device("cpu")
    assert Blocks(cpu, None).seen() is None
    for acts in (False, True):
        blocks = Blocks(cpu, 40, acts=acts)
        assert blocks.matter is acts
        assert blocks.hold({"a": 10, "b": 10})
        assert blocks.hold({"b": 10})
        memory = blocks.seen()
        assert memory is not None
        assert (memory.free, memory.largest) == (30, 20)
        assert blocks.settled([("model", {"b": 10})]) == ()
        assert blocks.hold({"b": 10, "large": 25}) is not acts, "else it is as laid anew"
        assert blocks.settled([("model", {"b": 10})]) == (() if acts else ("model",))
