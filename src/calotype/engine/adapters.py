"""Adapters that rows ask for and the engine hasn't got, read in a thread while others step.

A row waits here, outside the batch policy's turns, until all its adapters have come. Files are
read and checked in one thread of their own; what was read is installed between two passes, on the
loop's thread. A file that can't be used fails only the rows that asked for it. It knows nothing of
LoRAs or ControlNets: a want is a key, a job for the thread, and what to do with its result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from calotype.core import limits
from calotype.core.errors import TooMany


@dataclass(frozen=True)
class Want:
    """An adapter that a row needs and the engine has yet to read."""

    key: str  # unique among all that an engine reads: kind, model, name and build
    read: Callable[[], Any]  # slow, in the thread; touches nothing that the loop uses
    # With what was read, on the loop's thread; may raise. False: not now, but when rows have ended.
    install: Callable[[Any], bool | None]


@dataclass(frozen=True)
class Settled:
    """A row that waits no longer: all its adapters are there, or one can't be had."""

    row: str
    error: Exception | None = None


class Loader:
    """One thread that reads; all methods are for the loop's thread.

    ``wake`` is called from the reading thread when there is something to settle.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._pool = ThreadPoolExecutor(1, "adapters")  # starts its thread with the first job
        self._loads: dict[str, tuple[Want, Future[Any]]] = {}
        self._rows: dict[str, set[str]] = {}  # the keys that each still misses

    def __len__(self) -> int:
        return len(self._rows)

    def ask(self, row: str, wants: Sequence[Want]) -> None:
        """Let a row wait for these; each is read once, however many rows want it.

        Raises TooMany, and asks for nothing, when too many are being read.
        """
        new = [want for want in wants if want.key not in self._loads]
        if len(self._loads) + len(new) > limits.ADAPTERS_READ_MAX:
            raise TooMany("too many adapters are being read", limit=limits.ADAPTERS_READ_MAX)
        for want in new:
            future = self._pool.submit(want.read)
            future.add_done_callback(lambda _: self._wake())
            self._loads[want.key] = (want, future)
        self._rows[row] = {want.key for want in wants}

    def drop(self, row: str) -> None:
        """Let a row wait no longer; what nobody else wants isn't read, or not installed."""
        if self._rows.pop(row, None) is not None:
            self._forget_unwanted()

    def settle(self) -> list[Settled]:
        """Install what was read; the rows whose wait is over, in the order they came."""
        if not self._rows:
            return []
        outcome: dict[str, Exception | None] = {}
        for key in self._read():
            is_over, error = _installed(*self._loads[key])
            if is_over:
                del self._loads[key]
                outcome[key] = error
        settled = []
        for row, missing in list(self._rows.items()):
            error = next((outcome[key] for key in sorted(missing) if outcome.get(key)), None)
            missing.difference_update(outcome)
            if error or not missing:
                settled.append(Settled(row, error))
                del self._rows[row]
        self._forget_unwanted()
        return settled

    def _read(self) -> list[str]:
        return [key for key, (_, future) in self._loads.items() if future.done()]

    def _forget_unwanted(self) -> None:
        wanted: set[str] = set().union(*self._rows.values())
        for key in self._loads.keys() - wanted:
            self._loads.pop(key)[1].cancel()


def _installed(want: Want, future: Future[Any]) -> tuple[bool, Exception | None]:
    """Install what was read: whether that is over, and the error if it couldn't be."""
    try:
        return want.install(future.result()) is not False, None
    except Exception as error:  # noqa: BLE001 - told to the rows that asked
        return True, error
