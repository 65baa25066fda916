"""The next start: the first job by the fair order that an engine has its model warm and room for.

Jobs of one *kind* can start in the same places, so whoever asks for the next start asks for kinds,
not for jobs. A job's kind is its model's name; one that failed somewhere is of another, with the
engines it avoids.
"""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

from calotype.core.limits import ATTEMPTS_MAX
from calotype.policy.engines import Engine
from calotype.policy.lanes import Entry
from calotype.policy.place import WHOLE_ENGINE, Fleet
from calotype.policy.queue import Queue


class Kind(NamedTuple):
    """What decides where a job can start."""

    model: str
    avoid: tuple[str, ...] = ()  # engines where it failed


class Starts:
    """Kinds of waiting jobs, and which job starts next where."""

    def __init__(self, fleet: Fleet, queue: Queue) -> None:
        self._fleet, self._queue = fleet, queue
        self._special: dict[str, Kind] = {}  # by name; all others are models
        self.running_max: int | None = None  # jobs at once; None: as many as fit

    def copy(self, fleet: Fleet, queue: Queue) -> Starts:
        """The same for a copy of the line, to play forward."""
        mine = copy(self)
        mine._fleet, mine._queue, mine._special = fleet, queue, dict(self._special)
        return mine

    def waits(self, entry: Entry) -> None:
        """A job is to wait: of which kind, and for how many rows."""
        if entry.avoid:
            entry.kind = f"{entry.job.model}, not on {', '.join(entry.avoid)}"
            self._special[entry.kind] = Kind(entry.job.model, entry.avoid)
        # At its last attempt it takes all the rows there are: it is alone on its engine.
        entry.rows = WHOLE_ENGINE if entry.attempt + 1 == ATTEMPTS_MAX else entry.job.rows

    def kind(self, name: str) -> Kind:
        """A kind of waiting jobs by its name."""
        return self._special.get(name) or Kind(name)

    def next(self, running: int) -> tuple[Entry, str, Engine] | None:
        """The next start, and why it is; None if nothing can start, so many jobs running.

        A job that has its model warm but not enough room *holds* those engines: nobody behind it
        may take the rows it waits for, or a job of four images would never start among jobs of
        one. An engine so held is never empty, so none idles while a job that could run there waits.
        """
        is_full = self.running_max is not None and running >= self.running_max
        if is_full or not self._fleet.opened:
            return None
        kinds = self._fleet.open_kinds(self._queue.kinds)
        if self._special:
            kinds += self._open_special()
        held: dict[str, tuple[str, ...]] = {}
        while kinds and (found := self._queue.first(kinds)):
            entry, why = found
            model, avoid = entry.job.model, self.avoided(entry)
            if engine := self._fleet.warm(model, entry.rows, held, avoid):
                return entry, why, engine
            held[model] = tuple(name for name in avoid if name in held.get(model, avoid))
            kinds.remove(entry.kind)
        return None

    def avoided(self, entry: Entry) -> tuple[str, ...]:
        """Engines where it failed, if there is another that could run it."""
        return self._barred(entry.job.model, entry.avoid) if entry.avoid else ()

    def _open_special(self) -> list[str]:
        """Kinds of jobs that failed somewhere, for which another engine has room."""
        for name in [name for name in self._special if name not in self._queue.kinds]:
            del self._special[name]
        return [
            name
            for name, (model, avoid) in self._special.items()
            if self._fleet.warm(model, 1, None, self._barred(model, avoid))
        ]

    def _barred(self, model: str, avoid: tuple[str, ...]) -> tuple[str, ...]:
        return avoid if self._fleet.has_other(model, avoid) else ()
