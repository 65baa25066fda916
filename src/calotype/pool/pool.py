"""The pool: one engine process per device, their reports as one stream, commands to each by name.

Keeping an engine alive is ``keeper``'s; here is what they share. It knows nothing of jobs: rows are
names it passes on.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from calotype.core import limits
from calotype.core.messages import ENGINES_VARIABLE, HEARTBEAT_VARIABLE, Message
from calotype.core.nouns import ModelInfo
from calotype.pool.keeper import Keeper
from calotype.pool.launch import Launch, Pace
from calotype.pool.loading import Order
from calotype.pool.reports import EngineDown, EngineHealth, Report

ENGINE_COMMAND = (sys.executable, "-m", "calotype.engine")
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"  # an engine sees one GPU, and takes the first it sees


class EnginePool:
    """Engines named ``engine-0``, ``engine-1``, ...; make it inside a running event loop."""

    def __init__(
        self,
        *,
        engines: int,
        models: Sequence[ModelInfo],
        pinned: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        log_folder: Path | None = None,
        pace: Pace | None = None,
        apart: Mapping[str, str] | None = None,
        equip: Callable[[ModelInfo], ModelInfo] = lambda model: model,
    ) -> None:
        """Nothing is started yet.

        Every engine loads those of ``models`` that its memory has room for, the ``pinned`` first,
        and others when it is told to. ``env`` is added to our environment; of the GPUs that
        CUDA_VISIBLE_DEVICES names in it, or of all, each engine sees one. ``command`` is run with
        ``--fd N`` behind it. What an engine prints goes to ``log_folder/<engine>.log``, or where
        our own output goes. ``apart`` says which engines are of a pool, by name. ``equip`` gives a
        model the checks that are in force when it is loaded.
        """
        pace, self._apart = pace or Pace(), dict(apart or {})
        env = {
            HEARTBEAT_VARIABLE: str(pace.heartbeat_s),
            ENGINES_VARIABLE: str(engines),
            **(env or {}),
        }
        named = env.get(DEVICES_VARIABLE, os.environ.get(DEVICES_VARIABLE))
        devices = [str(at) for at in range(engines)] if named is None else named.split(",")
        held_max = max(limits.ENGINE_REPORTS_HELD_MAX, engines)
        self._reports: asyncio.Queue[Report | None] = asyncio.Queue(held_max)
        self._is_stopping = False
        self._keepers: dict[str, Keeper] = {}
        for index in range(engines):
            name = f"engine-{index}"
            launch = Launch(
                command=tuple(command or ENGINE_COMMAND),
                env=env | {DEVICES_VARIABLE: devices[index % len(devices)]},
                log=log_folder / f"{name}.log" if log_folder else None,
                models=tuple(models),
                pinned=tuple(pinned),
                equip=equip,
            )
            self._keepers[name] = Keeper(name, launch, pace, self._emit)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to start the engines; EngineWarm reports say when each is of use."""
        assert not self._tasks, "started twice"
        self._tasks = [asyncio.create_task(one.keep()) for one in self._keepers.values()]

    async def stop(self) -> None:
        """End every engine, by a Stop and then by force; no process is left. ``reports`` ends.

        Reports not yet taken are dropped. May be called twice.
        """
        self._is_stopping = True
        for keeper in self._keepers.values():
            keeper.stop()
        self._drop_reports()  # or an engine couldn't hear the Stop for waiting to be heard
        try:
            await asyncio.gather(*self._tasks)
        finally:
            self._drop_reports()
            self._reports.put_nowait(None)

    async def send(self, engine: str, message: Message, blob: bytes = b"") -> None:
        """Send a command to an engine, with its raw bytes.

        Raises EngineDown if it isn't warm or dies meanwhile; its EngineLost report comes (or came)
        as well. Waits while the engine is slow to take messages.
        """
        keeper = self._keepers.get(engine)
        if keeper is None:
            raise EngineDown(f"there is no engine {engine!r}")
        await keeper.send(message, blob)

    async def load(
        self,
        engine: str,
        model: ModelInfo,
        evict: Sequence[str] = (),
        *,
        stage: Sequence[str] = (),
        unstage: Sequence[str] = (),
    ) -> None:
        """Have an engine forget some models and load another, while it goes on with its rows.

        Of those to ``stage`` it keeps a copy in host memory, and no longer one of ``unstage``. Its
        ModelWarm or ModelNotLoaded comes. Raises EngineDown if it isn't warm.
        """
        keeper = self._keepers.get(engine)
        if keeper is None:
            raise EngineDown(f"there is no engine {engine!r}")
        order = Order(model, tuple(evict), tuple(stage), tuple(unstage), is_asked=True)
        await keeper.load(order)

    def pin(self, models: Sequence[str]) -> None:
        """Have every engine load these first when it begins anew; no others are pinned."""
        for keeper in self._keepers.values():
            keeper.pin(tuple(models))

    async def drop_copies(self, model: str) -> None:
        """Have no engine keep a copy of a model in host memory."""
        for keeper in self._keepers.values():
            await keeper.drop_copy(model)

    def drain(self, engine: str, reason: str) -> bool:
        """Have an engine finish what it has, for ``restart``; False if it isn't ready to."""
        return self._keepers[engine].drain(reason)

    def restart(self, engine: str) -> None:
        """Begin a drained engine anew; its EngineLost and EngineWarm come."""
        self._keepers[engine].restart()

    async def reports(self) -> AsyncIterator[Report]:
        """Everything the engines say, until ``stop``. For one reader.

        ENGINE_REPORTS_HELD_MAX reports are kept for it; past that the sockets aren't read, and the
        engines wait.
        """
        while (report := await self._reports.get()) is not None:
            yield report

    def health(self) -> list[EngineHealth]:
        """How each engine is, for readiness and doctor."""
        every = [keeper.health() for keeper in self._keepers.values()]
        return [replace(one, pool=self.pool_of(one.name)) for one in every]

    @property
    def pools(self) -> set[str]:
        """Those that have engines, and "": jobs of another would wait for ever."""
        return {"", *self._apart.values()}

    def pool_of(self, engine: str) -> str:
        """Whose jobs alone an engine runs; "" if they are those of no pool."""
        return self._apart.get(engine, "")

    async def _emit(self, report: Report) -> None:
        if not self._is_stopping:
            await self._reports.put(report)

    def _drop_reports(self) -> None:
        while not self._reports.empty():
            self._reports.get_nowait()
