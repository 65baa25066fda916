"""One timer: has something told when its time has come, and is set anew as often as one likes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Alarm:
    """Calls ``ring`` with the time it was set to, in seconds of the monotonic clock."""

    def __init__(self, ring: Callable[[float], None]) -> None:
        self._ring = ring
        self._at: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float | None) -> None:
        """Ring at this time and no other; None: not at all."""
        if at == self._at:
            return
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._at = at
        if at is not None:
            delay_s = max(0.0, at - time.monotonic())
            self._handle = asyncio.get_running_loop().call_later(delay_s, self._rung, at)

    def _rung(self, at: float) -> None:
        self._at = self._handle = None
        self._ring(at)
