"""Engines in virtual time: what runs on each, how fast, and what they have loaded.

Rows on an engine share it evenly (processor sharing). Work is counted in image-seconds on a device
of speed 1; every row has done the same, so an engine needs one number for all of them, and a job is
over when that number has grown by its image's cost. Joining and leaving change how fast it grows.
"""

from __future__ import annotations

from heapq import heappop, heappush

from calotype.sim.fleet import Kind


class Run:
    """One attempt of a job on an engine."""

    __slots__ = ("begun_s", "image_s", "job_id", "paid", "rows")

    def __init__(self, job_id: str, rows: int, image_s: float) -> None:
        self.job_id = job_id
        self.rows = rows
        self.image_s = image_s  # of one row, on a device of speed 1
        self.paid = 0.0  # the engine's device-seconds for each row when it joined
        self.begun_s = 0.0

    def __lt__(self, other: object) -> bool:
        return False  # ends at the same moment are told in order of joining


class SimEngine:
    """One engine; ``version`` tells old predictions of its next end from the last one."""

    __slots__ = (
        "_done",
        "_ends",
        "_joined",
        "_paid",
        "_rate",
        "_rows",
        "_seen_s",
        "busy_s",
        "is_spot",
        "is_up",
        "kind",
        "life",
        "loras",
        "name",
        "region",
        "up_s",
        "up_since",
        "version",
    )

    def __init__(self, name: str, region: str, kind: Kind, *, is_spot: bool = False) -> None:
        self.name, self.region, self.kind, self.is_spot = name, region, kind, is_spot
        self.is_up = False
        self.life = 0  # how often it came up
        self.version = 0
        self.loras: dict[str, None] = {}  # loaded, the one used last at the end
        self.busy_s = 0.0  # with rows to work on or models to load
        self.up_s, self.up_since = 0.0, 0.0
        self._done = self._paid = 0.0  # work done, and device-seconds, for each row
        self._rows = 0
        self._rate = 0.0  # of work for each row
        self._seen_s = 0.0
        self._joined = 0
        self._ends: list[tuple[float, int, Run]] = []

    def up(self, now: float) -> None:
        """It starts, with nothing on it."""
        self.is_up, self.up_since = True, now
        self.life += 1
        self.loras.clear()
        self._clear(now)

    def down(self, now: float) -> None:
        """It is lost, with all that runs on it."""
        if self._rows:
            self.busy_s += now - self._seen_s
        self.up_s += now - self.up_since
        self.is_up = False
        self.version += 1
        self._clear(now)

    def needs_loras(self, names: tuple[str, ...]) -> int:
        """How many of them it has to load; it has them afterwards."""
        missing = 0
        for name in names:
            missing += self.loras.pop(name, self) is self
            self.loras[name] = None
        while len(self.loras) > self.kind.loras:
            del self.loras[next(iter(self.loras))]
        return missing

    def loaded(self, load_s: float) -> None:
        """It spent so long loading; that counts as busy if it had nothing else to do."""
        if not self._rows:
            self.busy_s += load_s

    def join(self, run: Run, now: float) -> float:
        """A job's rows begin; returns when the engine's next job ends."""
        self._advance(now)
        run.begun_s, run.paid = now, self._paid
        self._rows += run.rows
        self._joined += 1
        heappush(self._ends, (self._done + run.image_s, self._joined, run))
        return self._next_end(now)

    def end(self, now: float) -> tuple[Run, float, float | None]:
        """The job that ends now, its device-seconds, and when the next one does."""
        self._advance(now)
        done, _, run = heappop(self._ends)
        self._done = max(self._done, done)
        device_s = run.rows * (self._paid - run.paid)
        self._rows -= run.rows
        return run, device_s, self._next_end(now) if self._ends else None

    def _clear(self, now: float) -> None:
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
        kind = self.kind
        full = min(1.0, self._rows / kind.rows)
        gain = 1.0 + (kind.batch_gain - 1.0) * full if kind.rows > 1 else 1.0
        self._rate = kind.speed * gain / self._rows
        self.version += 1
        return now + max(0.0, self._ends[0][0] - self._done) / self._rate
