"""Decides which rows step next in an engine: rows of one key share the next forward pass.

Weighted fair rotation (stride scheduling, Waldspurger 1995): each row has a virtual time that its
steps advance by ``forwards x cost / weight``. The row that is furthest behind goes next and fixes
the key; rows of its key fill the pass, furthest behind first. So a key with large pictures can't
starve one with small ones, a turbo row takes ten steps for a relax row's one when both wait, and
every row gets its turn. A newcomer starts one step of its own behind: if it went first, a stream of
rows of one step, each gone before it is charged, would keep all others waiting for ever. Not
choosing a row preempts it: nothing else has to happen.

It knows nothing of tensors or models: a key is a string, a cost a number.
"""

from __future__ import annotations

from dataclasses import dataclass

from calotype.core.errors import InternalError

BUCKETS = (2, 4, 8)  # forwards in one pass; why these: engine/buckets.py
BATCH_PX_MAX = 8 * 512 * 512  # pixels of one pass: batching pays little above it (2.8 x at 512 px
# and batch 4, 1.02 x at 1,024 px), and a longer pass only delays the next decision


@dataclass(frozen=True)
class RowAdded:
    """A row can step from now on."""

    row: str
    key: str  # rows of one key can share a pass: same model, same shapes
    forwards: int  # a step brings: 2 with guidance, 1 without
    cost: float  # of one forward, in any unit that all rows share, > 0
    weight: int  # share of the device against other rows, > 0
    buckets: tuple[int, ...]  # pass sizes proven for the key, ascending


@dataclass(frozen=True)
class RunPass:
    """Run the model once, for these rows, padded to ``bucket`` forwards."""

    key: str
    rows: tuple[str, ...]  # in the order of their arrival
    bucket: int


@dataclass
class _Turn:
    added: RowAdded
    arrival: int
    virtual: float


def _stride(added: RowAdded) -> float:
    """What one step moves the row's virtual time by."""
    return added.forwards * added.cost / added.weight


def bucket_candidates(width: int, height: int) -> tuple[int, ...]:
    """Pass sizes worth proving for pictures of this size, in pixels; the smallest is always in."""
    largest = BATCH_PX_MAX // (width * height)
    return tuple(bucket for bucket in BUCKETS if bucket <= largest) or BUCKETS[:1]


class BatchPolicy:
    """The turns of the rows an engine holds. Ties break on arrival."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}
        self._arrivals = 0
        self._virtual = 0.0  # where the row last chosen first stood

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, added: RowAdded) -> None:
        """Take a row in; raise InternalError if it is held already or can't fit its buckets."""
        if added.row in self._turns:
            raise InternalError(f"row {added.row} is held already")
        if not added.buckets or added.forwards < 1 or added.cost <= 0 or added.weight < 1:
            raise InternalError(f"row {added.row} can't be scheduled: {added}")
        self._turns[added.row] = _Turn(added, self._arrivals, self._virtual + _stride(added))
        self._arrivals += 1

    def drop(self, row: str) -> None:
        """Forget a row that is done, failed or cancelled; unknown rows are ignored."""
        self._turns.pop(row, None)

    def decide(self) -> RunPass | None:
        """Choose the next pass and move its rows' virtual times on; None when no row is held.

        A row that needs more forwards than any proven bucket has goes alone, with ``bucket`` 1:
        its forwards then run one by one.
        """
        if not self._turns:
            return None
        waiting = sorted(self._turns.values(), key=lambda turn: (turn.virtual, turn.arrival))
        first = waiting[0].added
        self._virtual = waiting[0].virtual
        chosen, forwards = self._fill(waiting, first)
        for turn in chosen:
            turn.virtual += _stride(turn.added)
        bucket = next((size for size in first.buckets if size >= forwards), 1)
        rows = tuple(turn.added.row for turn in sorted(chosen, key=lambda turn: turn.arrival))
        return RunPass(first.key, rows, bucket)

    def _fill(self, waiting: list[_Turn], first: RowAdded) -> tuple[list[_Turn], int]:
        """Rows of the first one's key, furthest behind first, as many as its largest bucket has."""
        chosen: list[_Turn] = []
        forwards = 0
        for turn in waiting:
            fits = forwards + turn.added.forwards <= max(first.buckets)
            if turn.added.key == first.key and (fits or not chosen):
                chosen.append(turn)
                forwards += turn.added.forwards
        return chosen, forwards
