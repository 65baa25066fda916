"""One client for every system of ``calotype bench engine``: sends requests when they are due.

The loop is open: a request arrives at its time, however many wait, and its latency counts from
then; a slow system can't slow down what it is asked. All speak the engine's messages on a socket,
so an engine process is driven here as the pool drives it.

A system that takes few rows at a time has the others wait here, turbo first, then in the order of
arrival; lighter tiers leave some of its rows to heavier ones, if it spares any. That is not the
platform's line, which also shares fairly between tiers and tenants.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calotype.cli.bench_workload import Request
from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.messages import (
    EngineReady,
    LoadModel,
    ModelFailed,
    ModelLoaded,
    RowDone,
    RowFailed,
    RowLora,
    RunRow,
    StepDone,
    Stop,
)
from calotype.core.nouns import ModelInfo, Tier
from calotype.pool.process import EngineProcess

_STOP_S_MAX = 20.0  # for a system to end by itself: some are several processes
_STALL_S_MAX = 300.0  # without a step of any row, with rows to run
_URGENCY = {tier: place for place, tier in enumerate(Tier)}
NO_LIMIT = 1_000_000  # rows


@dataclass(frozen=True)
class System:
    """What is compared: a program that speaks the engine's messages."""

    name: str  # of ``--systems``
    title: str  # in tables
    command: tuple[str, ...]  # without ``--fd N``
    rows_max: int = NO_LIMIT  # rows it is given at a time; others wait here, by tier
    rows_spare: int = 0  # of them, those that relax leaves to others, and fast half to turbo
    env: Mapping[str, str] | None = None  # added to our environment


@dataclass(frozen=True)
class Outcome:
    """What became of a request. Seconds from its arrival, as the client saw it."""

    request: Request
    first_step_s: float | None  # None: it never came
    latency_s: float | None  # None: it failed
    ended_s: float  # seconds from the beginning of the run
    picture: bytes  # RGB, uint8; empty if it failed
    failure: str = ""


