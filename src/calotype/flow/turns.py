"""Turns: one at a time, whole, until one breaks.

In a turn the line is told of a fact and its decisions are carried out. If that fails half way (a
store that can't be written to, or a fault of ours), the line and the store have parted, and nobody
can say how far: so no other turn is taken, and ``fault`` says why. The next start rebuilds the line
from the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import structlog

from calotype.core.errors import OperatorError

T = TypeVar("T")

log = structlog.get_logger("calotype.dispatch")


class Turns:
    """The lock, the tasks that take turns, and the fault that ended them all."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._broken = asyncio.Event()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """One turn, for what is so already: if it fails, it was the last.

        Raises OperatorError once there are none any more.
        """
        async with self.take_asked():
            with self.part_of_one():
                yield

    @asynccontextmanager
    async def take_asked(self) -> AsyncIterator[None]:
        """One turn, for a request: it may be refused, until it is begun with ``part_of_one``."""
        async with self._lock:
            if self.fault is not None:
                raise OperatorError(f"no job is taken or changed any more: {self.fault}")
            yield

    @contextmanager
    def part_of_one(self) -> Iterator[None]:
        """What, once begun, has to be carried out: if it fails, that was the last turn."""
        try:
            yield
        except Exception as error:
            self._break(error)
            raise

    async def whole(self, turn: Coroutine[Any, Any, T]) -> T:
        """Take a turn to its end, though its caller (a request) may give up waiting for it."""
        return await asyncio.shield(self._kept(asyncio.create_task(turn)))

    def run(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start what takes turns of its own accord; what it raises is a fault."""
        task = self._kept(asyncio.create_task(work, name=name))
        task.add_done_callback(self._tell_fault)
        return task

    async def broken(self) -> str:
        """Wait for a fault, and return it."""
        await self._broken.wait()
        return str(self.fault)

    async def stop(self) -> None:
        """End every task, in mid-turn too: the store finishes what it began, and is the truth."""
        self.fault = self.fault or "the server is stopping"
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _kept(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tell_fault(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        log.error("dispatcher_broke", exc_info=error)
        if self.fault is None:
            self.fault = f"the dispatcher broke: {error!r}".splitlines()[0]
            self._broken.set()
