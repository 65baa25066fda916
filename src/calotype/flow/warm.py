"""Which models are where: carries out the loads that the line decides, and tells of them.

The line is told what models need before a job asks for one, and how each load went. Jobs that wait
for a model read in their log that it is being loaded, how long that should take, and why if it
can't be. What is where, and how often a job found its model warm, is for whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from calotype.core import limits
from calotype.core.decisions import LoadModel
from calotype.core.errors import CalotypeError, InvalidInput, ModelBroken
from calotype.core.events import JobCancelled, LoadFailed, ModelWarmed
from calotype.core.messages import MemoryShort
from calotype.core.nouns import Job, ModelInfo
from calotype.flow import hopeless
from calotype.flow.known import NOTE, Known
from calotype.flow.line import LiveLine
from calotype.jobs.patience import patiently
from calotype.jobs.store import JobStore
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry
from calotype.pool.reports import EngineDown, EngineHealth, Measured, ModelNotLoaded, ModelWarm

log = structlog.get_logger("calotype.warm")


@dataclass
class Counts:
    """Since the server's start."""

    warm_hits: int = 0  # jobs that came while an engine had their model
    warm_misses: int = 0  # ... while none had it
    loads: int = 0  # that the line decided and that came about
    loads_failed: int = 0
    evictions: int = 0  # models that made room
    bytes_loaded: int = 0  # weights of those loads
    load_s: float = 0.0  # those loads took, in all
    memory_short: int = 0  # passes that found no room, and were made smaller


class Warmth:
    """Methods that end in a change of the line are called inside a turn, which the caller took."""

    def __init__(
        self, line: LiveLine, pool: EnginePool, registry: ModelRegistry, store: JobStore
    ) -> None:
        self._line, self._pool, self._registry, self._store = line, pool, registry, store
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

    def check(self, model: ModelInfo) -> None:
        """Raise NoRoom, with the arithmetic, for a model that no engine could hold."""
        self._known.check(model, self._pool.health())

    async def asked(self, model: ModelInfo) -> None:
        """A job comes that wants this model; the line is told of the job next."""
        if any(model.name in engine.models for engine in self._pool.health()):
            self.counts.warm_hits += 1
        else:
            self.counts.warm_misses += 1
        await self.tell_news([model])

    async def load(self, load: LoadModel) -> None:
        """Carry out what the line decided."""
        log.info(
            "model_loads", engine=load.engine, model=load.model, evict=load.evict, why=load.why
        )
        self._loading[load.engine] = load
        self.counts.evictions += len(load.evict)
        try:
            model = self._registry.get(load.model)
        except InvalidInput as error:  # it was taken away meanwhile
            self._line.turns.run(self._not_there(load, error), f"load-{load.model}")
            return
        try:
            await self._pool.load(load.engine, model, load.evict)
        except EngineDown:  # its loss is on its way as a report
            log.warning("engine_down", engine=load.engine, model=load.model)
        told = {"model": load.model, "engine": load.engine, "left_s": round(load.load_s, 1)}
        await self._tell_waiting(load.model, "loading", told)

    async def loaded(self, engine: str, warm: ModelWarm) -> None:
        """An engine has another model."""
        self._line.costs.begin({warm.model: warm.cost} if warm.cost else {})
        if warm.is_asked and self._loading.pop(engine, None) is not None:
            self.counts.loads += 1
            if warm.measured:
                self.counts.bytes_loaded += warm.measured.bytes
                self.counts.load_s += warm.measured.load_s
        await self.learn([warm.measured] if warm.measured else [])
        await self._line.tell(ModelWarmed(engine, warm.model))

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

    async def not_loaded(self, engine: str, failed: ModelNotLoaded) -> None:
        """What the line had asked for came to nothing."""
        self._loading.pop(engine, None)
        self.counts.loads_failed += 1
        log.warning("load_failed", engine=engine, model=failed.model, reason=failed.reason)
        told = {"model": failed.model, "engine": engine, "reason": failed.reason}
        await self._tell_waiting(failed.model, "load_failed", told)
        await self._line.tell(LoadFailed(engine, failed.model, failed.reason))
        others = [one for one in self._pool.health() if one.name != engine]
        if failed.rests and all(failed.model in one.models_resting for one in others):
            reason = f"{failed.reason} (not tried again for a while)"
            await self.fail_waiting({failed.model: reason})

    def gone(self, engine: str) -> None:
        """The engine's process ended, and what it loaded with it, or was to load next."""
        if self._loading.pop(engine, None) is not None:
            self.counts.loads_failed += 1

    async def came_up(self) -> None:
        """An engine is warm: give up the jobs whose model no engine can load, or hold."""
        engines = self._pool.health()
        await self.fail_waiting(hopeless.unloadable(engines))
        for name in dict.fromkeys(job.spec.model for job in self._line.waiting.values()):
            try:
                self._known.check(self._registry.get(name), engines)
            except InvalidInput:
                continue  # it was taken away: hopeless, but not for want of room
            except CalotypeError as error:
                await self._fail([name], error)

    async def fail_waiting(self, failed: dict[str, str]) -> None:
        """Give up the jobs that wait for models that no engine could load, for these reasons."""
        for model, reason in failed.items():
            error = ModelBroken(f"no engine could load {model}: {reason}", field="model")
            await self._fail([model], error)

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
        engines = self._pool.health()
        counts = vars(self.counts)
        asked = self.counts.warm_hits + self.counts.warm_misses
        return {
            "engines": [self._engine(one) for one in engines],
            "models": {model.name: _places(model, engines) for model in self._registry.list()},
            "counts": {
                **counts,
                "load_s": round(self.counts.load_s, 3),
                "warm_hit_rate": round(self.counts.warm_hits / asked, 4) if asked else None,
            },
        }

    def _engine(self, health: EngineHealth) -> dict[str, Any]:
        loading = None
        if (state := health.loading) is not None:
            expected_s = self._expected_s(state.model)
            loading = {
                "model": state.model,
                "bytes_done": state.done,
                "bytes_total": state.total,
                "left_s": round(max(0.0, expected_s - state.since_s), 1),
            }
        return {
            "name": health.name,
            "state": health.state.value,
            "device": health.device,
            "models": list(health.models),
            "models_failed": dict(health.models_failed),
            "loading": loading,
            "budget_bytes": health.budget_bytes,
            "bytes": dict(health.bytes),
            "reserves": {line.name: line.bytes for line in health.reserves},
        }

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

    async def _fail(self, models: Iterable[str], error: CalotypeError) -> None:
        line = self._line
        doomed: list[Job] = [job for job in line.waiting.values() if job.spec.model in models]
        for job in doomed:
            decisions = line.on(JobCancelled(job.id))
            await line.fail(job.id, error)
            await line.carry_out(decisions)


def _places(model: ModelInfo, engines: Iterable[EngineHealth]) -> dict[str, Any]:
    """Where a model is: by engine "warm", "loading" or "failed"; nowhere it is on disk."""
    places = {}
    for engine in engines:
        if model.name in engine.models:
            places[engine.name] = "warm"
        elif engine.loading is not None and engine.loading.model == model.name:
            places[engine.name] = "loading"
        elif model.name in engine.models_failed:
            places[engine.name] = "failed"
    return {"build": model.build, "engines": places}
