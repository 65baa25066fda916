"""Engines that are to be taken away, and when what still runs there is handed back.

A spot machine is told some time before. Nothing more starts there, and what it runs goes on: no
device-second of it is lost, and what ends in time needs no other engine. ``HAND_BACK_S`` before the
end the rest is handed back with what was done of it, to go on elsewhere.
"""

from __future__ import annotations

from calotype.core.limits import HAND_BACK_S


class Notices:
    """By engine. Times are the line's."""

    def __init__(self) -> None:
        self._hand_back_at: dict[str, float | None] = {}  # None: it was told to hand back

    def __contains__(self, engine: str) -> bool:
        return engine in self._hand_back_at

    def given(self, engine: str, until: float) -> None:
        """An engine goes then; of two notices the earlier counts."""
        hand_back_at = until - HAND_BACK_S
        before = self._hand_back_at.get(engine, hand_back_at)
        self._hand_back_at[engine] = None if before is None else min(before, hand_back_at)

    def over(self, engine: str) -> bool:
        """It is gone, or up anew; whether it had been told to go."""
        was_told = engine in self._hand_back_at
        self._hand_back_at.pop(engine, None)
        return was_told

    def due(self, now: float) -> list[str]:
        """Engines that have to hand back now what they run; each once."""
        due = [name for name, at in self._hand_back_at.items() if at is not None and at <= now]
        self._hand_back_at.update(dict.fromkeys(due))
        return due

    def next_deadline(self) -> float | None:
        """When the next engine has to."""
        return min((at for at in self._hand_back_at.values() if at is not None), default=None)

    def copy(self) -> Notices:
        """The same, to play forward with."""
        mine = Notices()
        mine._hand_back_at = dict(self._hand_back_at)
        return mine
