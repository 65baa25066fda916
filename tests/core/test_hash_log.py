"""The tree of hashes: what it proves, and that nothing else passes for a proof."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from calotype.core.hash_log import (
    LogEntry,
    Place,
    added,
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
