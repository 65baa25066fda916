"""Pools: engines that are set apart for some jobs and run no others. A line for each.

What a pool's engines do is nobody else's business: its jobs wait in a line of their own, with
shares of their own, and that line knows no engine but the pool's. So a job of one pool can't be
placed on an engine of another, whatever the rules of placing are. "" is the pool of all that has
none.

A job and an engine say which pool is theirs (``JobQueued``, ``EngineUp``). Any other fact is told
to each line: what one doesn't know changes nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calotype.core.decisions import Decision
from calotype.core.events import (
    EngineUp,
    JobQueued,
    ModelKnown,
    ModelRemoved,
    ModelsPinned,
    PolicyEvent,
    StartsBounded,
)
from calotype.policy.line import Line
from calotype.policy.rules import Rules

COMMON = ""  # the pool of jobs and engines that have none
POOLS = "pools"  # of a standing: those of the others, by name


class Lines:
    """The lines of an installation, to be told and read as if they were one."""

    def __init__(
        self, standing: Mapping[str, Any] | None = None, rules: Rules | None = None
    ) -> None:
        """Empty lines; ``standing`` is what ``standing()`` gave before a restart."""
        kept = dict(standing or {})
        others = kept.pop(POOLS, {})
        self._rules = rules
        self._lines = {COMMON: Line(kept or None, rules)}
        self._lines |= {pool: Line(said, rules) for pool, said in others.items()}
        # What holds for a line that is made later, too: the models there are, which are pinned,
        # how many jobs may run; the last of each kind, and of a model.
        self._in_force: dict[tuple[type, str], PolicyEvent] = {}

    def of(self, pool: str) -> Line:
        """The line of a pool that a job or an engine has named; raises KeyError."""
        return self._lines[pool]

    @property
    def loads_on_demand(self) -> bool:
        """Whether an engine is up that is told what to load."""
        return any(line.loads_on_demand for line in self._lines.values())

    def on(self, event: PolicyEvent, now: float) -> list[Decision]:
        """Take in a fact; answer what to do, in order. ``now`` in seconds, never going back."""
        if isinstance(event, JobQueued | EngineUp):
            return self._line(event.pool, now).on(event, now)
        match event:
            case ModelKnown(model):
                self._in_force[ModelKnown, model] = event
            case ModelRemoved(model):
                self._in_force.pop((ModelKnown, model), None)
            case ModelsPinned() | StartsBounded():
                self._in_force[type(event), ""] = event
            case _:
                pass
        return [decision for line in self._lines.values() for decision in line.on(event, now)]

    def next_deadline(self) -> float | None:
        """When to be called again (``TimePassed``) though nothing happened; None: not needed."""
        due = (line.next_deadline() for line in self._lines.values())
        return min((at for at in due if at is not None), default=None)

    def standing(self) -> dict[str, Any]:
        """What everyone has been charged, as JSON, to keep over a restart."""
        said = self._lines[COMMON].standing()
        others = {pool: line.standing() for pool, line in self._lines.items() if pool}
        return said | ({POOLS: others} if others else {})

    def _line(self, pool: str, now: float) -> Line:
        if pool not in self._lines:
            line = self._lines[pool] = Line(None, self._rules)
            for event in self._in_force.values():
                line.on(event, now)
        return self._lines[pool]
