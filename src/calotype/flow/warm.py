"""Which models are where: carries out the loads that the line decides, and tells of them.

The line is told what models need before a job asks for one, and how each load went. Jobs that wait
for a model read in their log that it is being loaded, how long that should take, and why if it
can't be. What is where, and how often a job found its model warm, is for whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import structlog

from calotype.core import limits
from calotype.core.decisions import LoadModel
from calotype.core.errors import CalotypeError, InvalidInput, ModelBroken, OperatorError
from calotype.core.events import (
    CopyLost,
    JobCancelled,
    JobSettled,
    LoadFailed,
    MemorySeen,
    ModelGone,
    ModelRemoved,
    ModelsPinned,
    ModelWarmed,
)
from calotype.core.messages import MemoryLies, MemoryShort, ModelUnloaded
from calotype.core.nouns import AdapterInfo, Job, ModelInfo
from calotype.flow import hopeless
from calotype.flow.ingredients import Larder
from calotype.flow.known import NOTE, Known
from calotype.flow.line import LiveLine
from calotype.flow.where import Counts, where
from calotype.jobs.patience import patiently
from calotype.jobs.store import JobStore
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry
from calotype.pool.reports import EngineDown, EngineHealth, Measured, ModelNotLoaded, ModelWarm

log = structlog.get_logger("calotype.warm")


class Warmth:
    """Methods that end in a change of the line are called inside a turn, which the caller took."""

    def __init__(
        self,
        line: LiveLine,
        pool: EnginePool,
        registry: ModelRegistry,
        store: JobStore,
        larder: Larder,
    ) -> None:
        self._line, self._pool, self._registry, self._store = line, pool, registry, store
        self._larder = larder
        self._pins = registry.pinned()  # as the pool was made with
        self._known = Known()
        self._loading: dict[str, LoadModel] = {}  # by engine
        self.counts = Counts()

    async def restore(self) -> None:
        """Take up what was learnt before a restart, and tell the line of all models there are."""
        self._known = Known(await self._store.note(NOTE))
        await self.tell_news(self._registry.list())

    async def tell_news(self, models: Iterable[ModelInfo]) -> None:
        """Tell the line what it hasn't been told of these."""
        for known in self._known.news(models):
            await self._line.tell(known)

    @property
    def removed(self) -> list[str]:
        """Models that something is known of, and that are no longer there."""
        there = {model.name for model in self._registry.list()}
        return [name for name in self._known.names() if name not in there]

    async def forget_removed(self) -> None:
        """Tell the line of models that are gone, and drop their copies in host memory.

        One that a job still wants isn't gone yet.
        """
        wanted = {job.spec.model for job in await patiently(self._store.unfinished)}
        for name in self.removed:
            if name not in wanted:
                self._known.forget(name)
                self._store.keep(NOTE, self._known.kept)
                log.info("model_removed", model=name)
                await self._line.tell(ModelRemoved(name))
                await self._pool.drop_copies(name)

    @property
    def has_other_pins(self) -> bool:
        """Whether operators have pinned other models than are pinned on engines."""
        try:
            return self._registry.pinned() != self._pins
        except OperatorError:  # unreadable: who looks for changes says so
            return False

    async def pin(self) -> None:
        """Have engines load first, and keep, what operators have pinned by now."""
        self._pins = self._registry.pinned()
        log.info("models_pinned", models=self._pins)
        self._pool.pin(self._pins)
        await self.tell_news(map(self._registry.get, self._pins))
        await self._line.tell(ModelsPinned(self._pins))
        await self._give_up_roomless()

    def check(
        self, model: ModelInfo, adapters: Sequence[AdapterInfo] = (), *, pool: str = ""
    ) -> None:
        """Raise NoRoom, with the arithmetic, for a model that no engine of a pool could hold."""
        self._known.check(model, self._engines_of(pool), adapters)

    async def asked(self, model: ModelInfo) -> None:
        """A job comes that wants this model; the line is told of the job next."""
        if any(model.name in engine.models for engine in self._pool.health()):
            self.counts.warm_hits += 1
        else:
            self.counts.warm_misses += 1
        await self.tell_news([model])

    async def load(self, load: LoadModel) -> None:
        """Carry out what the line decided."""
        said = {"anew": "laid_anew", "room": "room_made"} if load.evict else {}
        log.info(
            said.get(load.why, "model_loads"),
            engine=load.engine,
            model=load.model,
            evict=load.evict,
            why=load.why,
            **({"stage": load.stage} if load.stage else {}),
        )
        is_there = load.why == "room"  # then nothing is loaded
        if not is_there:
            self._loading[load.engine] = load
        self._count_leaving(load)
        try:
            model = self._registry.get(load.model)
        except InvalidInput as error:  # it was taken away meanwhile
            self._line.turns.run(self._not_there(load, error), f"load-{load.model}")
            return
        try:
            await self._pool.load(
                load.engine, model, load.evict, stage=load.stage, unstage=load.unstage
            )
        except EngineDown:  # its loss is on its way as a report
            log.warning("engine_down", engine=load.engine, model=load.model)
        if not is_there:
            told = {"model": load.model, "engine": load.engine, "left_s": round(load.load_s, 1)}
            await self._tell_waiting(load.model, "loading", told)

    async def hear(
        self, engine: str, said: ModelWarm | ModelNotLoaded | ModelUnloaded | MemoryLies
    ) -> None:
        """What an engine says of its models, or of how they leave its memory."""
        async with self._line.turns.take():
            match said:
                case ModelWarm():
                    await self.loaded(engine, said)
                case ModelNotLoaded():
                    await self.not_loaded(engine, said)
                case ModelUnloaded(name=name, why_not=""):
                    log.warning("model_gone", engine=engine, model=name)
                    await self._line.tell(ModelGone(engine, name))
                case ModelUnloaded(name=name, why_not=why_not):
                    log.warning("not_staged", engine=engine, model=name, reason=why_not)
                    await self._line.tell(CopyLost(engine, name))
                case MemoryLies():
                    await self._line.tell(seen(engine, said))

    async def loaded(self, engine: str, warm: ModelWarm) -> None:
        """An engine has another model."""
        self._line.costs.begin({warm.model: warm.cost} if warm.cost else {})
        if warm.is_asked and self._loading.pop(engine, None) is not None:
            self.counts.loads += 1
            if warm.measured:
                self.counts.bytes_loaded += warm.measured.bytes
                self.counts.load_s += warm.measured.load_s
                self.counts.loads_staged += 2 * warm.measured.staged > warm.measured.bytes
        await self.learn([warm.measured] if warm.measured else [])
        await self._line.tell(ModelWarmed(engine, warm.model))
        await self._give_up_roomless()

    async def learn(self, measured: Iterable[Measured]) -> None:
        """Engines have loaded these."""
        for one in measured:
            try:
                model = self._registry.get(one.model)
            except InvalidInput:
                continue
            self._known.learn(model, one)
            self._store.keep(NOTE, self._known.kept)
            await self.tell_news([model])

    def _count_leaving(self, load: LoadModel) -> None:
        self.counts.staged += len(load.stage)
        if load.why == "anew":  # what leaves comes back
            self.counts.laid_anew += bool(load.evict)
        else:
            self.counts.evictions += len(load.evict)

    async def not_loaded(self, engine: str, failed: ModelNotLoaded) -> None:
        """What the line had asked for came to nothing."""
        self._loading.pop(engine, None)
        self.counts.loads_failed += 1
        log.warning("load_failed", engine=engine, model=failed.model, reason=failed.reason)
        told = {"model": failed.model, "engine": engine, "reason": failed.reason}
        await self._tell_waiting(failed.model, "load_failed", told)
        await self._line.tell(LoadFailed(engine, failed.model, failed.reason))
        pool = next((one.pool for one in self._pool.health() if one.name == engine), "")
        others = [one for one in self._engines_of(pool) if one.name != engine]
        if failed.rests and all(failed.model in one.models_resting for one in others):
            reason = f"{failed.reason} (not tried again for a while)"
            await self._fail_waiting(pool, {failed.model: reason})
        await self._give_up_roomless()

    def gone(self, engine: str) -> None:
        """The engine's process ended, and what it loaded with it, or was to load next."""
        if self._loading.pop(engine, None) is not None:
            self.counts.loads_failed += 1

    async def came_up(self) -> None:
        """An engine is warm: give up the jobs whose model no engine of theirs can load, or hold."""
        for pool in dict.fromkeys(one.pool for one in self._pool.health()):
            await self._fail_waiting(pool, hopeless.unloadable(self._engines_of(pool)))
        await self._give_up_roomless()

    async def _give_up_roomless(self) -> None:
        """Give up the jobs whose model, with their adapters, no engine of theirs can hold, by what
        is known of it, or of what is pinned, by now."""
        engines = self._pool.health()
        there = {(engine.pool, name) for engine in engines for name in engine.models}
        there |= {(one.pool, one.loading.model) for one in engines if one.loading}
        wanted: dict[tuple[str, ...], list[Job]] = {}
        for job in self._line.waiting.values():
            spec = job.spec
            named = [*(use.name for use in spec.loras), *(use.name for use in spec.controls)]
            if named or (spec.pool, spec.model) not in there:
                wanted.setdefault((spec.pool, spec.model, *named), []).append(job)
        for (pool, name, *_), jobs in wanted.items():
            try:
                with_these = self._larder.named(jobs[0].spec)
                self.check(self._registry.get(name), with_these, pool=pool)
            except InvalidInput:
                continue  # it was taken away: hopeless, but not for want of room
            except CalotypeError as error:
                await self._fail(jobs, error)

    async def _fail_waiting(self, pool: str, failed: dict[str, str]) -> None:
        """Give up a pool's jobs that wait for models that none of its engines could load."""
        for model, reason in failed.items():
            error = ModelBroken(f"no engine could load {model}: {reason}", field="model")
            waiting = [job for job in self._line.waiting.values() if job.spec.pool == pool]
            await self._fail([job for job in waiting if job.spec.model == model], error)

    def _engines_of(self, pool: str) -> list[EngineHealth]:
        return [one for one in self._pool.health() if one.pool == pool]

    def ran_short(self, engine: str, short: MemoryShort) -> None:
        """A pass found no room; its rows go on in smaller ones."""
        self.counts.memory_short += 1
        log.warning(
            "memory_short",
            engine=engine,
            model=short.model,
            forwards=short.forwards,
            buckets=short.buckets,
            reason=short.reason,
        )

    def where(self) -> dict[str, Any]:
        """What is on which engine, what is being loaded, and what has been so far."""
        return where(self._pool.health(), self._registry.list(), self.counts, self._expected_s)

    def _expected_s(self, model: str) -> float:
        try:
            return self._known.of(self._registry.get(model)).load_s
        except InvalidInput:
            return 0.0

    async def _not_there(self, load: LoadModel, error: InvalidInput) -> None:
        async with self._line.turns.take():
            await self.not_loaded(load.engine, ModelNotLoaded(load.model, error.detail))

    async def _tell_waiting(self, model: str, kind: str, data: dict[str, Any]) -> None:
        """Into the logs of the first jobs that wait for it; others are told by their forecast."""
        waiting = [job.id for job in self._line.waiting.values() if job.spec.model == model]
        for job_id in waiting[: limits.LOADING_TOLD_MAX]:
            await patiently(partial(self._store.tell_queued, job_id, kind, data))

    async def _fail(self, jobs: Iterable[Job], error: CalotypeError) -> None:
        line = self._line
        for job in jobs:
            if job.id not in line.waiting:
                continue  # what ended another brought this one's turn
            decisions = line.on(JobCancelled(job.id)) + line.on(JobSettled(job.id, 0.0))
            await line.fail(job.id, error)
            await line.carry_out(decisions)


def seen(engine: str, lies: MemoryLies) -> MemorySeen:
    """For the line, what an engine said of its memory."""
    return MemorySeen(engine, lies.free, lies.largest, lies.settled)
