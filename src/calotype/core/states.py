"""The states of a job, an attempt, an engine and a breaker, as tables of legal moves.

A *job* waits in the line (``queued``), runs on an engine (``running``), and ends once:
``succeeded``, ``failed`` or ``cancelled``. An engine that dies sends it back to ``queued``. When a
required safety check can't run, the job is held in ``pending_safety``: its pictures are dropped,
never delivered unjudged, and after a while it goes back to ``queued``. An *attempt* is one lease on
one engine. An *engine* is a process on a device: one that misses its signs of life is ``suspect``,
then ``dead``; one that is slow is ``draining`` until its rows are done, and is then begun anew. A
*breaker* stands before what may fail again and again (loading a component on a device, a safety
check): ``policy/breaker.py``.

A move that isn't in the table raises and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from calotype.core.errors import IllegalMove

S = TypeVar("S", bound=StrEnum)


class JobState(StrEnum):
    """Where a job is; the names are those of the public API."""

    QUEUED = "queued"
    RUNNING = "running"
    PENDING_SAFETY = "pending_safety"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True when no move leads out of it."""
        return not JOB_MOVES[self]


class AttemptState(StrEnum):
    """How one lease of a job on one engine went."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"  # the engine died or its lease ran out
    HELD = "held"  # its pictures couldn't be judged, and were dropped
    HANDED_BACK = "handed_back"  # its engine goes: the job goes on with another
    CANCELLED = "cancelled"


class EngineState(StrEnum):
    """The life of an engine process."""

    STARTING = "starting"
    READY = "ready"
    SUSPECT = "suspect"  # gave no sign of life for a while: takes no more until it does
    DRAINING = "draining"  # finishes its rows, takes no more
    DEAD = "dead"


class BreakerState(StrEnum):
    """Whether something that failed is tried again."""

    CLOSED = "closed"  # it works: tried whenever it is wanted
    OPEN = "open"  # it failed too often in a row: not tried for a while
    HALF_OPEN = "half_open"  # one try is under way, to see


def _table(moves: dict[S, tuple[S, ...]]) -> Mapping[S, frozenset[S]]:
    return MappingProxyType({state: frozenset(after) for state, after in moves.items()})


_J, _A, _E, _B = JobState, AttemptState, EngineState, BreakerState

JOB_MOVES = _table(
    {
        _J.QUEUED: (_J.RUNNING, _J.FAILED, _J.CANCELLED),
        _J.RUNNING: (_J.QUEUED, _J.PENDING_SAFETY, _J.SUCCEEDED, _J.FAILED, _J.CANCELLED),
        _J.PENDING_SAFETY: (_J.QUEUED, _J.FAILED, _J.CANCELLED),
        _J.SUCCEEDED: (),
        _J.FAILED: (),
        _J.CANCELLED: (),
    }
)
ATTEMPT_MOVES = _table(
    {
        _A.RUNNING: (
            *(_A.DONE, _A.FAILED, _A.LOST, _A.HELD, _A.HANDED_BACK),
            _A.CANCELLED,
        ),
        _A.DONE: (),
        _A.FAILED: (),
        _A.LOST: (),
        _A.HELD: (),
        _A.HANDED_BACK: (),
        _A.CANCELLED: (),
    }
)
ENGINE_MOVES = _table(
    {
        _E.STARTING: (_E.READY, _E.DEAD),
        _E.READY: (_E.SUSPECT, _E.DRAINING, _E.DEAD),
        _E.SUSPECT: (_E.READY, _E.DEAD),
        _E.DRAINING: (_E.DEAD,),
        _E.DEAD: (_E.STARTING,),
    }
)
BREAKER_MOVES = _table(
    {
        _B.CLOSED: (_B.OPEN,),
        _B.OPEN: (_B.HALF_OPEN,),
        _B.HALF_OPEN: (_B.CLOSED, _B.OPEN),
    }
)


def move(moves: Mapping[S, frozenset[S]], before: S, after: S) -> S:
    """Return ``after`` if the table allows it; raise ``IllegalMove`` otherwise."""
    if after not in moves[before]:
        allowed = ", ".join(sorted(moves[before])) or "nothing: it is final"
        raise IllegalMove(f"{type(before).__name__}: {before} can't become {after} ({allowed})")
    return after
