"""The log of delivered pictures: entries that are only ever added, and the tree over their hashes.

What an entry and a proof are is said in ``core.hash_log``; here they are kept and found again, by
image, by mark, by the hash of a file, or by looks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Row, func, insert, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core import hash_log
from calotype.core.errors import InvalidInput
from calotype.core.hash_log import Get, LogEntry, Place
from calotype.jobs import tables
from calotype.jobs.database import Database

T = TypeVar("T")

TRIES = 8  # of adding, while another server adds at the same moment


@dataclass(frozen=True)
class Kept:
    """An entry at its place in the log."""

    number: int  # 0 is the first
    entry: LogEntry
    leaf: bytes  # its hash, as it was added


@dataclass(frozen=True)
class Proof:
    """That an entry is in the log: with its own hash, these give the head."""

    number: int
    count: int  # entries of the log
    path: tuple[bytes, ...]
    head: bytes


class HashLog:
    """The log in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._phashes: NDArray[np.uint64] = np.empty(0, np.uint64)  # by number, as far as read

    async def append(self, entries: Sequence[LogEntry]) -> None:
        """Add entries, in order; those of images that are in the log already are left out."""

        async def write() -> None:
            for tried in range(TRIES):
                try:
                    async with self._database.writing() as conn:
                        await _append(conn, entries)
                    return
                except IntegrityError:  # another server has taken the number
                    if tried == TRIES - 1:
                        raise

        await self._database.finish(write())

    async def of_image(self, image_id: str) -> Kept | None:
        """The entry of an image."""
        return await self._one(tables.hash_log.c.image == image_id)

    async def of_mark(self, mark: int) -> Kept | None:
        """The entry of the picture that was given this mark."""
        return await self._one(tables.hash_log.c.mark == _hex(mark))

    async def of_file(self, sha256: str) -> Kept | None:
        """The entry of the picture one of whose signed files has this hash."""
        files = tables.hash_log_files
        number = select(files.c.number).where(files.c.sha256 == sha256).limit(1)
        return await self._one(tables.hash_log.c.number == number.scalar_subquery())

    async def near(self, phashes: Collection[int], *, bits: int, most: int) -> list[Kept]:
        """Entries whose perceptual hash is within ``bits`` of one of these, nearest first."""
        await self._read_phashes()
        if not len(self._phashes) or not phashes:
            return []
        asked = np.array(sorted(phashes), np.uint64)
        apart = np.min([np.bitwise_count(self._phashes ^ each) for each in asked], axis=0)
        order = np.argsort(apart, kind="stable")[:most]
        chosen = [int(number) for number in order if apart[number] <= bits]
        log = tables.hash_log
        async with self._database.reading() as conn:
            rows = (await conn.execute(select(log).where(log.c.number.in_(chosen)))).all()
        found = {row.number: _kept(row) for row in rows}
        return [found[number] for number in chosen]

    async def head(self, count: int | None = None) -> tuple[int, bytes]:
        """How many entries there are, and the hash over them all: keep it to check the log by.

        With ``count``, those of the log when it had so many. Raises InvalidInput.
        """
        async with self._database.reading() as conn:
            count = await _as_long(conn, count)
            return count, await _with_nodes(conn, lambda get: hash_log.root(count, get))

    async def proof(self, number: int, count: int | None = None) -> Proof:
        """The proof that an entry is in the log as it is, or was when it had ``count`` entries.

        Raises InvalidInput for a count there never was, ValueError if the entry isn't among them.
        """
        async with self._database.reading() as conn:
            count = await _as_long(conn, count)
            path = await _with_nodes(conn, lambda get: hash_log.proof(number, count, get))
            head = await _with_nodes(conn, lambda get: hash_log.root(count, get))
        return Proof(number, count, tuple(path), head)

    async def consistency(self, first: int, count: int | None = None) -> tuple[int, list[bytes]]:
        """``count``, and the proof that the log of so many entries begins with its ``first``.

        Raises InvalidInput.
        """
        async with self._database.reading() as conn:
            count = await _as_long(conn, count)
            _check_count(first, count, "first")
            make = partial(hash_log.consistency, first, count)
            return count, await _with_nodes(conn, make)

    async def _one(self, where: ColumnElement[bool]) -> Kept | None:
        async with self._database.reading() as conn:
            row = (await conn.execute(select(tables.hash_log).where(where).limit(1))).one_or_none()
        return _kept(row) if row else None

    async def _read_phashes(self) -> None:
        """Read those that were added since; eight bytes for each picture stay in memory."""
        log = tables.hash_log
        newer = select(log.c.phash).where(log.c.number >= len(self._phashes)).order_by(log.c.number)
        async with self._database.reading() as conn:
            texts = (await conn.execute(newer)).scalars().all()
        added = np.array([int(text, 16) for text in texts], np.uint64)
        self._phashes = np.concatenate([self._phashes, added])


