"""The record of every delivered picture, and the tree of hashes that keeps it honest.

Entries are leaves of a Merkle tree that only grows. Who kept the tree's head (size and root) can
have shown later that an entry was in it, and that a later head's tree begins with the same entries;
a proof has about one hash for each doubling of the log. The tree and its proofs are those of
RFC 9162, section 2.1.

Hashes of complete subtrees never change, so they are all that is stored: (level, number), where
level 0 are the leaves. Nothing here stores or reads anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Place = tuple[int, int]  # level, number
Get = Callable[[Place], bytes]

EMPTY = hashlib.sha256(b"").digest()  # the head of a tree without leaves


@dataclass(frozen=True)
class LogEntry:
    """What is kept of a delivered picture, to know it again."""

    image: str  # its id
    mark: int  # payload of its watermark, 1..2**64-1
    mark_key: str  # id of the key it was marked with
    files: dict[str, str]  # SHA-256 of each signed file, by format
    phash: int  # perceptual hash, 64 bits
    width: int  # pixels
    height: int  # pixels
    sketch: bytes = field(repr=False)  # see provenance.fingerprint
    at: datetime  # aware


def leaf_hash(entry: LogEntry) -> bytes:
    """The hash of an entry."""
    return content_hash(content_of(entry))


def content_of(entry: LogEntry) -> dict[str, Any]:
    """What an entry's hash is of, JSON-ready: of the sketch only its own hash.

    So a sketch can be forgotten, and the log stands.
    """
    return {
        "image": entry.image,
        "mark": f"{entry.mark:016x}",
        "mark_key": entry.mark_key,
        "files": entry.files,
        "phash": f"{entry.phash:016x}",
        "size": [entry.width, entry.height],
        "sketch": hashlib.sha256(entry.sketch).hexdigest(),
        "at": entry.at.isoformat(),
    }


def content_hash(content: Mapping[str, Any]) -> bytes:
    """The hash of an entry's content."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"\x00" + text.encode()).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def added(count: int, leaf: bytes, get: Get) -> dict[Place, bytes]:
    """The subtrees that are complete once ``leaf`` follows ``count`` others."""
    level, number, made = 0, count, leaf
    found = {(0, count): leaf}
    while number % 2:
        made = node_hash(get((level, number - 1)), made)
        level, number = level + 1, number // 2
        found[level, number] = made
    return found


def root(count: int, get: Get) -> bytes:
    """The head of a tree of ``count`` leaves."""
    return _root(0, count, get) if count else EMPTY


def proof(number: int, count: int, get: Get) -> list[bytes]:
    """The hashes that, with its own, give the head: leaf ``number`` of ``count``."""
    if not 0 <= number < count:
        raise ValueError(f"leaf {number} of {count}")
    trees = peaks(count)
    mine = next(i for i, (level, at) in enumerate(trees) if number >> level == at)
    level = trees[mine][0]
    path = [get((height, (number >> height) ^ 1)) for height in range(level)]
    later = [get(place) for place in trees[mine + 1 :]]
    path += [_folded(later)] if later else []
    return path + [get(place) for place in reversed(trees[:mine])]


def proves(leaf: bytes, number: int, count: int, path: Sequence[bytes], head: bytes) -> bool:
    """Whether the proof holds (RFC 9162, section 2.1.3.2)."""
    if not 0 <= number < count:
        return False
    at, last, made = number, count - 1, leaf
    for step in path:
        if last == 0:
            return False
        if at % 2 or at == last:
            made = node_hash(step, made)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            made = node_hash(made, step)
        at, last = at >> 1, last >> 1
    return last == 0 and made == head


def consistency(first: int, count: int, get: Get) -> list[bytes]:
    """The hashes that show that the tree of ``count`` leaves begins with that of ``first``.

    Raises ValueError unless ``first`` is one of 0..count. Nothing has to be shown of an empty tree.
    """
    if not 0 <= first <= count:
        raise ValueError(f"the first {first} of {count} leaves")
    return _consistency(first, 0, count, get) if first else []


def is_consistent(
    first: tuple[int, bytes], later: tuple[int, bytes], path: Sequence[bytes]
) -> bool:
    """Whether such a proof holds between two heads, each size and root (RFC 9162, 2.1.4.2)."""
    (size, head), (count, later_head) = first, later
    if size in (0, count):
        return not path and head == (EMPTY if size == 0 else later_head)
    if not 0 < size < count:
        return False
    steps = [head, *path] if size & (size - 1) == 0 else list(path)
    if not steps:
        return False
    at, last = size - 1, count - 1
    while at % 2:
        at, last = at >> 1, last >> 1
    older = newer = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if at % 2 or at == last:
            older, newer = node_hash(step, older), node_hash(step, newer)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            newer = node_hash(newer, step)
        at, last = at >> 1, last >> 1
    return last == 0 and older == head and newer == later_head


def peaks(count: int) -> list[Place]:
    """The largest complete subtrees that make up the tree, from the left."""
    found, before = [], 0
    for level in reversed(range(count.bit_length())):
        if count >> level & 1:
            found.append((level, before >> level))
            before += 1 << level
    return found


def _consistency(first: int, start: int, count: int, get: Get) -> list[bytes]:
    """RFC 9162's SUBPROOF, of the ``count`` leaves from ``start`` on."""
    if first == count:
        return [_root(start, count, get)] if start else []  # from 0 on it is the older head itself
    split = 1 << (count - 1).bit_length() - 1
    if first <= split:
        return [*_consistency(first, start, split, get), _root(start + split, count - split, get)]
    later = _consistency(first - split, start + split, count - split, get)
    return [*later, _root(start, split, get)]


def _root(start: int, count: int, get: Get) -> bytes:
    """The head of ``count`` leaves from ``start`` on, where the tree is split."""
    return _folded([get((level, number + (start >> level))) for level, number in peaks(count)])


def _folded(hashes: Sequence[bytes]) -> bytes:
    made = hashes[-1]
    for left in reversed(hashes[:-1]):
        made = node_hash(left, made)
    return made
