"""The states of a job, an attempt, an engine and a breaker, as tables of legal moves.

A *job* waits in the line (``queued``), runs on an engine (``running``), and ends once:
``succeeded``, ``failed`` or ``cancelled``. An engine that dies sends it back to ``queued``. When a
required safety check can't run, the job is held in ``pending_safety``: its pictures are dropped,
never delivered unjudged, and after a while it goes back to ``queued``. Where a check wants a person
to look, and nothing of the job may be delivered before, it waits ``in_review``. A job that is over
stays so, but for one that failed and whose appeal is granted. An *attempt* is one lease on one
engine. A *review* is one picture that a check didn't allow, a *report* what is told of a severe
case. An *engine* is a process on a device: one that misses its signs of life is ``suspect``,
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
    IN_REVIEW = "in_review"  # its pictures are made and sealed; people decide
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True when it is over: nobody works on it, and only an appeal can move it on."""
        return self in _OVER


class AttemptState(StrEnum):
    """How one lease of a job on one engine went."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"  # the engine died or its lease ran out
    HELD = "held"  # its pictures couldn't be judged, and were dropped
    HANDED_BACK = "handed_back"  # its engine goes, or had no room for it: it goes on elsewhere
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


class ReviewState(StrEnum):
    """Where a picture is that a check didn't allow."""

    REFUSED = "refused"  # by a check; no person has looked at it
    HELD = "held"  # the check wasn't sure: a person has to look
    BLOCKED = "blocked"  # by people
    APPEALED = "appealed"  # others have to look than those who decided before
    ALLOWED = "allowed"
    UPHELD = "upheld"  # refused after its appeal: for good
    WITHDRAWN = "withdrawn"  # nobody wants it any more


class ReportState(StrEnum):
    """How far a report has come; a person sends it, call by call."""

    PREPARED = "prepared"
    SUBMITTED = "submitted"  # it has a number
    UPLOADED = "uploaded"
    DESCRIBED = "described"  # the file's details are told
    FINISHED = "finished"
    RETRACTED = "retracted"  # or never to be sent


def _table(moves: dict[S, tuple[S, ...]]) -> Mapping[S, frozenset[S]]:
    return MappingProxyType({state: frozenset(after) for state, after in moves.items()})


_J, _A, _E, _B = JobState, AttemptState, EngineState, BreakerState
_R, _P = ReviewState, ReportState
_OVER = frozenset({_J.SUCCEEDED, _J.FAILED, _J.CANCELLED})

JOB_MOVES = _table(
    {
        _J.QUEUED: (_J.RUNNING, _J.FAILED, _J.CANCELLED),
        _J.RUNNING: (
            *(_J.QUEUED, _J.PENDING_SAFETY, _J.IN_REVIEW),
            *(_J.SUCCEEDED, _J.FAILED, _J.CANCELLED),
        ),
        _J.PENDING_SAFETY: (_J.QUEUED, _J.FAILED, _J.CANCELLED),
        _J.IN_REVIEW: (_J.SUCCEEDED, _J.FAILED, _J.CANCELLED),
        _J.SUCCEEDED: (),
        _J.FAILED: (_J.SUCCEEDED,),  # when people grant its appeal, and not otherwise
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
REVIEW_MOVES = _table(
    {
        _R.REFUSED: (_R.APPEALED,),
        _R.HELD: (_R.ALLOWED, _R.BLOCKED, _R.WITHDRAWN),
        _R.BLOCKED: (_R.APPEALED,),
        _R.APPEALED: (_R.ALLOWED, _R.UPHELD),
        _R.ALLOWED: (),
        _R.UPHELD: (),
        _R.WITHDRAWN: (),
    }
)
REPORT_MOVES = _table(
    {
        _P.PREPARED: (_P.SUBMITTED, _P.RETRACTED),
        # Back to the beginning where nobody knows whether its file is there: it is retracted, and
        # begun anew. Of words alone there is no file.
        _P.SUBMITTED: (_P.PREPARED, _P.UPLOADED, _P.FINISHED, _P.RETRACTED),
        _P.UPLOADED: (_P.DESCRIBED, _P.RETRACTED),
        _P.DESCRIBED: (_P.FINISHED, _P.RETRACTED),
        _P.FINISHED: (),
        _P.RETRACTED: (),
    }
)


def move(moves: Mapping[S, frozenset[S]], before: S, after: S) -> S:
    """Return ``after`` if the table allows it; raise ``IllegalMove`` otherwise."""
    if after not in moves[before]:
        allowed = ", ".join(sorted(moves[before])) or "nothing: it is final"
        raise IllegalMove(f"{type(before).__name__}: {before} can't become {after} ({allowed})")
    return after
