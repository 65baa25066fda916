"""Whether a row may begin: what the checks that read make of its prompt, before its first step.

A thread asks them, row after row, so that rows that step don't wait for one that is slow or hangs.
It compares scores with numbers that came with the row, and decides nothing else: what a refusal
means is the server's to say. A check that fails, hangs or gives half an answer refuses the row,
too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from calotype.core.messages import RowRefused
from calotype.engine.checks.recogniser import Ending
from calotype.engine.checks.running import Checks, Seen
from calotype.engine.rows import Row


class Reading:
    """Rows whose prompts are being read. All methods are for the loop's thread.

    ``offer`` is told of each prompt that was read: model, row, what was said, the prompt, and what
    gives the text encoder's embedding of it; ``wake``, when a row waits no longer. Both are called
    from the reading thread.
    """

    def __init__(
        self,
        checks: Checks,
        offer: Callable[[str, str, Seen, str, Callable[[], Ending]], None],
        wake: Callable[[], None],
    ) -> None:
        self._checks, self._offer, self._wake = checks, offer, wake
        self._thread = ThreadPoolExecutor(1, "reading")  # starts with the first row
        self._read: dict[str, tuple[Row, Future[Seen]]] = {}

    def __len__(self) -> int:
        return len(self._read)

    def __contains__(self, name: str) -> bool:
        return name in self._read

    def rows(self) -> list[Row]:
        """Those that wait."""
        return [row for row, _ in self._read.values()]

    def get(self, name: str) -> Row | None:
        """One of them."""
        return self._read[name][0] if name in self._read else None

    def put(self, row: Row) -> bool:
        """Let a row wait until it is read; False if nothing reads its model's prompts."""
        if not self._checks.has_readers(row.command.model):
            return False
        read = self._thread.submit(self._seen, row)
        self._read[row.command.row] = row, read
        read.add_done_callback(lambda _: self._wake())
        return True

    def drop(self, name: str) -> None:
        """Let a row wait no longer; unknown rows are ignored."""
        if name in self._read:
            self._read.pop(name)[1].cancel()

    def settled(self) -> Iterator[tuple[Row, RowRefused | None]]:
        """Rows that were read, and have the scores: each may begin, or why no step is made."""
        for name, (row, read) in [*self._read.items()]:
            if read.done():
                del self._read[name]
                row.read = read.result()
                yield row, _refusal(row)

    def settle(self) -> None:
        """Wait until all were read."""
        wait([read for _, read in self._read.values()])

    def close(self) -> None:
        """Read no more; what hangs is left."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _seen(self, row: Row) -> Seen:
        def ending() -> Ending:
            return Ending(row.model.ending(row.conditions[-1]), row.model.contents)

        command = row.command
        seen = self._checks.read(command.model, command.prompt, ending)
        self._offer(command.model, command.row, seen, command.prompt, ending)
        return seen


def _refusal(row: Row) -> RowRefused | None:
    command, seen = row.command, row.read
    is_past = any(
        score >= command.refused_from.get(name, math.inf) for name, score in seen.scores.items()
    )
    if not seen.failed and not is_past:
        return None
    return RowRefused(command.row, seen.scores, seen.failed, seen.degraded, seen.builds)
