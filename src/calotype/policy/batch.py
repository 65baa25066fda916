"""Decides which rows step next in an engine: rows of one key share the next forward pass.

**Whose turn.** The tiers are classes, and each gets device-seconds by its weight, however many rows
it has (stride scheduling, Waldspurger 1995: a class has a virtual time that its rows' seconds move
on, divided by its weight, and the one furthest behind leads). A class that had no rows comes in
level with the one furthest behind, so a turbo row that arrives takes the very next step. What a
class has used stays with it while it has no rows: a stream of rows of one step each gains nothing.
Within a class, the row that has had the fewest seconds leads, and a newcomer comes in one step of
its own behind that, for the same reason.

**Age.** A row that has gone ``ROW_WAITS_PASSES_MAX`` times the length of its own pass without a
step leads before all shares. It counts in its own passes so that this is safe for turbo: all the
rows there can be, all overdue, need no more than the lightest tier's share of the device.

**Who rides along.** Rows of the leader's key and class or a heavier one fill the pass as far as
batching pays by the measured curve. Lighter rows then take what room is left, and may lengthen the
pass by as much as its leader puts up with (``RowAdded.stretch``), where a forward gets cheaper by
it. Turbo puts up with 10 %; fast with 75 %, since the device then has so much less to do in all
that relax is through in two thirds of the time while fast takes a quarter longer.

Not choosing a row preempts it: nothing else has to happen. There is no clock: time is what the
curve says the passes took, so the same rows give the same turns, on a busy machine too. It knows
nothing of tensors or models: a key is a string.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from calotype.core.cost import Curve
from calotype.core.errors import InternalError
from calotype.core.limits import ROW_WAITS_PASSES_MAX
from calotype.core.nouns import Tier

BUCKETS = (2, 4, 8, 16)  # forwards in one pass; why these: engine/buckets.py
BATCH_PX_MAX = 8 * 512 * 512  # pixels of one pass: batching pays little above it (2.8 x at 512 px
# and batch 4, 1.02 x at 1,024 px), and a longer pass only delays the next decision
# Where shorter passes serve all nearly as soon, they are better for those who come meanwhile.
_NEARLY = 0.1
STRETCH = {Tier.TURBO: 0.1, Tier.FAST: 0.75, Tier.RELAX: 0.0}  # nothing is lighter than relax


@dataclass(frozen=True)
class RowAdded:
    """A row can step from now on."""

    row: str
    key: str  # rows of one key can share a pass: same model, same shapes
    forwards: int  # a step brings: 2 with guidance, 1 without
    weight: int  # of its class: the class's share of the device against other classes, > 0
    curve: Curve  # seconds of a pass by proven pass size, of the key
    stretch: float = _NEARLY  # by what share lighter rows may lengthen a pass that it leads


@dataclass(frozen=True)
class RunPass:
    """Run the model once, for these rows, padded to ``bucket`` forwards."""

    key: str
    rows: tuple[str, ...]  # in the order of their arrival
    bucket: int


@dataclass(eq=False)
class _Turn:
    """A row's standing. Times are seconds of charged passes."""

    added: RowAdded
    arrival: int
    had_s: float  # of the device, on the scale of its class
    overdue_at: float  # on the policy's count of all seconds

    @property
    def step_s(self) -> float:
        """A step of it alone."""
        return self.added.curve.seconds(self.added.forwards)


@dataclass
class _Class:
    """A tier's standing."""

    virtual: float = 0.0  # device-seconds of its rows / its weight
    least_s: float = 0.0  # what the row that led last had had


def bucket_candidates(width: int, height: int) -> tuple[int, ...]:
    """Pass sizes worth proving for pictures of this size, in pixels; the smallest is always in."""
    largest = BATCH_PX_MAX // (width * height)
    return tuple(bucket for bucket in BUCKETS if bucket <= largest) or BUCKETS[:1]


