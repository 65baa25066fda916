"""The next start: the first job by the fair order that an engine has its model warm and room for.

Jobs of one *kind* can start in the same places, so whoever asks for the next start asks for kinds,
not for jobs. A job's kind is its model's name. One that failed somewhere is of another, with the
engines it avoids; so is one whose LoRAs and ControlNets take more than devices keep free for such:
it starts only where that is free beside the model, and waits for a place.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

from calotype.core.limits import ATTEMPTS_MAX
from calotype.policy.engines import Engine
from calotype.policy.kinds import Kind
from calotype.policy.lanes import Entry
from calotype.policy.place import WHOLE_ENGINE, Fleet
from calotype.policy.queue import Queue


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
        kind = self._kind_of(entry)
        entry.kind = kind.name
        if not kind.is_plain:
            self._special[entry.kind] = kind
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
        held: dict[str, list[Kind]] = {}
        while kinds and (found := self._queue.first(kinds)):
            entry, why = found
            model, special = entry.job.model, self._special.get(entry.kind)
            kind = self._fleet.in_force(special) if special else None
            if engine := self._fleet.warm(model, entry.rows, held, kind):
                return entry, why, engine
            held.setdefault(model, []).append(kind or Kind(model))
            kinds.remove(entry.kind)
        return None

    def misplaced(self, waiting: Iterable[Entry]) -> list[Entry]:
        """Those of another kind than they should be, since devices or needs are others now."""
        some = (one for one in waiting if one.job.adapters or one.room)
        return [one for one in some if one.kind != self._kind_of(one).name]

    def _kind_of(self, entry: Entry) -> Kind:
        kind = self._fleet.homes.kind(entry.job.model, entry.job.adapters, entry.room)
        return kind._replace(avoid=entry.avoid) if entry.avoid else kind

    def _open_special(self) -> list[str]:
        """Of kinds that may not start everywhere, those for which an engine has room."""
        for name in [name for name in self._special if name not in self._queue.kinds]:
            del self._special[name]
        return [
            name
            for name, kind in self._special.items()
            if self._fleet.warm(kind.model, 1, None, self._fleet.in_force(kind))
        ]
