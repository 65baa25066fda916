"""What there is to make pictures with: models, adapters and engines, and how they are.

It starts and changes nothing, but for telling an engine that it is to be taken away.
"""

from __future__ import annotations

from typing import Any

from calotype.core.errors import ModelBroken, NotFound
from calotype.core.nouns import AdapterInfo, AdapterKind, ModelInfo
from calotype.core.states import EngineState
from calotype.flow.check_versions import CheckVersions
from calotype.flow.dispatch import Dispatcher
from calotype.flow.hopeless import unloadable
from calotype.flow.safeguards import Safeguards
from calotype.jobs.store import JobStore
from calotype.pool.adapters import AdapterRegistry
from calotype.pool.pool import EnginePool
from calotype.pool.registry import ModelRegistry, embedded_folder


class Installation:
    """The models, adapters and engines of a platform, to be asked about."""

    def __init__(
        self,
        models: ModelRegistry,
        adapters: AdapterRegistry,
        safeguards: Safeguards,
        *,
        store: JobStore,
        pool: EnginePool,
        dispatcher: Dispatcher,
        versions: CheckVersions,
    ) -> None:
        self._registry, self._adapters, self._safeguards = models, adapters, safeguards
        self._store, self._pool, self._dispatcher = store, pool, dispatcher
        self._versions = versions

    @property
    def default_model(self) -> str:
        """The model of a job that names none: the embedded one if it is there."""
        models = self.models()
        if not models:
            raise NotFound("there is no model to make pictures with", field="model")
        embedded = embedded_folder().name
        names = [model.name for model in models]
        return embedded if embedded in names else names[0]

    def models(self) -> list[ModelInfo]:
        """Every usable model."""
        every = self._registry.offered()
        return [model for model in every if not self._safeguards.why_not_served(model)]

    def aliases(self, model: str) -> dict[str, str]:
        """Of a model of ``models``: the words that stand for its versions."""
        return {word: it.version for word, it in self._registry.shelf.aliases(model).items()}

    def adapters(self, kind: AdapterKind) -> list[AdapterInfo]:
        """Every usable LoRA, or ControlNet."""
        return list(self._adapters.list(kind))

    def check_usable(self, model: ModelInfo, pool: str = "") -> None:
        """Refuse what nobody could judge, and what would wait for ever: NoRoom, ModelBroken.

        ``pool`` is whose engines it would run on. One that isn't up yet may still load it.
        """
        self._safeguards.check_served(model)
        theirs = [one for one in self._pool.health() if one.pool == pool]
        ready = [one for one in theirs if one.state is EngineState.READY]
        if reason := unloadable(ready).get(model.name):
            raise ModelBroken(f"no engine could load {model.name}: {reason}", field="model")
        self._dispatcher.warmth.check(model, pool=pool)

    def readiness(self) -> dict[str, Any]:
        """Whether pictures can be made now, and if not, why."""
        engines = [
            {
                "name": health.name,
                "state": health.state.value,
                "device": health.device,
                "models": list(health.models),
                "models_failed": dict(health.models_failed),
                "rows": health.rows,
                "reason": health.reason,
                "pool": health.pool,
            }
            for health in self._pool.health()
        ]
        fault, checks_failing = self._dispatcher.fault, self._dispatcher.checks_failing
        is_warm = any(
            engine["state"] == EngineState.READY and engine["models"] for engine in engines
        )
        return {
            "ready": is_warm and fault is None and not checks_failing and not self._store.is_away,
            "fault": fault,
            "database_away": self._store.is_away,
            "checks_failing": checks_failing,
            "checks": self._versions.told(),
            "engines": engines,
            "models": [model.name for model in self.models()],
            "models_broken": self._registry.broken(),
            "models_not_served": {
                model.name: reason
                for model in self._registry.list()
                if (reason := self._safeguards.why_not_served(model))
            },
            "adapters_broken": dict(self._adapters.broken()),
        }

    async def give_notice(self, engine: str, seconds: float) -> None:
        """An engine is to be taken away so soon; raises NotFound, InvalidInput, Conflict."""
        await self._dispatcher.give_notice(engine, seconds)

    def where(self) -> dict[str, Any]:
        """Which models are on which engine, what is being loaded, and what has been so far."""
        return self._dispatcher.warmth.where()

    def depths(self) -> dict[str, dict[str, int]]:
        """How many jobs wait, and run, in each tier."""
        return self._dispatcher.depths()


def devices_ready(pool: EnginePool) -> int:
    """How many engines work."""
    return sum(one.state is EngineState.READY for one in pool.health())
