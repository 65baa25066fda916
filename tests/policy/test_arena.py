"""Blocks of a device's memory, and when they are laid anew."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from calotype.core.limits import FRAGMENTATION_MAX
from calotype.core.nouns import Tier
from calotype.policy.arena import Arena, Fit, Fragmentation, Why, lay_anew

SIZE = 100
FITS = st.sampled_from(Fit)
# Places of so many bytes, or (None) takes the one that has lain there longest.
STEPS = st.lists(st.one_of(st.integers(0, SIZE), st.none()), max_size=60)


def played(steps: list[int | None], fit: Fit) -> Arena:
    arena, lying = Arena(SIZE, fit), list[str]()
    for number, step in enumerate(steps):
        if step is None:
            if lying:
                arena.take(lying.pop(0))
        elif arena.place(str(number), step):
            lying.append(str(number))
    return arena


@given(STEPS, FITS)
@example([1, 0, None], Fit.FIRST)  # what has no bytes lies between two gaps, and parts nothing
def test_blocks_and_gaps_are_the_memory_without_a_byte_twice(
    steps: list[int | None], fit: Fit
) -> None:
    arena = played(steps, fit)
    pieces = sorted(it for it in [*arena.blocks.values(), *arena.gaps] if it[1])
    at = 0
    for begin, count in pieces:
        assert begin == at
        at += count
    assert at == SIZE
    assert all(one[0] + one[1] < other[0] for one, other in itertools.pairwise(arena.gaps))


@given(STEPS, FITS, st.integers(1, SIZE))
def test_it_fits_if_and_only_if_one_free_block_is_large_enough(
    steps: list[int | None], fit: Fit, count: int
) -> None:
    arena = played(steps, fit)
    before, largest = arena.blocks, arena.fragmentation.largest
    assert arena.place("one more", count) is (count <= largest)
    assert {name: it for name, it in arena.blocks.items() if name != "one more"} == before


@given(STEPS, FITS, st.integers(1, SIZE))
def test_what_is_placed_lies_in_the_lowest_gap_or_the_tightest(
    steps: list[int | None], fit: Fit, count: int
) -> None:
    arena = played(steps, fit)
    large = [(begin, size) for begin, size in arena.gaps if size >= count]
    if arena.place("one more", count):
        begin = arena.blocks["one more"][0]
        tightest = min((size, begin) for begin, size in large)[1]
        assert begin == (large[0][0] if fit is Fit.FIRST else tightest)


@given(STEPS, FITS)
def test_taking_everything_makes_one_block_of_it_again(steps: list[int | None], fit: Fit) -> None:
    arena = played(steps, fit)
    for name in arena.blocks:
        arena.take(name)
    assert arena.gaps == [(0, SIZE)]
    assert arena.fragmentation.index == 0


@given(STEPS, FITS)
def test_the_index_tells_what_the_largest_block_lacks(steps: list[int | None], fit: Fit) -> None:
    memory = played(steps, fit).fragmentation
    assert 0 <= memory.index < 1
    assert (memory.index == 0) is (memory.free == memory.largest)


@given(STEPS, FITS, st.integers(1, SIZE))
def test_laid_anew_all_free_bytes_are_one_block(
    steps: list[int | None], fit: Fit, wanted: int
) -> None:
    arena = played(steps, fit)
    memory, settled = arena.fragmentation, arena.settled()
    anew = lay_anew(memory, wanted, [*arena.blocks], rows=0, waiting={}, settled=settled)
    if anew is None:
        assert not memory.largest < wanted <= memory.free
        assert memory.index <= FRAGMENTATION_MAX
        return
    assert anew.models, "something has to move, or nothing is won"
    sizes = {name: count for name, (_, count) in arena.blocks.items()}
    stayed = {name: it for name, it in arena.blocks.items() if name not in anew.models}
    for name in anew.models:
        arena.take(name)
    assert all(arena.place(name, sizes[name]) for name in anew.models)
    assert arena.fragmentation == Fragmentation(memory.free, memory.free)
    assert {name: arena.blocks[name] for name in stayed} == stayed
    if anew.why is Why.NO_BLOCK:
        assert arena.place("wanted", wanted)


@given(st.integers(0, SIZE), st.integers(0, SIZE), st.integers(0, SIZE), st.integers(1, 9))
def test_never_while_turbo_waits_or_rows_run(
    free: int, largest: int, wanted: int, few: int
) -> None:
    memory = Fragmentation(free, min(free, largest))
    turbo = {Tier.TURBO: few, Tier.RELAX: 0}
    assert lay_anew(memory, wanted, ["a"], rows=0, waiting=turbo) is None
    assert lay_anew(memory, wanted, ["a"], rows=few, waiting={}) is None


def test_torn_memory_waits_until_nobody_does_but_a_model_without_a_block_does_not() -> None:
    torn = Fragmentation(free=40, largest=10)
    others = {Tier.FAST: 1}
    assert lay_anew(torn, 0, ["a", "b"], rows=0, waiting=others) is None
    needed = lay_anew(torn, 30, ["a", "b"], rows=0, waiting=others)
    assert needed is not None
    assert (needed.why, needed.models) == (Why.NO_BLOCK, ("a", "b"))
    idle = lay_anew(torn, 0, ["a", "b"], rows=0, waiting={})
    assert idle is not None
    assert idle.why is Why.TORN
    assert lay_anew(torn, 41, ["a"], rows=0, waiting=others) is None, "that is for evictions"


@given(STEPS, FITS, st.dictionaries(st.sampled_from("0123456789ab"), st.integers(0, 40)))
def test_it_holds_just_what_it_is_told_but_for_what_finds_no_block(
    steps: list[int | None], fit: Fit, parts: dict[str, int]
) -> None:
    arena = played(steps, fit)
    before = arena.blocks
    is_whole = arena.hold(parts)
    assert is_whole is (arena.blocks.keys() == parts.keys())
    assert arena.blocks.keys() <= parts.keys()
    stayed = before.keys() & parts.keys()
    assert all(arena.blocks[name] == before[name] for name in stayed)


def test_what_lies_at_the_beginning_without_a_gap_stays() -> None:
    arena = Arena(SIZE)
    for name, count in (("a", 20), ("b", 20), ("c", 20), ("d", 20)):
        assert arena.place(name, count)
    arena.take("b")
    assert arena.settled() == ["a"]
    anew = lay_anew(
        arena.fragmentation, 40, ["c", "a", "d"], rows=0, waiting={}, settled=arena.settled()
    )
    assert anew is not None
    assert anew.models == ("c", "d")
