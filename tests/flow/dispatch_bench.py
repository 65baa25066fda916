"""A dispatcher to try things on: the real line, job store and picture store, no process.

The engine and the finisher are stood in for, and do as they are told. Prompts speak to the engine:
``wait`` in one stops its rows after the first step, until ``finish_rows``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.core.hash_log import LogEntry
from calotype.core.messages import (
    CancelRow,
    Message,
    ParkRow,
    RowDone,
    RowParked,
    RowRefused,
    RowStarted,
    RunRow,
    StepDone,
)
from calotype.core.nouns import Event, Job, ModelInfo, Sampler, Spec, Tier, Verdict, VerdictKind
from calotype.core.states import EngineState, JobState
from calotype.delivery import inputs
from calotype.delivery.store import PictureStore
from calotype.flow.delivery import Delivery
from calotype.flow.dispatch import Dispatcher
from calotype.flow.finish import Brought, Finished, Finisher, Raw, TakenIn, Wanted
from calotype.flow.follow_up import FollowsUp, KeepsNothing
from calotype.flow.gate import Gate
from calotype.flow.handed import Handed
from calotype.flow.ingredients import Larder
from calotype.flow.pictures import InputPictures
from calotype.flow.tools import Tools
from calotype.jobs.store import JobStore
from calotype.policy.admit import AdmitRules, Let
from calotype.pool.adapters import AdapterRegistry
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry
from calotype.pool.reports import EngineDown, EngineHealth, EngineLost, EngineWarm, Report
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.pictures import PictureCheck
from tests.laid import opened_in

MODEL = ModelInfo(
    name="tiny", family="sdxl", path="/nowhere", build="0" * 16, title="Tiny", licence="Apache-2.0",
    parameter_bytes=1, width=8, height=8, size_px_min=8, size_px_max=256, steps=4,
    guidance=3.0, sampler=Sampler.DPMPP_2M,
)  # fmt: skip
SPEC = Spec("a tent", "", MODEL.name, 8, 8, 4, 3.0, Sampler.DPMPP_2M, 7, 1)
WAIT = replace(SPEC, prompt="a tent, wait")
DEVICE_S = 0.25  # of every row
ALLOWED = Verdict(VerdictKind.ALLOW, "stub", "1")
BLOCKED = Verdict(
    VerdictKind.BLOCK, "stub", "1", "known", 1.0, "The picture is one of the blocked."
)
DEADLINE_S = 60.0  # for what takes milliseconds on an idle machine


class StubPool(EnginePool):
    """Engines that answer at once. ``sent`` is what they were told, in order."""

    def __init__(self, engines: int = 1) -> None:
        super().__init__(engines=0, models=[])
        self.sent: list[tuple[str, Message]] = []
        self.blobs: list[int] = []  # bytes that came with each row
        self.models_failed: dict[str, str] = {}
        self.engines = [f"engine-{index}" for index in range(engines)]
        self.down: set[str] = set()
        self.waiting: dict[str, tuple[str, RunRow]] = {}  # rows told to wait
        self.tokens_cut = 0
        self.device_s = DEVICE_S
        self.drained: list[str] = []
        self.is_drainable = True
        self.budget, self.pinned = 0, tuple[str, ...]()  # as its health tells, not its EngineWarm
        self.holds_parked = False  # rows that were handed back wait again
        self.restarted: list[str] = []
        self.refusal: Callable[[RunRow], RowRefused | None] = lambda row: None  # before a step

    async def send(self, engine: str, message: Message, blob: bytes = b"") -> None:
        if engine in self.down:
            raise EngineDown(f"{engine} is down")
        self.sent.append((engine, message))
        self.blobs += [len(blob)] * isinstance(message, RunRow)
        if isinstance(message, RunRow):
            await self._run(engine, message, blob)
        elif isinstance(message, ParkRow) and message.row in self.waiting:
            _, row = self.waiting.pop(message.row)
            await self.say(RowParked(row.row, 1, row.steps, DEVICE_S / 4), engine, b"1")
        elif isinstance(message, CancelRow):
            self.waiting.pop(message.row, None)

    def health(self) -> list[EngineHealth]:
        now, loaded = datetime.now(UTC), () if MODEL.name in self.models_failed else (MODEL.name,)
        return [
            EngineHealth(
                *(name, EngineState.READY, now, 1, "cpu", "none", loaded, self.models_failed),
                budget_bytes=self.budget,
                pinned=self.pinned,
                pool=self.pool_of(name),
            )
            for name in self.engines
        ]

    async def warm(self, rows_max: int = 16, engine: str = "engine-0") -> None:
        models = () if MODEL.name in self.models_failed else (MODEL.name,)
        self.down.discard(engine)
        await self.say(EngineWarm(models, rows_max), engine)

    async def come(self, engine: str) -> None:
        """Another engine, ready for work."""
        self.engines.append(engine)
        await self.warm(engine=engine)

    async def lose(self, engine: str = "engine-0") -> None:
        self.down.add(engine)
        await self.say(EngineLost("it was killed", -9), engine)

    async def say(self, message: Any, engine: str = "engine-0", blob: bytes = b"") -> None:
        await self._emit(Report(engine, message, blob))

    async def waits(self, rows: int) -> None:
        """Return once so many rows wait; a job runs as soon as its first one does."""
        await eventually(lambda: len(self.waiting) >= rows)

    async def finish_rows(self) -> None:
        """Have every row that waits go on to its end."""
        waiting, self.waiting = self.waiting, {}
        for engine, row in waiting.values():
            await self._steps(engine, row, 2)

    def drain(self, engine: str, reason: str) -> bool:
        self.drained += [engine] * self.is_drainable
        return self.is_drainable

    def restart(self, engine: str) -> None:
        self.restarted.append(engine)

    def rows(self, kind: type[RunRow | CancelRow | ParkRow]) -> list[str]:
        return [message.row for _, message in self.sent if isinstance(message, kind)]

    async def _run(self, engine: str, row: RunRow, blob: bytes) -> None:
        if (refused := self.refusal(row)) is not None:
            return await self.say(refused, engine)
        await self.say(RowStarted(row.row, self.tokens_cut), engine)
        if row.parked_bytes and not self.holds_parked:
            return await self._steps(engine, row, int(blob[-row.parked_bytes :]) + 1)
        await self.say(StepDone(row.row, 1, row.steps), engine, b"preview")
        if "wait" in row.prompt:
            self.waiting[row.row] = (engine, row)
        else:
            await self._steps(engine, row, 2)
        return None

    async def _steps(self, engine: str, row: RunRow, first: int) -> None:
        for step in range(first, row.steps + 1):
            await self.say(StepDone(row.row, step, row.steps), engine)
        pixels = bytes(row.width * row.height * 3)
        await self.say(RowDone(row.row, row.width, row.height, {}, self.device_s), engine, pixels)


class StubFinisher(Finisher):
    """Says of each picture what ``answer`` does: a verdict, or raises."""

    def __init__(self) -> None:
        self.answer: Callable[[Raw], Verdict] = lambda raw: ALLOWED
        self.finished: list[str] = []  # ids of images, as they came
        self.input_verdict: Verdict | Exception = ALLOWED
        self.kept = b""  # what comes along of a picture that isn't allowed

    async def take_in(self, data: bytes) -> TakenIn:
        pixels = inputs.read(data)
        height, width, _ = pixels.shape
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        return TakenIn(self._judged(), data, width, height, digest)

    async def bring(self, wanted: Wanted) -> Brought:
        raw = bytes(wanted.width * wanted.height * wanted.channels)
        return Brought(self._judged(), raw, hashlib.sha256(wanted.file).hexdigest())

    def _judged(self) -> Verdict:
        if isinstance(self.input_verdict, Exception):
            raise self.input_verdict
        return self.input_verdict

    async def finish(self, raw: Raw) -> Finished:
        self.finished.append(raw.manifest.image)
        await asyncio.sleep(0)
        verdict = self.answer(raw)
        if verdict.kind is not VerdictKind.ALLOW:
            return Finished(verdict, {}, "0" * 64, kept=self.kept)
        image = raw.manifest.image
        entry = LogEntry(image, 1, "wmk_stub", {"png": "0" * 64}, 0, 64, 64, b"", datetime.now(UTC))
        return Finished(verdict, {"png": b"png", "webp": b"webp"}, "0" * 64, entry)


class StubRegistry(ModelRegistry):
    """Has one model, until it is taken away."""

    def __init__(self) -> None:
        super().__init__([], Path("/nowhere"))
        self.models = {MODEL.name: MODEL}

    def get(self, name: str) -> ModelInfo:
        if name not in self.models:
            raise InvalidInput(f"there is no model named {name!r}", field="model")
        return self.models[name]

    def list(self) -> Sequence[ModelInfo]:
        return [*self.models.values()]


class RecordingGate(Gate):
    """Remembers who was let in and how each ended."""

    def __init__(self, store: JobStore, rules: AdmitRules | None = None) -> None:
        super().__init__(store, rules or AdmitRules(), lambda: 1)
        self.let: dict[str, float] = {}  # predicted device-seconds, by job id
        self.resumed: dict[str, float] = {}
        self.ends: list[tuple[str, float]] = []  # job id, measured device-seconds

    async def ask(self, job_id: str, tenant: str, tier: Tier, cost_s: float) -> Let:
        let = await super().ask(job_id, tenant, tier, cost_s)
        self.let[job_id] = cost_s
        return let

    def resume(self, job: Job, cost_s: float) -> None:
        super().resume(job, cost_s)
        self.resumed[job.id] = cost_s

    def ended(self, job_id: str, device_s: float) -> None:
        super().ended(job_id, device_s)
        self.ends.append((job_id, device_s))


@dataclass
class Bench:
    """A dispatcher with all it works with."""

    folder: Path
    store: JobStore
    pictures: PictureStore
    pool: StubPool
    registry: StubRegistry = field(default_factory=StubRegistry)
    finisher: StubFinisher = field(default_factory=StubFinisher)
    rules: AdmitRules | None = None
    people: FollowsUp = field(default_factory=KeepsNothing)
    check: PictureCheck = field(default_factory=PictureCheck)

    def __post_init__(self) -> None:
        self.inputs = InputPictures(
            self.store,
            self.finisher,
            PictureStore.local(self.folder / "inputs"),
            Delivery(self.store, self.finisher, self.pictures),
        )
        self.adapters = AdapterRegistry([self.folder])
        larder = Larder(self.adapters, self.inputs)
        self.handed = Handed(self.folder / "handed", self.pictures)
        tools = Tools(
            self.store,
            self.finisher,
            self.pictures,
            larder,
            handed=self.handed,
            people=self.people,
            check=self.check,
        )
        self.gate = RecordingGate(self.store, self.rules)
        self.dispatcher = Dispatcher(tools, self.pool, self.registry, self.gate)

    async def queue(self, spec: Spec = SPEC, tenant: str = "ada", tier: Tier = Tier.FAST) -> Job:
        return await self.dispatcher.queue(tenant, tier, spec)

    async def state(self, job: Job, *states: JobState) -> Job:
        """The job once it is in one of these states."""
        found: Job = await eventually(lambda: self._in(job.id, states))
        return found

    async def ended(self, job: Job) -> Job:
        finals = [state for state in JobState if state.is_final]
        return await self.state(job, *finals)

    async def events(self, job: Job, kind: str) -> list[Event]:
        return [event for event in await self.store.events(job.id) if event.kind == kind]

    async def previews(self, job: Job) -> int:
        return sum("preview" in event.data for event in await self.events(job, "step"))

    def files(self) -> list[str]:
        """Every file in the pictures' folder, drafts too, as ``<id>.<form>``."""
        names = [path.name for path in self.pictures_folder.rglob("*") if path.is_file()]
        return sorted(f"{name.split('.')[0]}.{name.rpartition('.')[2]}" for name in names)

    @property
    def pictures_folder(self) -> Path:
        return self.folder / "pictures"

    async def _in(self, job_id: str, states: tuple[JobState, ...]) -> Job | None:
        job = await self.store.get(job_id)
        return job if job.state in states else None


