"""Lists of known pictures, by PDQ: read from files, looked up in all eight positions at once.

A list is text, one hash of 64 hexadecimal digits a line; what follows it on the line (after a comma
or a space) isn't read, and lines that begin with # aren't either. It knows hashes, not pictures.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.safety.pdq import BITS, DISTANCE_MAX, WORDS, Hashes, distances, from_hex, to_hex

SUFFIX = ".pdq"  # of the lists in a folder
BRUTE_MAX = 20_000  # hashes; more are looked up by an index
_CHUNK_BITS = 16
_CHUNKS = BITS // _CHUNK_BITS
# Of 16 chunks with at most 31 bits wrong in all, one has at most one wrong (Norouzi, Punjani and
# Fleet 2012, "Fast search in Hamming space with multi-index hashing").
_NEAR = np.array([0, *(1 << bit for bit in range(_CHUNK_BITS))], np.uint16)


def read(path: Path) -> Hashes:
    """The hashes of a list, n x 4 words; raises OperatorError naming file and line."""
    try:
        if path.stat().st_size > limits.HASH_LIST_BYTES_MAX:
            raise OperatorError(
                f"{path} is too large a list", field=str(path), limit=limits.HASH_LIST_BYTES_MAX
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} can't be read: {error}", field=str(path)) from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        digits = text.replace(",", " ").split()[0]
        try:
            found.append(from_hex(digits))
        except ValueError as error:
            raise OperatorError(f"{path}, line {number}: {error}", field=str(path)) from error
    if len(found) > limits.HASHES_MAX:
        raise OperatorError(
            f"{path} has {len(found):,} hashes", field=str(path), limit=limits.HASHES_MAX
        )
    return np.array(found, np.uint64).reshape(-1, WORDS)


def files_of(paths: Sequence[Path]) -> list[Path]:
    """These files, and those of these folders that end in .pdq."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return found


def added(file: Path, folder: Path, name: str) -> int:
    """Keep a list under this name among those of a folder, in place of one that was; how many.

    Raises OperatorError if it can't be read, or the name isn't one.
    """
    check_name(name)
    hashes = read(file)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{name}.draft"
    beside.write_text("".join(f"{to_hex(one)}\n" for one in hashes), encoding="utf-8")
    beside.replace(folder / f"{name}{SUFFIX}")
    return len(hashes)


def check_name(name: str) -> None:
    """Raise OperatorError for what can't be the name of a list, and of its file."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", name):
        raise OperatorError(
            f"a list can't be named {name!r}", field="name", limit="a-z, 0-9, and _ . - inside"
        )


@dataclass(frozen=True)
class Match:
    """The nearest known picture."""

    source: str  # the name of its list
    distance: int  # bits, 0..256


class KnownPictures:
    """All lists of an installation together."""

    def __init__(self, lists: Sequence[tuple[str, Hashes]] = ()) -> None:
        """``lists``: names, and n x 4 words each. Raises OperatorError past HASHES_MAX in all."""
        self._names = [name for name, _ in lists]
        sizes = [len(hashes) for _, hashes in lists]
        self._ends = np.cumsum(sizes)
        self._all: Hashes = np.concatenate(
            [np.zeros((0, WORDS), np.uint64), *(hashes for _, hashes in lists)]
        )
        if len(self._all) > limits.HASHES_MAX:
            raise OperatorError(
                f"the hash lists have {len(self._all):,} hashes", limit=limits.HASHES_MAX
            )
        self._every = np.arange(len(self._all))
        self._index = _Index(self._all) if len(self._all) > BRUTE_MAX else None
        text = "".join(f"{name}:{size};" for name, size in zip(self._names, sizes, strict=True))
        self.version = hashlib.sha256(text.encode() + self._all.tobytes()).hexdigest()[:12]

    @classmethod
    def from_files(cls, paths: Sequence[Path]) -> KnownPictures:
        """Files, and folders of files that end in .pdq; raises OperatorError naming the file."""
        return cls([(file.stem, read(file)) for file in files_of(paths)])

    def __len__(self) -> int:
        return len(self._all)

    def nearest(self, positions: Hashes) -> Match | None:
        """The nearest to any of these (8 x 4 words), if within DISTANCE_MAX bits."""
        best: tuple[int, int] | None = None  # distance, place
        for one in positions:
            places = self._every if self._index is None else self._index.near(one)
            if not len(places):
                continue
            apart = distances(one, self._all[places])
            at = int(apart.argmin())
            if apart[at] <= DISTANCE_MAX and (best is None or apart[at] < best[0]):
                best = int(apart[at]), int(places[at])
        if best is None:
            return None
        return Match(self._names[int(np.searchsorted(self._ends, best[1], side="right"))], best[0])

    def near(self, positions: Hashes) -> NDArray[np.intp]:
        """Places of all that are within DISTANCE_MAX bits of any of these (8 x 4 words)."""
        found = []
        for one in positions:
            places = self._every if self._index is None else self._index.near(one)
            found.append(places[distances(one, self._all[places]) <= DISTANCE_MAX])
        return np.unique(np.concatenate(found))


class _Index:
    """Hashes by each of their 16-bit chunks: finds all within DISTANCE_MAX, and some others."""

    def __init__(self, hashes: Hashes) -> None:
        chunks = _chunks(hashes)
        self._order = [np.argsort(column, kind="stable").astype(np.uint32) for column in chunks.T]
        counts = [np.bincount(column, minlength=1 << _CHUNK_BITS) for column in chunks.T]
        self._starts = [np.concatenate([[0], np.cumsum(count)]) for count in counts]

    def near(self, one: Hashes) -> NDArray[np.intp]:
        """Places of the hashes that may be near this one, each once."""
        found = []
        for chunk, value in enumerate(_chunks(one[None])[0]):
            starts, order = self._starts[chunk], self._order[chunk]
            for near in value ^ _NEAR:
                first, last = starts[near], starts[int(near) + 1]
                if first < last:
                    found.append(order[first:last])
        if not found:
            return np.zeros(0, np.intp)
        return np.unique(np.concatenate(found)).astype(np.intp)


def _chunks(hashes: Hashes) -> NDArray[np.uint16]:
    """N x 16 chunks of n x 4 words."""
    return np.ascontiguousarray(hashes).view(np.uint16).reshape(len(hashes), _CHUNKS)
