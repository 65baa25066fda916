"""The tree of hashes: what it proves, and that nothing else passes for a proof."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core.hash_log import (
    EMPTY,
    LogEntry,
    Place,
    added,
    consistency,
    is_consistent,
    leaf_hash,
    node_hash,
    proof,
    proves,
    root,
)

ENTRY = LogEntry(
    image="img_1",
    mark=7,
    mark_key="wmk_1",
    files={"png": "ab" * 32},
    phash=2**63,
    width=128,
    height=96,
    sketch=b"\x01\x02ab",
    at=datetime(2026, 1, 2, tzinfo=UTC),
)


def leaf(number: int) -> bytes:
    return hashlib.sha256(b"leaf %d" % number).digest()


def grown(count: int) -> dict[Place, bytes]:
    nodes: dict[Place, bytes] = {}
    for number in range(count):
        nodes |= added(number, leaf(number), nodes.__getitem__)
    return nodes


def plain_root(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(plain_root(leaves[:split]), plain_root(leaves[split:]))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 11, 33])
def test_the_head_is_that_of_the_rfc_and_every_leaf_is_proven(count: int) -> None:
    nodes = grown(count)
    leaves = [leaf(number) for number in range(count)]
    head = root(count, nodes.__getitem__)
    assert head == plain_root(leaves)
    for number in range(count):
        path = proof(number, count, nodes.__getitem__)
        assert len(path) <= count.bit_length()
        assert proves(leaves[number], number, count, path, head)
        assert not proves(leaf(99), number, count, path, head)
        assert not proves(leaves[number], (number + 1) % count, count, path, head) or count == 1
        assert not proves(leaves[number], number, count, [*path, leaf(0)], head)
        if path:
            assert not proves(leaves[number], number, count, path[:-1], head)


def test_an_empty_log_has_a_head_and_proves_nothing() -> None:
    nodes: dict[Place, bytes] = {}
    assert root(0, nodes.__getitem__) == hashlib.sha256(b"").digest()
    assert not proves(leaf(0), 0, 0, [], leaf(0))
    with pytest.raises(ValueError, match="leaf 3 of 3"):
        proof(3, 3, grown(3).__getitem__)


@pytest.mark.parametrize(
    "change",
    [
        {"image": "img_2"},
        {"mark": 8},
        {"files": {"png": "ac" * 32}},
        {"phash": 0},
        {"width": 127},
        {"sketch": b"other"},
        {"at": datetime(2026, 1, 3, tzinfo=UTC)},
    ],
)
def test_the_hash_of_an_entry_is_of_all_it_says(change: dict[str, object]) -> None:
    assert leaf_hash(replace(ENTRY, **change)) != leaf_hash(ENTRY)  # type: ignore[arg-type]


LEAVES = 130
NODES = grown(LEAVES)
COUNTS = st.integers(0, LEAVES)


def head_of(count: int) -> tuple[int, bytes]:
    return count, root(count, NODES.__getitem__)


def plain_proof(first: int, leaves: list[bytes], *, is_whole: bool = True) -> list[bytes]:
    """RFC 9162, section 2.1.4.1, word for word."""
    if first == len(leaves):
        return [] if is_whole else [plain_root(leaves)]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if first <= split:
        left = plain_proof(first, leaves[:split], is_whole=is_whole)
        return [*left, plain_root(leaves[split:])]
    right = plain_proof(first - split, leaves[split:], is_whole=False)
    return [*right, plain_root(leaves[:split])]


@given(COUNTS, COUNTS)
def test_a_later_tree_is_shown_to_begin_with_an_earlier_one(one: int, other: int) -> None:
    first, count = sorted((one, other))
    path = consistency(first, count, NODES.__getitem__)
    if first:
        assert path == plain_proof(first, [leaf(number) for number in range(count)])
    assert is_consistent(head_of(first), head_of(count), path)
    assert len(path) <= count.bit_length() + 1


@given(COUNTS, COUNTS, st.data())
def test_no_other_history_passes_for_the_same(one: int, other: int, data: st.DataObject) -> None:
    first, count = sorted((one, other))
    path = consistency(first, count, NODES.__getitem__)
    older, newer = head_of(first), head_of(count)
    assert not is_consistent((first, leaf(999)), newer, path)
    if first:
        assert not is_consistent(older, (count, leaf(999)), path)
    assert not is_consistent(older, newer, [*path, leaf(0)])
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        assert not is_consistent(older, newer, [*path[:at], leaf(999), *path[at + 1 :]])
        assert not is_consistent(older, newer, path[:at] + path[at + 1 :])
    if first < count:
        assert not is_consistent(newer, older, path)


@given(st.integers(1, LEAVES), st.data())
def test_a_tree_that_was_rewritten_has_no_proof(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, count))
    changed = data.draw(st.integers(0, first - 1))
    forged: dict[Place, bytes] = {}
    for number in range(count):
        made = leaf(1000 if number == changed else number)
        forged |= added(number, made, forged.__getitem__)
    path = consistency(first, count, forged.__getitem__)
    rewritten = count, root(count, forged.__getitem__)
    assert not is_consistent(head_of(first), rewritten, path)


def test_all_begins_with_nothing_and_nothing_with_more() -> None:
    assert is_consistent((0, EMPTY), head_of(5), [])
    assert not is_consistent((0, leaf(0)), head_of(5), [])
    assert not is_consistent((-1, EMPTY), head_of(5), [])
    for first in (-1, 6):
        with pytest.raises(ValueError, match=f"the first {first} of 5"):
            consistency(first, 5, NODES.__getitem__)
