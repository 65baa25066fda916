"""What the hash log shows to others, and how they check it: heads, and proofs between them.

Three documents, each JSON-ready. A *head* says how many entries the log had and the hash over them,
signed by the key that signs pictures. An *inclusion* shows that an entry is below a head, a
*consistency* that one head's log begins with another's. Who kept a head can so find out whether
anything before it was changed, without us and offline: ``audit`` knows of no database and asks
nobody. The tree is ``core.hash_log``'s (RFC 9162).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.core.hash_log import LogEntry, content_hash, content_of, is_consistent, proves
from calotype.provenance import receipts
from calotype.provenance.certificates import SigningIdentity

KIND = "hash-log head"  # by which it passes for no other signed statement


def head(count: int, root: bytes, at: datetime, identity: SigningIdentity) -> dict[str, Any]:
    """A signed head. Raises OperatorError."""
    body = {"kind": KIND, "count": count, "root": root.hex(), "at": at.isoformat()}
    return receipts.signed(body, identity, "head")


def inclusion(
    entry: LogEntry, leaf: bytes, number: int, count: int, path: Sequence[bytes]
) -> dict[str, Any]:
    """That an entry is the ``number``-th (from 0) of the log of ``count``.

    ``entry`` is null where its sketch was wiped: then only its hash is left to be shown.
    """
    told = {
        "entry": content_of(entry) if entry.sketch else None,
        "leaf": leaf.hex(),
        "number": number,
        "count": count,
        "path": [step.hex() for step in path],
    }
    return {"inclusion": told}


def consistency(first: int, count: int, path: Sequence[bytes]) -> dict[str, Any]:
    """That the log of ``count`` entries begins with that of ``first``."""
    return {"consistency": {"first": first, "count": count, "path": [it.hex() for it in path]}}


@dataclass(frozen=True)
class Finding:
    """What was found of one thing that was looked at."""

    name: str
    is_good: bool
    says: str


@dataclass
class _Audit:
    anchors_pem: str
    heads: dict[int, bytes] = field(default_factory=dict)  # roots by count
    files: set[str] = field(default_factory=set)  # SHA-256 that are proven to be in the log
    linked: set[tuple[int, int]] = field(default_factory=set)

    def head(self, told: Any) -> str:
        body = receipts.check(told, anchors_pem=self.anchors_pem, name="head")
        if body["kind"] != KIND:
            raise InvalidInput("is signed, and no head of a hash log", field="kind")
        count, root = _whole(body["count"]), bytes.fromhex(body["root"])
        if self.heads.setdefault(count, root) != root:
            raise InvalidInput(
                f"is another head for the same {count} entries: the log shows different people "
                "different things",
                field="root",
            )
        return f"head of {count} entries, signed {body['at']}"

    def inclusion(self, told: Any) -> str:
        body = told["inclusion"]
        number, count = _whole(body["number"]), _whole(body["count"])
        entry, leaf = body["entry"], bytes.fromhex(body["leaf"])
        if entry is not None and content_hash(entry) != leaf:
            raise InvalidInput("its entry isn't what its leaf is the hash of", field="entry")
        if not proves(leaf, number, count, _path(body), self._root(count)):
            raise InvalidInput(f"doesn't lead to the head of {count} entries", field="path")
        if entry is None:
            return f"entry {number} of {count}; only its hash is left"
        self.files.update(str(each) for each in entry["files"].values())
        return f"entry {number} of {count}: {entry['image']}, {entry['at']}"

    def consistency(self, told: Any) -> str:
        body = told["consistency"]
        first, count = _whole(body["first"]), _whole(body["count"])
        heads = (first, self._root(first)), (count, self._root(count))
        if not is_consistent(*heads, _path(body)):
            raise InvalidInput(
                f"the log of {count} entries doesn't begin with that of {first}", field="path"
            )
        self.linked.add((first, count))
        return f"the log of {count} entries begins with that of {first}"

    def _root(self, count: int) -> bytes:
        if count not in self.heads:
            raise InvalidInput(f"its head, of {count} entries, isn't among these", field="count")
        return self.heads[count]


def audit(
    documents: Mapping[str, Any], pictures: Mapping[str, str], *, anchors_pem: str
) -> list[Finding]:
    """Check documents against each other, and whether pictures are in what they prove.

    ``documents``: parsed JSON of any kind, by name, in any order; heads of other sizes have to be
    linked by a consistency each, else nothing says that they are of one log. ``pictures``: SHA-256
    by name. Never raises for what a document holds.
    """
    seen, findings = _Audit(anchors_pem), list[Finding]()
    kinds: tuple[tuple[str, Callable[[Any], str]], ...] = (
        ("head", seen.head),
        ("inclusion", seen.inclusion),
        ("consistency", seen.consistency),
    )
    for kind, look in kinds:  # all heads first: the others are checked against them
        for name, told in documents.items():
            if isinstance(told, dict) and kind in told:
                findings.append(_looked_at(name, look, told))
    for name, told in documents.items():
        if not isinstance(told, dict) or not any(kind in told for kind, _ in kinds):
            findings.append(Finding(name, False, "is no document of a hash log"))
    counts = sorted(seen.heads)
    for pair in pairwise(counts):
        if pair not in seen.linked:
            says = f"nothing links the heads of {pair[0]} and {pair[1]} entries"
            findings.append(Finding("heads", False, says))
    for name, sha256 in pictures.items():
        is_there = sha256 in seen.files
        says = "is in the log" if is_there else "is in no entry that is proven here"
        findings.append(Finding(name, is_there, says))
    return findings


def _looked_at(name: str, look: Callable[[Any], str], told: dict[str, Any]) -> Finding:
    try:
        return Finding(name, True, look(told))
    except InvalidInput as error:
        return Finding(name, False, error.detail)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return Finding(name, False, "isn't whole")


def _path(body: Any) -> list[bytes]:
    return [bytes.fromhex(step) for step in body["path"]]


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise ValueError("no count of a log")
    return number
