"""Notes: what the dispatcher keeps over a restart beside the jobs, by name, as JSON.

A note is written with the next change of a job, in its transaction: what it says and what the jobs
say is then of one moment. It is a mapping, and only the entries that changed are written: some have
one for each tenant. Knows nothing of what a note means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import delete, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.jobs import tables

Note = Mapping[str, Any]  # entries, each JSON
Make = Callable[[], Note]

_ONE_BY_ONE_MAX = 1_000  # entries; if more have changed, the note is written whole
_NOTHING = object()


class Notes:
    """The notes of one store that aren't written yet; only the newest of a name counts."""

    def __init__(self) -> None:
        self._waiting: dict[str, Make] = {}
        self._stored: dict[str, Note] = {}  # as they were committed, where that is known

    def keep(self, name: str, make: Make) -> None:
        """Have what ``make`` returns written with the next transaction that calls ``write``.

        It is asked only then: of many changes without a transaction, none costs anything. What it
        returned may not be changed afterwards.
        """
        self._waiting[name] = make

    async def write(self, conn: AsyncConnection) -> dict[str, tuple[Make, Note]]:
        """Write what waits; give what this returns to ``written`` once it is committed."""
        writing = {name: (make, make()) for name, make in self._waiting.items()}
        whole: list[str] = []
        gone: list[tuple[str, str]] = []
        rows: list[dict[str, Any]] = []
        for name, (_, note) in writing.items():
            stored = self._stored.pop(name, None)  # should this fail, nobody knows what is stored
            changed = _changed(stored, note) if stored is not None else None
            if changed is None or len(changed) > _ONE_BY_ONE_MAX:
                whole.append(name)
                changed = list(note)
            else:
                gone += [(name, entry) for entry in changed]
            rows += [
                {"name": name, "entry": entry, "data": note[entry]}
                for entry in changed
                if entry in note
            ]
        notes = tables.notes
        if whole:
            await conn.execute(delete(notes).where(notes.c.name.in_(whole)))
        if gone:
            await conn.execute(delete(notes).where(tuple_(notes.c.name, notes.c.entry).in_(gone)))
        if rows:
            await conn.execute(insert(notes), rows)
        return writing

    def written(self, writing: Mapping[str, tuple[Make, Note]]) -> None:
        """These are committed; one that was kept anew meanwhile goes on waiting."""
        for name, (make, note) in writing.items():
            self._stored[name] = note
            if self._waiting.get(name) is make:
                del self._waiting[name]


async def read(conn: AsyncConnection, name: str) -> dict[str, Any] | None:
    """The note of this name as it was last written, or None if it never was (or was empty)."""
    notes = tables.notes
    query = select(notes.c.entry, notes.c.data).where(notes.c.name == name).order_by(notes.c.entry)
    rows = (await conn.execute(query)).all()
    return {row.entry: row.data for row in rows} or None


def _changed(stored: Note, note: Note) -> list[str]:
    """Entries that are new, another, or gone."""
    changed = [entry for entry, data in note.items() if stored.get(entry, _NOTHING) != data]
    return changed + [entry for entry in stored if entry not in note]