async def eventually(look: Callable[[], Any]) -> Any:
    """What ``look`` finds, once it finds something; it may be async."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = look()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.005)


@asynccontextmanager
async def bench_in(
    folder: Path,
    engines: int = 1,
    rules: AdmitRules | None = None,
    people: Callable[[JobStore], FollowsUp] | None = None,
    check: PictureCheck | None = None,
) -> AsyncIterator[Bench]:
    """A bench whose dispatcher isn't started yet; another on the same folder is a restart."""
    store = await opened_in(folder)
    pictures = PictureStore.local(folder / "pictures")
    follows = KeepsNothing() if people is None else people(store)
    judging = check or PictureCheck()
    bench = Bench(
        *(folder, store, pictures, StubPool(engines)), rules=rules, people=follows, check=judging
    )
    try:
        yield bench
    finally:
        await bench.dispatcher.stop()
        await store.close()


@asynccontextmanager
async def running_bench(
    folder: Path,
    engines: int = 1,
    people: Callable[[JobStore], FollowsUp] | None = None,
    check: PictureCheck | None = None,
) -> AsyncIterator[Bench]:
    """A bench that dispatches, on warm engines."""
    async with bench_in(folder, engines, people=people, check=check) as bench:
        await bench.dispatcher.start()
        for engine in bench.pool.engines:
            await bench.pool.warm(engine=engine)
        yield bench


def unavailable(raw: Raw) -> Any:
    """An answer of the finisher: no verdict."""
    raise SafetyUnavailable("the classifier is away")


def virtual_s(bench: Bench, tenant: str) -> float:
    """Device-seconds that a tenant of the fast tier was charged."""
    standing = bench.dispatcher._line._line.standing()
    return float(standing["tiers"]["fast"]["tenants"][tenant][0]) / 1e6