async def _append(conn: AsyncConnection, entries: Sequence[LogEntry]) -> None:
    log = tables.hash_log
    images = [entry.image for entry in entries]
    known = set((await conn.execute(select(log.c.image).where(log.c.image.in_(images)))).scalars())
    count = await _count(conn)
    nodes = await _nodes(conn, hash_log.peaks(count))
    for entry in entries:
        if entry.image in known:
            continue
        leaf = hash_log.leaf_hash(entry)
        made = hash_log.added(count, leaf, nodes.__getitem__)
        nodes |= made
        await conn.execute(insert(log).values(number=count, leaf=leaf, **_values(entry)))
        files = [{"number": count, "sha256": sha256} for sha256 in set(entry.files.values())]
        await conn.execute(insert(tables.hash_log_files), files)
        rows = [{"level": at[0], "number": at[1], "hash": made[at]} for at in made]
        await conn.execute(insert(tables.hash_log_nodes), rows)
        count += 1


async def _count(conn: AsyncConnection) -> int:
    newest = await conn.execute(select(func.max(tables.hash_log.c.number)))
    number = newest.scalar_one()
    return 0 if number is None else int(number) + 1


async def _as_long(conn: AsyncConnection, count: int | None) -> int:
    """``count``, or how many entries there are; raises InvalidInput if there never were so many."""
    there = await _count(conn)
    if count is None:
        return there
    _check_count(count, there, "count")
    return count


def _check_count(count: int, most: int, field: str) -> None:
    if not 0 <= count <= most:
        limit = {"min": 0, "max": most}
        raise InvalidInput(f"{field} has to be from 0 to {most}", field=field, limit=limit)


async def _with_nodes(conn: AsyncConnection, work: Callable[[Get], T]) -> T:
    """Do pure work that asks for nodes: first to learn which, then with them."""
    asked: list[Place] = []

    def note(place: Place) -> bytes:
        asked.append(place)
        return b""

    work(note)
    nodes = await _nodes(conn, asked)
    return work(nodes.__getitem__)


async def _nodes(conn: AsyncConnection, places: Sequence[Place]) -> dict[Place, bytes]:
    at = tables.hash_log_nodes
    if not places:
        return {}
    query = select(at).where(tuple_(at.c.level, at.c.number).in_(places))
    return {(row.level, row.number): row.hash for row in await conn.execute(query)}


def _hex(number: int) -> str:
    return f"{number:016x}"


def _values(entry: LogEntry) -> dict[str, Any]:
    return {
        "image": entry.image,
        "mark": _hex(entry.mark),
        "mark_key": entry.mark_key,
        "files": entry.files,
        "phash": _hex(entry.phash),
        "width": entry.width,
        "height": entry.height,
        "sketch": entry.sketch,
        "at": entry.at,
    }


def _kept(row: Row[Any]) -> Kept:
    values = dict(row._mapping)
    number, leaf = values.pop("number"), values.pop("leaf")
    values |= {"mark": int(values["mark"], 16), "phash": int(values["phash"], 16)}
    return Kept(number, LogEntry(**values), leaf)
