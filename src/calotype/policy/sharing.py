"""How rows share an engine: evenly (processor sharing), as the simulator and estimates have it.

Work is counted in image-seconds on a device of speed 1; every row has done the same, so an engine
needs one number for all of them, and a job is over when that number has grown by its image's cost.
Joining and leaving change how fast it grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Protocol


class Pace(Protocol):
    """How fast an engine goes."""

    @property
    def speed(self) -> float:
        """Against the device that costs are told for."""

    @property
    def rows(self) -> int:
        """Images it works on at one time."""

    @property
    def batch_gain(self) -> float:
        """Images a second at full rows, against one row."""


@dataclass(frozen=True)
class Steady:
    """A pace, where nothing more is known of the engine."""

    speed: float = 1.0
    rows: int = 1
    batch_gain: float = 1.0


class Run:
    """One attempt of a job on an engine."""

    __slots__ = ("begun_s", "image_s", "job_id", "paid", "rows", "until")

    def __init__(self, job_id: str, rows: int, image_s: float) -> None:
        self.job_id = job_id
        self.rows = rows
        self.image_s = image_s  # of one row, on a device of speed 1
        self.paid = 0.0  # the engine's device-seconds for each row when it joined
        self.begun_s = 0.0
        self.until = 0.0  # the work for each row with which it is over

    def __lt__(self, other: object) -> bool:
        return False  # ends at the same moment are told in order of joining


class Sharing:
    """The rows of one engine. All times in seconds of one clock, which never goes back."""

    __slots__ = (
        "_done",
        "_ends",
        "_joined",
        "_paid",
        "_rate",
        "_rows",
        "_seen_s",
        "busy_s",
        "pace",
        "version",
    )

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.version = 0  # tells old predictions of its next end from the last one
        self.busy_s = 0.0  # with rows to work on
        self._done = self._paid = 0.0  # work done, and device-seconds, for each row
        self._rows = 0
        self._rate = 0.0  # of work for each row
        self._seen_s = 0.0
        self._joined = 0
        self._ends: list[tuple[float, int, Run]] = []

    def join(self, run: Run, now: float) -> float:
        """A job's rows begin; returns when the engine's next job ends."""
        self._advance(now)
        run.begun_s, run.paid = now, self._paid
        run.until = self._done + run.image_s
        self._rows += run.rows
        self._joined += 1
        heappush(self._ends, (run.until, self._joined, run))
        return self._next_end(now)

    def end(self, now: float) -> tuple[Run, float, float | None]:
        """The job that ends now, its device-seconds, and when the next one does."""
        self._advance(now)
        done, _, run = heappop(self._ends)
        self._done = max(self._done, done)
        device_s = run.rows * (self._paid - run.paid)
        self._rows -= run.rows
        return run, device_s, self._next_end(now) if self._ends else None

    def leave(self, job_id: str, now: float) -> tuple[Run, float, float, float | None] | None:
        """A job's rows leave before they are done; None if they aren't there.

        Else its run, its device-seconds, the share of its work that is still to do, and when the
        engine's next job ends.
        """
        at = next((at for at, it in enumerate(self._ends) if it[2].job_id == job_id), None)
        if at is None:
            return None
        self._advance(now)
        _, _, run = self._ends.pop(at)
        heapify(self._ends)
        left, device_s = self.left(run, now), run.rows * (self._paid - run.paid)
        self._rows -= run.rows
        self.version += 1
        return run, device_s, left, self._next_end(now) if self._ends else None

    def spent_s(self, now: float) -> float:
        """Device-seconds of what runs there, so far."""
        self._advance(now)
        return sum(run.rows * (self._paid - run.paid) for _, _, run in self._ends)

    def left(self, run: Run, now: float) -> float:
        """The share of a joined job's work that is still to do, 0..1."""
        done = self._done + (now - self._seen_s) * self._rate
        return min(1.0, max(0.0, run.until - done) / run.image_s) if run.image_s > 0 else 0.0

    def clear(self, now: float) -> None:
        """All rows are gone."""
        self._done = self._paid = self._rate = 0.0
        self._rows = self._joined = 0
        self._seen_s = now
        self._ends.clear()

    def _advance(self, now: float) -> None:
        if self._rows:
            passed = now - self._seen_s
            self.busy_s += passed
            self._done += passed * self._rate
            self._paid += passed / self._rows
        self._seen_s = now

    def _next_end(self, now: float) -> float:
        """Also sets how fast each row goes from now on."""
        pace = self.pace
        full = min(1.0, self._rows / pace.rows)
        gain = 1.0 + (pace.batch_gain - 1.0) * full if pace.rows > 1 else 1.0
        self._rate = pace.speed * gain / self._rows
        self.version += 1
        return now + max(0.0, self._ends[0][0] - self._done) / self._rate
