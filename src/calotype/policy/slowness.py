"""Which engines are slow: they take several times what jobs should cost, job after job.

An engine that slows down (throttled, leaking, crowded by other programs) still lives and still
steps, so neither signs of life nor steps tell. What was measured of its jobs does, beside what was
predicted from all engines' jobs. One job may be dear for reasons of its own; several in a row
aren't. Jobs of a moment tell nothing: what else runs on the machine takes as long. It is pure:
times come in, in seconds that never go back.
"""

from __future__ import annotations

from calotype.core import limits


class Slowness:
    """Counts each engine's slow jobs in a row."""

    def __init__(self) -> None:
        self._slow: dict[str, int] = {}  # jobs in a row, by engine
        self._judged_from: dict[str, float] = {}  # an engine that was found slow rests until then

    def ran(self, engine: str, predicted_s: float, measured_s: float, now: float) -> bool:
        """A job is done; True if that shows its engine to be slow, which is told once.

        Both are device-seconds of the whole job.
        """
        most_s = max(limits.SLOW_FACTOR * predicted_s, predicted_s + limits.SLOW_S_MIN)
        if measured_s <= most_s:
            self._slow.pop(engine, None)
            return False
        self._slow[engine] = self._slow.get(engine, 0) + 1
        if self._slow[engine] < limits.SLOW_JOBS or now < self._judged_from.get(engine, now):
            return False
        self._judged_from[engine] = now + limits.SLOW_AGAIN_S
        del self._slow[engine]
        return True

    def began(self, engine: str) -> None:
        """A new process: what the last one took says nothing of it."""
        self._slow.pop(engine, None)
