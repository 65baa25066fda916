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

from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.messages import (
    CancelRow,
    DropCopy,
    EngineReady,
    Heartbeat,
    LoadModel,
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
    RowStarted,
    StepDone,
    Stop,
    TrialSeen,
    UnloadModel,
)
from calotype.core.nouns import ModelInfo
from calotype.core.states import ENGINE_MOVES, EngineState, move
from calotype.pool.launch import Launch, Life, Pace
from calotype.pool.loading import Loading, Order, reserves_of
from calotype.pool.process import EngineProcess
from calotype.pool.reports import (
    EngineBack,
    EngineDown,
    EngineHealth,
    EngineLost,
    EngineSuspect,
    EngineWarm,
    LoadState,
    ModelNotLoaded,
    ModelWarm,
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
        self._loading = Loading(name, launch.models, launch.pinned)
        self._stopping = asyncio.Event()
        self._restarting = asyncio.Event()  # of the process that runs
        self._process: EngineProcess | None = None
        self._life = Life()
        self._answers = asyncio.Queue[ModelWarm]()  # to what was asked for and is there

    async def keep(self) -> None:
        """Keep the engine until ``stop`` is called; then end its process and return."""
        backoff_s = self._pace.backoff_s_min
        while not self._stopping.is_set():
            self._life = Life()
            self._loading.begin()
            self._answers = asyncio.Queue()
            self._restarting.clear()
            self._move(EngineState.STARTING)
            reason, exit_code = await self._live()
            is_healthy = self._ready_s() >= self._pace.healthy_s
            self._move(EngineState.DEAD, reason)
            if self._stopping.is_set():
                return
            now, is_told = asyncio.get_running_loop().time(), self._restarting.is_set()
            order = self._loading.died(reason, now, is_told=is_told)
            if order is not None and order.is_asked:
                name, said = order.model.name, f"the engine ended while it loaded it: {reason}"
                rests = self._loading.has_given_up(name)
                failed = ModelNotLoaded(name, said, rests=rests)
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
        """Send a command and its bytes; raise EngineDown while the engine starts or is dead."""
        if self._process is None or self._state in (EngineState.STARTING, EngineState.DEAD):
            raise EngineDown(f"{self._name} is {self._state}")
        self._life.sent(message, asyncio.get_running_loop().time())
        # An engine that doesn't read must not hold up a turn, which is where these are sent.
        is_urgent = isinstance(message, CancelRow | ParkRow)
        is_patient = self._state is not EngineState.SUSPECT and not is_urgent
        await self._process.write(message, blob, wait=is_patient)

    async def load(self, order: Order) -> None:
        """Have the engine forget some models and load another; ModelWarm or ModelNotLoaded comes.

        Raises EngineDown while it starts or is dead. If it dies meanwhile, EngineLost comes too.
        """
        process = self._process
        if process is None or self._state in (EngineState.STARTING, EngineState.DEAD):
            raise EngineDown(f"{self._name} is {self._state}")
        self._loading.ask(order)
        await self._load_next(process)

    async def drop_copy(self, name: str) -> None:
        """Have the engine keep no copy of a model in host memory, if it does."""
        if self._process is not None and name in self._loading.staged:
            self._loading.unstaged(name)
            await self._process.write(DropCopy(name), wait=False)

    def health(self) -> EngineHealth:
        """How the engine is now."""
        now = asyncio.get_running_loop().time()
        return EngineHealth(
            name=self._name,
            state=self._state,
            since=self._since,
            pid=self._process.pid if self._process else None,
            device=self._life.device,
            torch=self._life.torch,
            models=tuple(self._loading.warm),
            models_failed=self._loading.failing(now),
            rows=self._life.rows,
            steps=self._life.steps,
            reason=self._reason,
            budget_bytes=self._life.budget_bytes,
            reserves=reserves_of(self._life.budget_bytes),
            bytes=dict(self._life.bytes),
            pinned=self._launch.pinned,
            models_planned=self._loading.planned,
            models_resting=self._loading.resting(now),
            loading=self._load_state(),
            models_staged=tuple(self._loading.staged),
            staging_bytes=self._life.staging_bytes,
            staged_bytes=self._life.staged,
            memory=self._life.memory,
        )

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
                    self._move(EngineState.READY, self._said_of_models())
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
                self._loading.plan(message.budget_bytes)
                await self._load_next(process)
            case Heartbeat():
                pass  # ``heard`` has judged it
            case LoadProgress(done=done, total=total):
                self._loading.progressed(done, total)
            case ModelLoaded(name=name, room_bytes=room_bytes):
                order = self._loading.loaded(name, room_bytes)
                if self._state is not EngineState.STARTING:
                    cost, measured = self._life.costs.get(name), self._life.measured[name]
                    is_asked = order is not None and order.is_asked
                    await self._emit(ModelWarm(name, cost, measured, is_asked))
                await self._load_next(process)
            case ModelFailed(name=name, reason=reason, is_full=is_full):
                now, rows = asyncio.get_running_loop().time(), self._life.rows_owed
                order = self._loading.refused(name, reason, now, is_full=is_full, rows=rows)
                if order is not None and order.is_asked:
                    rests = self._loading.has_given_up(name)
                    await self._emit(ModelNotLoaded(name, reason, is_full, rests))
                await self._load_next(process)
            case ModelUnloaded(name, is_staged, why_not):
                is_told = self._loading.unloaded(name, is_staged=is_staged)
                if why_not or not (is_told or self._state is EngineState.STARTING):
                    await self._emit(message)  # else nobody counts on what is gone
            case MemoryLies() | MemoryShort() | TrialSeen():
                await self._emit(message)
            case RowStarted() | StepDone() | RowParked() | RowDone() | RowFailed():
                await self._emit(message, blob)
            case _:
                raise InternalError(f"the engine sent a command: {type(message).__name__}")

    async def _answer(self) -> None:
        """Hand on answers of our own: who asks is in a turn, and mustn't wait for the reader."""
        while True:
            await self._emit_report(Report(self._name, await self._answers.get()))

    async def _load_next(self, process: EngineProcess, *, again: bool = False) -> None:
        """Have the engine load the next model; it is warm once there is none."""
        now = asyncio.get_running_loop().time()
        if (order := self._loading.next(now, again=again)) is not None:
            for name in order.unstage:
                self._loading.unstaged(name)
                await process.write(DropCopy(name), wait=False)  # it may be in a turn
            for name in order.evict:
                self._loading.leaves(name)
                await process.write(UnloadModel(name, name in order.stage), wait=False)
            if self._loading.is_there(order):
                name = order.model.name
                warm = ModelWarm(name, self._life.costs.get(name), is_asked=True)
                self._answers.put_nowait(warm)
                await self._load_next(process, again=again)
                return
            command = load_command(order.model)
            self._life.sent(command, now)
            await process.write(command, wait=False)
        elif self._state is EngineState.STARTING and self._loading.is_over:
            self._move(EngineState.READY, self._said_of_models())
            self._life.ready_at = now
            await self._emit(self._warm())

    def _warm(self) -> EngineWarm:
        budget_bytes = self._life.budget_bytes
        return EngineWarm(
            models=tuple(self._loading.warm),
            rows_max=limits.ENGINE_ROWS_MAX,
            rows_spare=limits.ENGINE_ROWS_SPARE,
            costs=dict(self._life.costs),
            budget_bytes=budget_bytes,
            reserves=reserves_of(budget_bytes),
            staging_bytes=self._life.staging_bytes,
            lies=self._life.lies,
            pinned=self._launch.pinned,
            measured=tuple(self._life.measured.values()),
        )

    def _load_state(self) -> LoadState | None:
        current = self._loading.current
        if current is None:
            return None
        since_s = asyncio.get_running_loop().time() - current.begun_at
        return LoadState(current.order.model.name, since_s, current.done, current.total)

    def _said_of_models(self) -> str:
        return "; ".join(f"{name}: {why}" for name, why in self._loading.failed.items())

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


def load_command(model: ModelInfo) -> LoadModel:
    """What has an engine load a model as its card wants it."""
    return LoadModel(
        model.name,
        model.path,
        model.build,
        dtype=model.dtype,
        quantise=model.quantise,
        compile=model.compile,
        checks=model.checks,
        components=model.components,
        trials=model.trials,
        decoder=model.decoder,
    )
