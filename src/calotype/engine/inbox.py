"""Commands on their way from the reader's thread to the loop's, the urgent ones first.

Starting a row can take as long as many passes (texts are encoded, edges found), so a cancel must
not wait behind the rows that came before it. It knows nothing of sockets or models.
"""

from __future__ import annotations

import threading
from collections import deque

from calotype.core.messages import CancelRow, Message, RunRow, Stop

Command = tuple[Message, bytes]  # with the frame's raw bytes


class Inbox:
    """Bounded; one thread puts, another takes."""

    def __init__(self, size_max: int) -> None:
        self._commands: deque[Command] = deque()
        self._size_max = size_max
        self._changed = threading.Condition()
        self._woken = False

    def put(self, command: Message, blob: bytes = b"") -> None:
        """Add a command, waiting while there are too many.

        CancelRow and Stop go before all others. A cancelled row that still waits here is dropped:
        overtaken by its own cancel, it would run.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._commands) < self._size_max)
            if isinstance(command, CancelRow):
                self._drop(command.row)
            if isinstance(command, CancelRow | Stop):
                self._commands.appendleft((command, blob))
            else:
                self._commands.append((command, blob))
            self._changed.notify_all()

    def take(self, *, wait: bool) -> Command | None:
        """The next command; None when there is none, unless told to wait for one or for a wake."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._commands or self._woken)
                self._woken = False
            if not self._commands:
                return None
            command = self._commands.popleft()
            self._changed.notify_all()
            return command

    def wake(self) -> None:
        """End the wait for a command, now or the next: there is something else to do."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _drop(self, row: str) -> None:
        kept = [
            (one, blob)
            for one, blob in self._commands
            if not (isinstance(one, RunRow) and one.row == row)
        ]
        self._commands = deque(kept)
