"""Processes that work for the server: one that dies or hangs is replaced, its work done again.

It knows nothing of what they work on: a function that can be pickled, and what it is given.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from calotype.core import limits
from calotype.core.errors import InternalError

Given = TypeVar("Given")
Done = TypeVar("Done")

TRIES = 3  # of one piece of work when the process that does it dies or hangs


class Workers:
    """A small pool of processes."""

    def __init__(
        self, processes: int, prepare: Callable[..., None], tools: tuple[Any, ...] = ()
    ) -> None:
        """Each process calls ``prepare(*tools)`` before anything else."""
        self._processes = processes
        self._beginning = (prepare, tools)
        self._at_once = asyncio.Semaphore(max(processes, limits.FINISHES_MAX))
        self._executor = self._started()

    async def do(self, work: Callable[[Given], Done], given: Given) -> Done:
        """What ``work`` makes of it, in one of the processes.

        Raises what ``work`` does, or InternalError when the processes keep dying on it, or take
        more than FINISH_S_MAX.
        """
        loop = asyncio.get_running_loop()
        async with self._at_once:
            for _ in range(TRIES):
                executor = self._executor
                try:
                    async with asyncio.timeout(limits.FINISH_S_MAX):
                        return await loop.run_in_executor(executor, work, given)
                except (BrokenProcessPool, TimeoutError):
                    self._replace(executor)
        raise InternalError("the processes that work on pictures died or hung on it, every time")

    def stop(self) -> None:
        """End the processes; what they worked on is lost."""
        _kill(self._executor)
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _replace(self, executor: Executor) -> None:
        """Start other processes; pictures that were in the old ones are done again."""
        if executor is not self._executor:  # another picture has replaced it already
            return
        self._executor = self._started()
        _kill(executor)
        executor.shutdown(wait=False)  # what waits in it raises BrokenProcessPool

    def _started(self) -> Executor:
        executor = ProcessPoolExecutor(
            self._processes,
            # Spawned: a fork would copy the sockets of the engines, and hold them open.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=self._beginning,
        )
        executor.submit(os.getpid)  # so that the first picture doesn't wait for imports
        return executor


def _kill(executor: Executor) -> None:
    """End its processes: one that hangs would not by itself, and there is no public way to."""
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        process.kill()


def _begin(prepare: Callable[..., None], tools: tuple[Any, ...]) -> None:
    """Set up a process: how it ends, then its tools."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare(*tools)


def _end_with_parent() -> None:
    """Don't outlive a server that was killed: an idle worker waits for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
