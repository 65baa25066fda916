"""Keeps one engine alive: starts its process, has it load models, listens, ends it, starts again.

A life: *starting* until every model is loaded or refused, then *ready*, *suspect* while signs of
life are missing, *draining* when it is to end or to begin anew, *dead* when the process is gone. A
life ends when the socket closes, a frame isn't one of ours, or what is due didn't come in time: a
sign of life, or with work to do a step; the process is killed by its id if it still runs. Then
another begins, after a pause that doubles with every life too short to count as healthy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from calotype.core.errors import InternalError
from calotype.core.messages import (
    CancelRow,
    CheckSettled,
    EngineReady,
    Heartbeat,
    LoadProgress,
    MemoryLies,
    MemoryShort,
    Message,
    ModelFailed,
    ModelLoaded,
    ModelUnloaded,
    ParkRow,
    RowDone,
    RowFailed,
    RowParked,
    RowRefused,
    RowStarted,
    StepDone,
    Stop,
    TrialSeen,
)
from calotype.core.states import ENGINE_MOVES, EngineState, move
from calotype.pool.launch import Launch, Life, Pace
from calotype.pool.loading import Order
from calotype.pool.models import Models
from calotype.pool.process import EngineProcess
from calotype.pool.reports import (
    EngineBack,
    EngineDown,
    EngineHealth,
    EngineLost,
    EngineSuspect,
    Report,
    Said,
)

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
        self._models = Models(name, launch.models, launch.pinned, launch.equip)
        self._stopping = asyncio.Event()
        self._restarting = asyncio.Event()  # of the process that runs
        self._process: EngineProcess | None = None
        self._life = Life()

    async def keep(self) -> None:
        """Keep the engine until ``stop`` is called; then end its process and return."""
        backoff_s = self._pace.backoff_s_min
        while not self._stopping.is_set():
            self._life = Life()
            self._models.begin(self._life)
            self._restarting.clear()
            self._move(EngineState.STARTING)
            reason, exit_code = await self._live()
            is_healthy = self._ready_s() >= self._pace.healthy_s
            self._move(EngineState.DEAD, reason)
            if self._stopping.is_set():
                return
            failed = self._models.died(reason, is_told=self._restarting.is_set())
            if failed is not None:
                await self._emit_report(Report(self._name, failed))
            await self._emit_report(Report(self._name, EngineLost(reason, exit_code)))
            backoff_s = self._pace.backoff_s_min if is_healthy else backoff_s
            await self._pause(backoff_s)
            backoff_s = min(2 * backoff_s, self._pace.backoff_s_max)

    def stop(self) -> None:
        """Ask ``keep`` to end the engine and return."""
        self._stopping.set()

    def drain(self, reason: str) -> bool:
        """Have the engine finish what it has before it is begun anew; False if it isn't ready.

        Whoever calls this sends it nothing more, and calls ``restart`` in the end.
        """
        if self._state is not EngineState.READY:
            return False
        self._move(EngineState.DRAINING, reason)
        return True

    def restart(self) -> None:
        """End a draining engine in order and begin another; any other is left alone."""
        if self._state is EngineState.DRAINING:
            self._restarting.set()

    async def send(self, message: Message, blob: bytes = b"") -> None:
        """Send a command and its bytes; raise EngineDown while the engine starts or is dead.

        Raises InternalError for what is too large to be sent.
        """
        if self._process is None or self._state in (EngineState.STARTING, EngineState.DEAD):
            raise EngineDown(f"{self._name} is {self._state}")
        self._life.sent(message, asyncio.get_running_loop().time())
        # An engine that doesn't read must not hold up a turn, which is where these are sent.
        is_urgent = isinstance(message, CancelRow | ParkRow)
        is_patient = self._state is not EngineState.SUSPECT and not is_urgent
        try:
            await self._process.write(message, blob, wait=is_patient)
        except InternalError:
            self._life.unsent(message)
            raise

    async def load(self, order: Order) -> None:
        """Have the engine forget some models and load another; ModelWarm or ModelNotLoaded comes.

        Raises EngineDown while it starts or is dead. If it dies meanwhile, EngineLost comes too.
        """
        process = self._process
        if process is None or self._state in (EngineState.STARTING, EngineState.DEAD):
            raise EngineDown(f"{self._name} is {self._state}")
        self._models.ask(order)
        await self._load_next(process)

    def pin(self, pinned: tuple[str, ...]) -> None:
        """These models are pinned there from now on."""
        self._models.pin(pinned)

    async def drop_copy(self, name: str) -> None:
        """Have the engine keep no copy of a model in host memory, if it does."""
        if self._process is not None:
            await self._models.drop_copy(name, self._process)

    def health(self) -> EngineHealth:
        """How the engine is now."""
        pid = self._process.pid if self._process else None
        return self._models.health(self._state, self._since, pid, self._reason)

    async def _live(self) -> tuple[str, int | None]:
        """One process from start to end; why it ended, and its exit code."""
        launch = self._launch
        try:
            process = await EngineProcess.start(launch.command, launch.env, launch.log)
        except OSError as error:
            return f"it can't be started: {error}", None
        self._process = process
        self._life.begin_waiting(asyncio.get_running_loop().time())
        listening = asyncio.create_task(self._listen(process))
        watching = asyncio.create_task(self._watch(process))
        stopping = asyncio.create_task(self._stopping.wait())
        restarting = asyncio.create_task(self._restarting.wait())
        reason, wait_s = "it was stopped", 0.0
        answering = asyncio.create_task(self._answer())
        tasks = (listening, watching, stopping, restarting, answering)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if listening in done:
                reason, wait_s = listening.result(), _LAST_WORDS_S
            elif watching in done:
                reason = watching.result()
            else:
                if stopping not in done:
                    reason = f"it is begun anew: {self._reason}"
                await self._end_in_order(process)
        finally:
            for task in tasks:
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
                if self._state is EngineState.SUSPECT:
                    self._move(EngineState.READY, self._models.trouble())
                    await self._emit(EngineBack())
                await self._absorb(process, message, blob)
        except InternalError as error:  # EngineDown, or a frame that isn't one of ours
            return error.detail

    async def _absorb(self, process: EngineProcess, message: Message, blob: bytes) -> None:
        match message:
            case EngineReady():
                self._life.device, self._life.torch = message.device, message.torch
                self._life.budget_bytes = message.budget_bytes
                self._life.staging_bytes = message.staging_bytes
                self._models.plan()
                await self._load_next(process)
            case Heartbeat():
                pass  # ``heard`` has judged it
            case LoadProgress() | ModelLoaded() | ModelFailed() | ModelUnloaded():
                is_starting = self._state is EngineState.STARTING
                if said := self._models.heard(message, is_starting=is_starting):
                    await self._emit(said)
                if isinstance(message, ModelLoaded | ModelFailed):
                    await self._load_next(process)
            case MemoryLies() | MemoryShort() | CheckSettled() | TrialSeen():
                await self._emit(message)
            case RowStarted() | StepDone() | RowParked() | RowDone() | RowFailed() | RowRefused():
                await self._emit(message, blob)
            case _:
                raise InternalError(f"the engine sent a command: {type(message).__name__}")

    async def _answer(self) -> None:
        """Hand on answers of our own: who asks is in a turn, and mustn't wait for the reader."""
        while True:
            await self._emit_report(Report(self._name, await self._models.answers.get()))

    async def _load_next(self, process: EngineProcess, *, again: bool = False) -> None:
        """Have the engine load the next model; it is warm once there is none."""
        is_loading = await self._models.load_next(process, again=again)
        if self._state is EngineState.STARTING and not is_loading:
            self._move(EngineState.READY, self._models.trouble())
            self._life.ready_at = asyncio.get_running_loop().time()
            await self._emit(self._models.warm())

    async def _emit(self, message: Said, blob: bytes = b"") -> None:
        """Hand a report on. While the reader makes us wait, the engine's silence is our doing."""
        self._life.is_reader_slow = True
        try:
            await self._emit_report(Report(self._name, message, blob))
        finally:
            self._life.is_reader_slow = False
            self._life.begin_waiting(asyncio.get_running_loop().time())

    async def _watch(self, process: EngineProcess) -> str:
        """Return when what is due didn't come for too long; what is missing."""
        loop = asyncio.get_running_loop()
        was_late = was_silent = False
        while True:
            await asyncio.sleep(self._pace.look_s)
            missing = self._life.overdue(loop.time(), self._pace)
            is_silent = self._life.is_silent(loop.time(), self._pace)
            # Looked at twice: if our own loop stood still, its message is there to be read.
            if missing and was_late:
                return missing
            if self._state is EngineState.READY:
                if is_silent and was_silent:
                    await self._suspect()
                elif not self._life.is_busy:
                    await self._load_next(process, again=True)
            was_late, was_silent = bool(missing), is_silent

    async def _suspect(self) -> None:
        reason = f"it gave no sign of life for {self._pace.suspect_s:g} s"
        self._move(EngineState.SUSPECT, reason)
        await self._emit_report(Report(self._name, EngineSuspect(reason)))

    async def _end_in_order(self, process: EngineProcess) -> None:
        """Have the engine end after its step. If it doesn't, or isn't ready, ``end`` kills it."""
        if self._state is EngineState.READY:
            self._move(EngineState.DRAINING)
        if self._state is not EngineState.DRAINING:
            return
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
