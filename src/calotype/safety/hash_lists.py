"""Lists of known pictures, by PDQ: read from files, looked up in all eight positions at once.

A list is text, one hash of 64 hexadecimal digits a line; what follows it on the line (after a comma
or a space) isn't read, and lines that begin with # aren't either. One of those, the first, may say
that a match in it isn't severe (``ORDINARY``): any other list is one of known abuse. It knows
hashes, not pictures.
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
ORDINARY = "# severe = false"  # first line of a list whose matches are refusals like any other
BRUTE_MAX = 20_000  # hashes; more are looked up by an index
_CHUNK_BITS = 16
_CHUNKS = BITS // _CHUNK_BITS
# Of 16 chunks with at most 31 bits wrong in all, one has at most one wrong (Norouzi, Punjani and
# Fleet 2012, "Fast search in Hamming space with multi-index hashing").
_NEAR = np.array([0, *(1 << bit for bit in range(_CHUNK_BITS))], np.uint16)


@dataclass(frozen=True)
class HashList:
    """One list, as it was read."""

    name: str
    hashes: Hashes  # n x 4 words
    is_severe: bool = True  # a match is known abuse: a case, and a severe refusal


def read(path: Path) -> HashList:
    """A list; raises OperatorError naming file and line."""
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
    hashes = np.array(found, np.uint64).reshape(-1, WORDS)
    return HashList(path.stem, hashes, is_severe=_is_severe(lines))


def is_severe(path: Path) -> bool:
    """Whether a list says that its matches are severe; one that isn't there yet would be."""
    try:
        with path.open(encoding="utf-8") as file:
            return _is_severe([file.readline()])
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} can't be read: {error}", field=str(path)) from error


def _is_severe(lines: Sequence[str]) -> bool:
    return not (lines and lines[0].strip() == ORDINARY)


def files_of(paths: Sequence[Path]) -> list[Path]:
    """These files, and those of these folders that end in .pdq."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
    return found


def added(file: Path, folder: Path, name: str, *, is_severe: bool = True) -> int:
    """Keep a list under this name among those of a folder, in place of one that was; how many.

    Raises OperatorError if it can't be read, or the name isn't one.
    """
    check_name(name)
    hashes = read(file).hashes
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*severity_line(is_severe), *(to_hex(one) for one in hashes)]
    _write(folder, name, "".join(f"{line}\n" for line in lines))
    return len(hashes)


def set_severity(folder: Path, name: str, *, is_severe: bool) -> bool:
    """Say of a list in a folder whether its matches are severe; whether that changed anything.

    Raises OperatorError for a list that isn't there, or can't be read.
    """
    check_name(name)
    path = folder / f"{name}{SUFFIX}"
    if read(path).is_severe == is_severe:
        return False
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    said = [f"{line}\n" for line in severity_line(is_severe)]
    _write(folder, name, "".join([*said, *lines[len(lines) and not _is_severe(lines) :]]))
    return True


def severity_line(is_severe: bool) -> list[str]:
    """What a list begins with."""
    return [] if is_severe else [ORDINARY]


def _write(folder: Path, name: str, text: str) -> None:
    beside = folder / f".{name}.draft"
    beside.write_text(text, encoding="utf-8")
    beside.replace(folder / f"{name}{SUFFIX}")


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
    is_severe: bool = True  # as its list says


class KnownPictures:
    """All lists of an installation together."""

    def __init__(self, lists: Sequence[HashList] = ()) -> None:
        """Raises OperatorError past HASHES_MAX in all."""
        self._names = [one.name for one in lists]
        sizes = [len(one.hashes) for one in lists]
        self._ends = np.cumsum(sizes)
        self._is_severe = np.repeat([one.is_severe for one in lists], sizes)
        self._all: Hashes = np.concatenate(
            [np.zeros((0, WORDS), np.uint64), *(one.hashes for one in lists)]
        )
        if len(self._all) > limits.HASHES_MAX:
            raise OperatorError(
                f"the hash lists have {len(self._all):,} hashes", limit=limits.HASHES_MAX
            )
        self._every = np.arange(len(self._all))
        self._index = _Index(self._all) if len(self._all) > BRUTE_MAX else None
        said = ("" if one.is_severe else ":ordinary" for one in lists)
        text = "".join(
            f"{name}:{size}{severity};"
            for name, size, severity in zip(self._names, sizes, said, strict=True)
        )
        self.version = hashlib.sha256(text.encode() + self._all.tobytes()).hexdigest()[:12]

    @classmethod
    def from_files(cls, paths: Sequence[Path]) -> KnownPictures:
        """Files, and folders of files that end in .pdq; raises OperatorError naming the file."""
        return cls([read(file) for file in files_of(paths)])

    def __len__(self) -> int:
        return len(self._all)

    def nearest(self, positions: Hashes) -> Match | None:
        """The nearest to any of these (8 x 4 words), if within DISTANCE_MAX bits.

        One of a severe list before any other, though that were nearer.
        """
        best: tuple[bool, int, int] | None = None  # not severe, distance, place
        for one in positions:
            places = self._every if self._index is None else self._index.near(one)
            if not len(places):
                continue
            apart = distances(one, self._all[places])
            is_near = apart <= DISTANCE_MAX
            for is_severe in (True, False):
                theirs = np.flatnonzero(is_near & (self._is_severe[places] == is_severe))
                if not len(theirs):
                    continue
                at = int(theirs[apart[theirs].argmin()])
                found = (not is_severe, int(apart[at]), int(places[at]))
                best = found if best is None or found[:2] < best[:2] else best
        if best is None:
            return None
        is_ordinary, distance, place = best
        name = self._names[int(np.searchsorted(self._ends, place, side="right"))]
        return Match(name, distance, is_severe=not is_ordinary)

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
