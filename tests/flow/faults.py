"""What goes wrong in tests of the flow, or waits: calls that raise, calls that are held up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.exc import OperationalError

LOCKED = OperationalError("UPDATE", {}, Exception("database is locked"))


def failing(act: Callable[..., Awaitable[Any]], times: int, error: Exception = LOCKED) -> Any:
    """``act``, but its first ``times`` calls raise."""
    left = [error] * times

    async def acting(*args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return await act(*args, **kwargs)

    return acting


class Halt:
    """Stops whoever calls, until it is opened."""

    def __init__(self, act: Callable[..., Awaitable[Any]]) -> None:
        self._act = act
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.reached.set()
        await self.opened.wait()
        return await self._act(*args, **kwargs)


async def let_through(halt: Halt, waiting: asyncio.Task[Any]) -> None:
    """Open the halt once all others have gone as far as they can; return when the task is over."""
    await asyncio.sleep(0.05)
    halt.opened.set()
    async with asyncio.timeout(60):
        await waiting
