"""Keeps one engine alive: starts its process, has it load models, listens, ends it, starts again.

A life: *starting* until every model is loaded or refused, then *ready*, *draining* when asked to
stop, *dead* when the process is gone. A life ends when the socket closes, a frame isn't one of
ours, or what is due didn't come in time: a sign of life, or with work to do a step; the process is
killed if it still runs. Then another begins, after a pause that doubles with every life too short
to count as healthy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.messages import (
    EngineReady,
    Heartbeat,
    LoadModel,
    Message,
    ModelFailed,
    ModelLoaded,
    RowDone,
    RowFailed,
    RowStarted,
    StepDone,
    Stop,
)
from calotype.core.nouns import ModelInfo
from calotype.core.states import ENGINE_MOVES, EngineState, move
from calotype.pool.launch import Launch, Life, Pace
from calotype.pool.process import EngineProcess
from calotype.pool.reports import EngineDown, EngineHealth, EngineLost, EngineWarm, Report

_LAST_WORDS_S = 1.0  # for a process whose socket closed to exit by itself, for its exit code


class Keeper:
    """One engine, through all its lives."""

    def __init__(
        self, name: str, launch: Launch, pace: Pace, emit: Callable[[Report], Awaitable[None]]
    ) -> None:
        self._name = name
        self._launch = launch
        self._pace = pace
        self._emit_report = emit
        self._state = EngineState.DEAD
        self._since = datetime.now(UTC)
        self._reason = ""
        self._stopping = asyncio.Event()
        self._process: EngineProcess | None = None
        self._life = Life()

    async def keep(self) -> None:
        """Keep the engine until ``stop`` is called; then end its process and return."""
        backoff_s = self._pace.backoff_s_min
        while not self._stopping.is_set():
            self._life = Life()
            self._move(EngineState.STARTING)
            reason, exit_code = await self._live()
            is_healthy = self._ready_s() >= self._pace.healthy_s
            self._move(EngineState.DEAD, reason)
            if self._stopping.is_set():
                return
            await self._emit_report(Report(self._name, EngineLost(reason, exit_code)))
            backoff_s = self._pace.backoff_s_min if is_healthy else backoff_s
            await self._pause(backoff_s)
            backoff_s = min(2 * backoff_s, self._pace.backoff_s_max)

    def stop(self) -> None:
        """Ask ``keep`` to end the engine and return."""
        self._stopping.set()

    async def send(self, message: Message, blob: bytes = b"") -> None:
        """Send a command and its bytes; raise EngineDown unless the engine is ready or draining."""
        if self._process is None or self._state not in (EngineState.READY, EngineState.DRAINING):
            raise EngineDown(f"{self._name} is {self._state}")
        self._life.sent(message, asyncio.get_running_loop().time())
        await self._process.write(message, blob)

    def health(self) -> EngineHealth:
        """How the engine is now."""
        return EngineHealth(
            name=self._name,
            state=self._state,
            since=self._since,
            pid=self._process.pid if self._process else None,
            device=self._life.device,
            torch=self._life.torch,
            models=tuple(self._life.models_warm),
            models_failed=dict(self._life.models_failed),
            rows=self._life.rows,
            steps=self._life.steps,
            reason=self._reason,
        )

    async def _live(self) -> tuple[str, int | None]:
        """One process from start to end; why it ended, and its exit code."""
        launch = self._launch
        try:
            process = await EngineProcess.start(launch.command, launch.env, launch.log)
        except OSError as error:
            return f"it can't be started: {error}", None
        self._process = process
        self._life.heard_at = self._life.worked_at = asyncio.get_running_loop().time()
        listening = asyncio.create_task(self._listen(process))
        watching = asyncio.create_task(self._watch())
        stopping = asyncio.create_task(self._stopping.wait())
        reason, wait_s = "it was stopped", 0.0
        try:
            tasks = (listening, watching, stopping)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if listening in done:
                reason, wait_s = listening.result(), _LAST_WORDS_S
            elif watching in done:
                reason = watching.result()
            else:
                await self._end_in_order(process)
        finally:
            for task in (listening, watching, stopping):
                task.cancel()
            self._process = None
            exit_code = await process.end(wait_s)
        return f"{reason} (exit code {exit_code})", exit_code

    async def _listen(self, process: EngineProcess) -> str:
        """Take in what the engine says until it can't be understood; why not."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                message, blob = await process.read()
                self._life.heard(message, loop.time())
                await self._absorb(process, message, blob)
        except InternalError as error:  # EngineDown, or a frame that isn't one of ours
            return error.detail

    async def _absorb(self, process: EngineProcess, message: Message, blob: bytes) -> None:
        match message:
            case EngineReady():
                self._life.device, self._life.torch = message.device, message.torch
                for model in self._launch.models:
                    await process.write(load_command(model))
                await self._announce_if_warm()
            case Heartbeat():
                pass  # ``heard`` has judged it
            case ModelLoaded():
                await self._announce_if_warm()  # ``heard`` has noted it
            case ModelFailed():
                self._life.models_failed[message.name] = message.reason
                await self._announce_if_warm()
            case RowStarted() | StepDone() | RowDone() | RowFailed():
                await self._emit(message, blob)
            case _:
                raise InternalError(f"the engine sent a command: {type(message).__name__}")

    async def _announce_if_warm(self) -> None:
        answered = len(self._life.models_warm) + len(self._life.models_failed)
        if self._state is EngineState.STARTING and answered >= len(self._launch.models):
            failed = "; ".join(f"{name}: {why}" for name, why in self._life.models_failed.items())
            self._move(EngineState.READY, failed)
            self._life.ready_at = asyncio.get_running_loop().time()
            models, costs = tuple(self._life.models_warm), dict(self._life.costs)
            rows = limits.ENGINE_ROWS_MAX, limits.ENGINE_ROWS_SPARE
            await self._emit(EngineWarm(models, *rows, costs))

    async def _emit(self, message: Message | EngineWarm, blob: bytes = b"") -> None:
        """Hand a report on. While the reader makes us wait, the engine's silence is our doing."""
        self._life.is_reader_slow = True
        try:
            await self._emit_report(Report(self._name, message, blob))
        finally:
            self._life.is_reader_slow = False
            self._life.heard_at = self._life.worked_at = asyncio.get_running_loop().time()

    async def _watch(self) -> str:
        """Return when what is due didn't come for too long; what is missing."""
        loop = asyncio.get_running_loop()
        was_late = False
        while True:
            await asyncio.sleep(self._pace.heartbeat_s)
            missing = self._life.overdue(loop.time(), self._pace)
            # Looked at twice: if our own loop stood still, its message is there to be read.
            if missing and was_late:
                return missing
            was_late = bool(missing)

    async def _end_in_order(self, process: EngineProcess) -> None:
        """Have the engine end after its step. If it doesn't, or isn't ready, ``end`` kills it."""
        if self._state is not EngineState.READY:
            return
        self._move(EngineState.DRAINING)
        with contextlib.suppress(TimeoutError, EngineDown):  # hangs, or is gone already
            async with asyncio.timeout(self._pace.stop_s_max):
                await process.write(Stop())
                await process.wait()

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past a stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _move(self, state: EngineState, reason: str = "") -> None:
        self._state = move(ENGINE_MOVES, self._state, state)
        self._since = datetime.now(UTC)
        if state is not EngineState.STARTING:  # it says until ready why it isn't
            self._reason = reason

    def _ready_s(self) -> float:
        if self._life.ready_at is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._life.ready_at


def load_command(model: ModelInfo) -> LoadModel:
    """What has an engine load a model as its card wants it."""
    return LoadModel(
        model.name,
        model.path,
        model.build,
        dtype=model.dtype,
        quantise=model.quantise,
        compile=model.compile,
    )
