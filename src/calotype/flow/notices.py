"""Engines that are to be taken away: the line is told, and when the time has come they begin anew.

The notice comes from whoever knows of it: a person, or a script that asks a cloud. Where the
machine is gone by then, its engine can't be started, and is tried again until it can; where it
wasn't taken away after all, the engine is soon of use again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from calotype.core import limits
from calotype.core.errors import Conflict, InvalidInput, NotFound
from calotype.core.events import EngineNotice
from calotype.flow.line import LiveLine
from calotype.pool.pool import EnginePool

log = structlog.get_logger("calotype.dispatch")

SCOPE = "operator"  # what a key may do that gives them


class Notices:
    """The engines that had notice."""

    def __init__(self, line: LiveLine, pool: EnginePool) -> None:
        self._line, self._pool = line, pool
        self._until: dict[str, float] = {}  # by engine, by the line's clock
        self._coming: dict[str, asyncio.Task[None]] = {}  # engines that came up before that

    async def give(self, engine: str, seconds: float) -> None:
        """An engine is to be taken away so soon.

        Raises NotFound, InvalidInput, and Conflict for one that isn't ready.
        """
        states = {health.name: health.state for health in self._pool.health()}
        if engine not in states:
            there = [*states]
            raise NotFound(f"there is no engine {engine!r}", field="engine", limit=there)
        if not 0 < seconds <= limits.NOTICE_S_MAX:
            raise InvalidInput(
                f"a notice is of more than 0 and at most {limits.NOTICE_S_MAX:g} seconds",
                field="seconds",
                limit=limits.NOTICE_S_MAX,
            )
        if not self._pool.drain(engine, f"it is to be taken away in {seconds:g} s"):
            state = states[engine].value
            raise Conflict(
                f"{engine} is {state}: only one that is ready is given notice",
                field="engine",
                limit="ready",
            )
        log.warning("engine_notice", engine=engine, seconds=seconds)
        await self._line.turns.whole(self._tell(engine, time.monotonic() + seconds))

    def hold_back(self, engine: str, coming: Callable[[], Awaitable[None]]) -> bool:
        """Whether an engine that is up had notice for longer: it then comes when that is over.

        It ended before its time. Where its machine goes, this process goes with it.
        """
        if (left_s := self._until.get(engine, 0.0) - time.monotonic()) <= 0:
            return False

        async def come() -> None:
            await asyncio.sleep(left_s)
            del self._coming[engine]
            await coming()

        self._coming[engine] = self._line.turns.run(come(), f"coming-{engine}")
        return True

    def gone(self, engine: str) -> None:
        """Its process ended."""
        if (task := self._coming.pop(engine, None)) is not None:
            task.cancel()

    async def _tell(self, engine: str, until: float) -> None:
        async with self._line.turns.take():
            self._until[engine] = until
            self._line.turns.run(self._begin_anew(engine, until), f"notice-{engine}")
            await self._line.tell(EngineNotice(engine, until))

    async def _begin_anew(self, engine: str, until: float) -> None:
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        self._pool.restart(engine)