class BatchPolicy:
    """The turns of the rows an engine holds. Ties break on weight, then on arrival."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}
        self._classes: dict[int, _Class] = {}  # by weight; also those without rows
        self._arrivals = 0
        self._virtual = 0.0  # of the class furthest behind, at the last decision
        self._charged_s = 0.0  # all passes so far

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, added: RowAdded) -> None:
        """Take a row in; raise InternalError if it is held already or can't be scheduled."""
        if added.row in self._turns:
            raise InternalError(f"row {added.row} is held already")
        if added.forwards < 1 or added.weight < 1 or min(added.curve.pass_s, default=0.0) <= 0.0:
            raise InternalError(f"row {added.row} can't be scheduled: {added}")
        mine = self._classes.setdefault(added.weight, _Class())
        if not any(turn.added.weight == added.weight for turn in self._turns.values()):
            mine.virtual = max(mine.virtual, self._virtual)
        turn = _Turn(added, self._arrivals, mine.least_s, self._charged_s)
        turn.had_s += turn.step_s
        turn.overdue_at += ROW_WAITS_PASSES_MAX * turn.step_s
        self._turns[added.row] = turn
        self._arrivals += 1

    def drop(self, row: str) -> None:
        """Forget a row that is done, failed or cancelled; unknown rows are ignored."""
        self._turns.pop(row, None)

    def decide(self) -> RunPass | None:
        """Choose the next pass and charge its rows for it; None when no row is held.

        A row that needs more forwards than any proven bucket has goes alone, with ``bucket`` 1:
        its forwards then run one by one.
        """
        if not self._turns:
            return None
        leader = self._leader()
        chosen, bucket = self._pass_of(leader)
        self._charge(chosen, leader.added.curve)
        rows = tuple(turn.added.row for turn in sorted(chosen, key=lambda turn: turn.arrival))
        return RunPass(leader.added.key, rows, bucket)

    def _leader(self) -> _Turn:
        turns = self._turns.values()
        self._virtual = min(self._classes[turn.added.weight].virtual for turn in turns)
        overdue = [turn for turn in turns if turn.overdue_at <= self._charged_s]
        if overdue:
            return min(overdue, key=lambda turn: (turn.overdue_at, turn.arrival))
        leader = min(turns, key=self._place)
        self._classes[leader.added.weight].least_s = leader.had_s
        return leader

    def _place(self, turn: _Turn) -> tuple[float, int, float, int]:
        weight = turn.added.weight
        return (self._classes[weight].virtual, -weight, turn.had_s, turn.arrival)

    def _pass_of(self, leader: _Turn) -> tuple[list[_Turn], int]:
        """The rows that step with this one, and the bucket that holds them."""
        curve, weight = leader.added.curve, leader.added.weight
        others = sorted(
            (turn for turn in self._turns.values() if turn.added.key == leader.added.key),
            key=lambda turn: (turn is not leader, -turn.added.weight, turn.had_s, turn.arrival),
        )
        bucket = _best_bucket(curve, [turn for turn in others if turn.added.weight >= weight])
        if bucket is None:
            return [leader], 1
        room = _room(curve, bucket, leader.added.stretch)
        chosen = _that_fit(others, room)
        forwards = _forwards(chosen)
        return chosen, next(size for size in curve.buckets if size >= forwards)

    def _charge(self, chosen: list[_Turn], curve: Curve) -> None:
        """Each row pays for its forwards' part of the pass, padding included, and so its class."""
        forwards = _forwards(chosen)
        pass_s = curve.seconds(forwards)
        self._charged_s += pass_s
        for turn in chosen:
            share_s = pass_s * turn.added.forwards / forwards
            turn.had_s += share_s
            turn.overdue_at = self._charged_s + ROW_WAITS_PASSES_MAX * turn.step_s
            self._classes[turn.added.weight].virtual += share_s / turn.added.weight


def _forwards(turns: Iterable[_Turn]) -> int:
    return sum(turn.added.forwards for turn in turns)


def _that_fit(turns: list[_Turn], room: int) -> list[_Turn]:
    """The first ones, in order, that have room together; one that is too large is left out."""
    chosen: list[_Turn] = []
    for turn in turns:
        if turn.added.forwards <= room:
            chosen.append(turn)
            room -= turn.added.forwards
    return chosen


def _room(curve: Curve, bucket: int, stretch: float) -> int:
    """The size a pass may grow to for lighter rows: no longer than that, and cheaper a forward."""
    own_s = curve.seconds(bucket)
    dear_s = own_s / bucket * (1 - _NEARLY)  # a forward, from where it hardly pays
    longest_s = own_s * (1 + stretch)
    pay = [it for it in curve.buckets if curve.seconds(it) <= min(longest_s, dear_s * it)]
    return max([bucket, *pay])


def _best_bucket(curve: Curve, turns: list[_Turn]) -> int | None:
    """The size of passes in which these all get a step soonest, or nearly so in shorter passes.

    None when the first of them fits no bucket.
    """
    fitting = [size for size in curve.buckets if size >= turns[0].added.forwards]
    rounds = {size: _round_s(curve, turns, size) for size in fitting}
    good = [size for size in fitting if rounds[size] <= min(rounds.values()) * (1 + _NEARLY)]
    return min(good, key=lambda size: (curve.seconds(size), size), default=None)


def _round_s(curve: Curve, turns: list[_Turn], room: int) -> float:
    """Seconds until each has had a step, in passes of that size as long as they are full."""
    seconds = 0.0
    while turns := [turn for turn in turns if turn.added.forwards <= room]:
        chosen = _that_fit(turns, room)
        seconds += curve.seconds(_forwards(chosen))
        turns = [turn for turn in turns if turn not in chosen]
    return seconds