class Client:
    """A system that runs, with one model loaded. Make it with ``start``, and ``end`` it."""

    def __init__(
        self, system: System, process: EngineProcess, model: ModelInfo, loras: Mapping[str, RowLora]
    ) -> None:
        self._system, self._process = system, process
        self._model, self._loras = model, loras
        self._runs = 0

    @classmethod
    async def start(
        cls, system: System, model: ModelInfo, loras: Mapping[str, RowLora], log: Path
    ) -> Client:
        """Start the system's process and load the model; raise InternalError if that fails."""
        process = await EngineProcess.start(system.command, system.env or {}, log)
        client = cls(system, process, model, loras)
        try:
            async with asyncio.timeout(limits.ENGINE_START_S_MAX):
                await client._expect(EngineReady)
            await process.write(LoadModel(name=model.name, path=model.path, build=model.build))
            async with asyncio.timeout(limits.ENGINE_LOAD_S_MAX):
                await client._expect(ModelLoaded)
        except BaseException as error:
            await client.end()
            if isinstance(error, InternalError | TimeoutError):
                raise InternalError(f"{system.title} didn't start; see {log}: {error}") from error
            raise
        return client

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def run(
        self,
        requests: Sequence[Request],
        on_end: Callable[[Outcome], None] = lambda _: None,
        *,
        until: Tier | None = None,
    ) -> list[Outcome]:
        """Send each request when it is due; return what became of them, in the order they ended.

        With ``until`` it is over when that tier's requests are: the rest is left, and so must the
        system be. Raises InternalError when the system dies or stalls.
        """
        self._runs += 1
        run = _Run(f"run{self._runs}", asyncio.get_running_loop().time())
        awaited = {one.number for one in requests if until in {None, one.tier}}
        outcomes: list[Outcome] = []
        arrivals = asyncio.create_task(self._arrive(run, requests))
        try:
            while awaited:
                if arrivals.done():
                    arrivals.result()  # raises what went wrong there
                if outcome := await self._hear(run):
                    outcomes.append(outcome)
                    awaited.discard(outcome.request.number)
                    on_end(outcome)
                    await self._send_waiting(run)
        finally:
            arrivals.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await arrivals
        return outcomes

    async def end(self) -> None:
        """Have the process end, by a Stop and then by force."""
        with contextlib.suppress(InternalError):
            await self._process.write(Stop())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _STOP_S_MAX)
        await self._process.end(limits.ENGINE_STOP_S_MAX)

    async def _arrive(self, run: _Run, requests: Sequence[Request]) -> None:
        for request in sorted(requests, key=lambda one: one.at_s):
            await asyncio.sleep(run.begun + request.at_s - asyncio.get_running_loop().time())
            urgency = _URGENCY[request.tier] if self._system.rows_max < NO_LIMIT else 0
            heapq.heappush(run.waiting, (urgency, request.at_s, request.number, request))
            await self._send_waiting(run)

    async def _send_waiting(self, run: _Run) -> None:
        while run.waiting and self._has_room(run, run.waiting[0][-1].tier):
            request = heapq.heappop(run.waiting)[-1]
            row = self._row(run, request)
            run.sent[row.row] = request
            await self._process.write(row)

    def _has_room(self, run: _Run, tier: Tier) -> bool:
        system, held = self._system, [_URGENCY[one.tier] for one in run.sent.values()]
        for urgency in range(_URGENCY[tier] + 1):  # of each such tier and the lighter ones
            most = system.rows_max - system.rows_spare * urgency // (len(_URGENCY) - 1)
            if sum(one >= urgency for one in held) >= most:
                return False
        return True

    def _row(self, run: _Run, request: Request) -> RunRow:
        return RunRow(
            row=f"{run.name}/1/{request.number}",
            model=self._model.name,
            prompt=request.prompt,
            negative_prompt="",
            width=self._model.width,
            height=self._model.height,
            steps=request.steps,
            guidance=request.guidance,
            sampler=request.sampler,
            seed=request.seed,
            tier=request.tier,
            loras=(self._loras[request.lora],) if request.lora else (),
        )

    async def _hear(self, run: _Run) -> Outcome | None:
        """Take one report; return an outcome if it ended a request of this run."""
        message, blob = await self._process.read()
        now = asyncio.get_running_loop().time()
        if isinstance(message, StepDone | RowDone | RowFailed):
            run.moved = now
        elif run.sent and now - run.moved > _STALL_S_MAX:
            raise InternalError(f"{self._system.title} made no step for {_STALL_S_MAX:.0f} s")
        elif not run.sent:
            run.moved = now
        if isinstance(message, StepDone) and message.row in run.sent:
            run.first_steps.setdefault(message.row, now)
        if not isinstance(message, RowDone | RowFailed) or message.row not in run.sent:
            return None
        request = run.sent.pop(message.row)
        arrived = run.begun + request.at_s
        first = run.first_steps.get(message.row)
        is_done = isinstance(message, RowDone)
        return Outcome(
            request=request,
            first_step_s=first - arrived if first is not None else None,
            latency_s=now - arrived if is_done else None,
            ended_s=now - run.begun,
            picture=blob if is_done else b"",
            failure=message.reason if isinstance(message, RowFailed) else "",
        )

    async def _expect(self, kind: type[EngineReady | ModelLoaded]) -> None:
        while True:
            message, _ = await self._process.read()
            if isinstance(message, kind):
                return
            if isinstance(message, ModelFailed):
                raise InternalError(message.reason)


class _Run:
    """What is known of the requests of one run."""

    def __init__(self, name: str, begun: float) -> None:
        self.name = name
        self.begun = begun  # on the loop's clock
        self.moved = begun  # when a step was last heard of, or nothing was to be done
        self.waiting: list[tuple[int, float, int, Request]] = []  # a heap: whose turn is next
        self.sent: dict[str, Request] = {}  # by row
        self.first_steps: dict[str, float] = {}  # by row, on the loop's clock
