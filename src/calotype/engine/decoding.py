"""Turns finished rows into answers off the loop's thread: rows that still step don't wait for it.

Two stages, a thread each: one decodes row after row, the other has the checks look at all pictures
at once that wait for them, so that a slow check is asked of several together and a quick one holds
nobody up. Both queues are bounded. When the first is full the loop waits, and ``waited_s`` says how
long; a row counts as held until its answer is sent. It knows nothing of what an answer is.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence

import torch

from calotype.core import limits
from calotype.core.messages import Message
from calotype.engine.answers import Answer, Made
from calotype.engine.rows import Row


class Decoding:
    """Rows on their way out. One thread puts and drops; two others, its own, answer."""

    def __init__(
        self,
        decode: Callable[[Row], Made | Answer],
        look: Callable[[Sequence[Made]], list[Answer]],
        send: Callable[[Message, bytes], None],
        device: torch.device,
        *,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """``decode`` is called in one thread, ``look`` (with pictures of one model) in the other;
        ``send`` and ``wake`` (a row is through) in both. None of them may raise."""
        self._decode, self._look, self._send = decode, look, send
        self._device, self._wake = device, wake
        # One for all: what the allocator keeps for one stream no other may use.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._held: dict[str, Row] = {}  # waiting, being decoded or looked at, by id
        self._queue: deque[Row] = deque()
        self._made: deque[Made] = deque()
        self._changed = threading.Condition()
        self._working: Row | None = None  # is being decoded
        self._looked: list[Made] = []  # pictures that are being looked at
        self._is_closing = False
        self._is_decoded = False  # nothing comes any more: the second thread ends, too
        self._threads: list[threading.Thread] = []
        self.waited_s = 0.0  # that the loop waited for room, in all

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, row: str) -> bool:
        return row in self._held

    def rows(self) -> list[Row]:
        """All that are here, those too whose answer nobody wants any more."""
        with self._changed:
            made = [each.row for each in (*self._made, *self._looked)]
            return [*self._queue, *([self._working] if self._working else []), *made]

    def put(self, row: Row) -> None:
        """Hand over a row that has made its last step; wait while the queue is full."""
        with self._changed:
            begun_s = time.perf_counter()
            self._changed.wait_for(lambda: len(self._queue) < limits.DECODES_HELD_MAX)
            self.waited_s += time.perf_counter() - begun_s
            self._held[row.command.row] = row
            self._queue.append(row)
            if not self._threads:
                self._start(torch.get_num_threads())
            self._changed.notify_all()

    def drop(self, row: str) -> None:
        """Its answer isn't wanted any more; unknown rows are ignored."""
        with self._changed:
            self._held.pop(row, None)

    def settle(self) -> None:
        """Wait until every answer is sent."""
        with self._changed:
            self._changed.wait_for(
                lambda: not (self._queue or self._working or self._made or self._looked)
            )

    def close(self) -> None:
        """Answer what is being decoded or looked at, drop the rest, and end the threads."""
        with self._changed:
            self._queue.clear()
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self, threads: int) -> None:
        for name, work in (("decoding", self._decode_all), ("looking", self._look_at_all)):
            thread = threading.Thread(
                target=self._run, args=(threads, work), name=name, daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _run(self, threads: int, work: Callable[[], None]) -> None:
        # Both are a thread's own. How sums are split, and so the bits, depends on the first.
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                work()
        except BaseException:  # noqa: BLE001 - e.g. a fault of the GPU: what the process holds is lost anyway
            traceback.print_exc()
            os._exit(1)

    # Decoding.

    def _decode_all(self) -> None:
        while (row := self._next()) is not None:
            if row.command.row in self._held:
                self._hand_on(row, self._decoded(row))
            del row  # or it would be held, and its model, until the next one comes
            with self._changed:
                self._working = None
                self._changed.notify_all()
            self._wake()
        with self._changed:
            self._is_decoded = True
            self._changed.notify_all()

    def _next(self) -> Row | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            if not self._queue:
                return None
            row = self._working = self._queue.popleft()
            self._changed.notify_all()
            return row

    def _decoded(self, row: Row) -> Made | Answer:
        """On a GPU in a stream of its own, beside the passes, once the latents are there."""
        if (stream := self._stream) is None:
            return self._decode(row)
        stream.wait_stream(torch.cuda.default_stream(self._device))
        with torch.cuda.stream(stream):
            answer = self._decode(row)
        stream.synchronize()
        return answer

    def _hand_on(self, row: Row, found: Made | Answer) -> None:
        if not isinstance(found, Made):
            self._answer(row.command.row, found)
            return
        with self._changed:
            self._changed.wait_for(lambda: len(self._made) < limits.CHECKS_HELD_MAX)
            self._made.append(found)
            self._working = None
            self._changed.notify_all()

    # Looking.

    def _look_at_all(self) -> None:
        while self._next_made():
            self._look_at_some()
            with self._changed:
                self._looked = []
                self._changed.notify_all()
            self._wake()

    def _look_at_some(self) -> None:
        wanted = [made for made in self._looked if made.row.command.row in self._held]
        answers = self._look(wanted) if wanted else []
        for made, answer in zip(wanted, answers, strict=True):
            self._answer(made.row.command.row, answer)

    def _next_made(self) -> bool:
        """Take all pictures of one model that wait, the oldest first; False when none will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._made or self._is_decoded)
            found = self._looked
            while self._made and len(found) < limits.CHECKED_AT_ONCE_MAX:
                if found and self._made[0].row.command.model != found[0].row.command.model:
                    break
                found.append(self._made.popleft())
            self._changed.notify_all()
            return bool(found)

    def _answer(self, row: str, answer: Answer) -> None:
        with self._changed:
            is_wanted = self._held.pop(row, None) is not None
        if is_wanted:  # no longer held when the answer comes: there is room for another
            self._send(*answer)
