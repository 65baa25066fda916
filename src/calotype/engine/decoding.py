"""Turns finished rows into answers off the loop's thread: rows that still step don't wait for it.

A bounded queue and one thread. When the queue is full the loop waits, and ``waited_s`` says how
long; a row counts as held until its answer is sent. It knows nothing of what an answer is.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

import torch

from calotype.core import limits
from calotype.core.messages import Message
from calotype.engine.rows import Row

Answer = tuple[Message, bytes]


class Decoding:
    """Rows on their way out. One thread puts and drops; another, of its own, answers."""

    def __init__(
        self,
        answer: Callable[[Row], Answer],
        send: Callable[[Message, bytes], None],
        device: torch.device,
        held_max: int = limits.DECODES_HELD_MAX,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """``answer``, ``send`` and ``wake`` (a row is through) are called in that thread and must
        not raise."""
        self._answer, self._send, self._device = answer, send, device
        self._held_max, self._wake = held_max, wake
        self._held: dict[str, Row] = {}  # waiting or being decoded, by id
        self._queue: deque[Row] = deque()
        self._changed = threading.Condition()
        self._working: Row | None = None  # is being decoded
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self.waited_s = 0.0  # that the loop waited for room, in all

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, row: str) -> bool:
        return row in self._held

    def rows(self) -> list[Row]:
        """All that wait here or are being decoded, those too whose answer nobody wants any more."""
        with self._changed:
            return [*self._queue, *([self._working] if self._working else [])]

    def put(self, row: Row) -> None:
        """Hand over a row that has made its last step; wait while the queue is full."""
        with self._changed:
            begun_s = time.perf_counter()
            self._changed.wait_for(lambda: len(self._queue) < self._held_max)
            self.waited_s += time.perf_counter() - begun_s
            self._held[row.command.row] = row
            self._queue.append(row)
            if self._thread is None:
                self._thread = self._started(torch.get_num_threads())
            self._changed.notify_all()

    def drop(self, row: str) -> None:
        """Its answer isn't wanted any more; unknown rows are ignored."""
        with self._changed:
            self._held.pop(row, None)

    def settle(self) -> None:
        """Wait until every answer is sent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._queue and self._working is None)

    def close(self) -> None:
        """Answer what is being decoded, drop the rest, and end the thread."""
        with self._changed:
            self._queue.clear()
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _started(self, threads: int) -> threading.Thread:
        thread = threading.Thread(target=self._run, args=(threads,), name="decoding", daemon=True)
        thread.start()
        return thread

    def _run(self, threads: int) -> None:
        # Both are a thread's own. How sums are split, and so the bits, depends on the first.
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                while (row := self._next()) is not None:
                    if row.command.row in self._held:
                        self._finish(row)
                    del row  # or it would be held, and its model, until the next one comes
                    self._let_go()
        except BaseException:  # noqa: BLE001 - e.g. a fault of the GPU: what the process holds is lost anyway
            traceback.print_exc()
            os._exit(1)

    def _let_go(self) -> None:
        with self._changed:
            self._working = None
            self._changed.notify_all()
        self._wake()

    def _next(self) -> Row | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            if not self._queue:
                return None
            row = self._working = self._queue.popleft()
            self._changed.notify_all()
            return row

    def _finish(self, row: Row) -> None:
        message, blob = self._decoded(row)
        with self._changed:
            is_wanted = self._held.pop(row.command.row, None) is not None
        if is_wanted:  # no longer held when the answer comes: there is room for another
            self._send(message, blob)

    def _decoded(self, row: Row) -> Answer:
        """On a GPU in a stream of its own, beside the passes, once the latents are there."""
        if self._device.type != "cuda":
            return self._answer(row)
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.default_stream(self._device))
        with torch.cuda.stream(stream):
            answer = self._answer(row)
        stream.synchronize()
        return answer
