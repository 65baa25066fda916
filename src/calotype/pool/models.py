"""One engine's models: what its process is told to load and forget, and what it said of them.

Which model is next is ``loading``'s to say; here it is told to the process, and the answers become
reports. What is known of the process itself is the keeper's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from calotype.core import limits
from calotype.core.messages import (
    DropCopy,
    LoadModel,
    LoadProgress,
    ModelFailed,
    ModelLoaded,
    ModelUnloaded,
    UnloadModel,
)
from calotype.core.nouns import ModelInfo
from calotype.core.states import EngineState
from calotype.pool.launch import Life
from calotype.pool.loading import Loading, Order, reserves_of
from calotype.pool.process import EngineProcess
from calotype.pool.reports import (
    EngineHealth,
    EngineWarm,
    LoadState,
    ModelNotLoaded,
    ModelWarm,
    Said,
)


class Models:
    """Of one engine, through all its lives."""

    def __init__(
        self,
        engine: str,
        models: Sequence[ModelInfo],
        pinned: tuple[str, ...],
        equip: Callable[[ModelInfo], ModelInfo] = lambda model: model,
    ) -> None:
        """``pinned`` are names of models that are loaded first, and stay; ``equip`` gives a model
        the checks that are in force when it is loaded."""
        self._engine, self._pinned, self._equip = engine, pinned, equip
        self._loading = Loading(engine, models, pinned)
        self.begin(Life())

    def pin(self, pinned: tuple[str, ...]) -> None:
        """These are pinned from now on; what this process has stays as it is."""
        self._pinned = pinned
        self._loading.pin(pinned)

    def begin(self, life: Life) -> None:
        """Another process begins, of which this much is known: it has nothing warm."""
        self._life = life
        self._loading.begin()
        self.answers = asyncio.Queue[ModelWarm]()  # to what was asked for and is there

    def plan(self) -> None:
        """The process has said how much memory it has: what it loads at its start."""
        self._loading.plan(self._life.budget_bytes)

    def ask(self, order: Order) -> None:
        """Load this when it has its turn."""
        self._loading.ask(order)

    async def load_next(self, process: EngineProcess, *, again: bool = False) -> bool:
        """Have the process load the next model, if it loads none; False if there is none.

        ``again``: also those that failed in this process.
        """
        # Nothing waits for the process: this may be in a turn.
        while (order := self._loading.next(_now(), again=again)) is not None:
            for name in order.unstage:
                self._loading.unstaged(name)
                await process.write(DropCopy(name), wait=False)
            for name in order.evict:
                self._loading.leaves(name)
                await process.write(UnloadModel(name, name in order.stage), wait=False)
            if not self._loading.is_there(order):
                command = load_command(self._equip(order.model))
                self._life.sent(command, _now())
                await process.write(command, wait=False)
                return True
            name = order.model.name
            self.answers.put_nowait(ModelWarm(name, self._life.costs.get(name), is_asked=True))
        return not self._loading.is_over

    async def drop_copy(self, name: str, process: EngineProcess) -> None:
        """Have the process keep no copy of a model in host memory, if it does."""
        if name in self._loading.staged:
            self._loading.unstaged(name)
            await process.write(DropCopy(name), wait=False)

    def heard(
        self,
        message: LoadProgress | ModelLoaded | ModelFailed | ModelUnloaded,
        *,
        is_starting: bool,
    ) -> Said | None:
        """The process said this of a model, which ``life`` has heard; what is to be reported."""
        match message:
            case LoadProgress(done=done, total=total):
                self._loading.progressed(done, total)
            case ModelLoaded(name=name, room_bytes=room_bytes):
                order = self._loading.loaded(name, room_bytes)
                if not is_starting:
                    cost, measured = self._life.costs.get(name), self._life.measured[name]
                    is_asked = order is not None and order.is_asked
                    return ModelWarm(name, cost, measured, is_asked)
            case ModelFailed(name=name, reason=reason, is_full=is_full):
                order = self._loading.refused(
                    name, reason, _now(), is_full=is_full, rows=self._life.rows_owed
                )
                return self._not_loaded(order, reason, is_full=is_full)
            case ModelUnloaded(name, is_staged, why_not):
                is_told = self._loading.unloaded(name, is_staged=is_staged)
                if why_not or not (is_told or is_starting):
                    return message  # else nobody counts on what is gone
        return None

    def died(self, reason: str, *, is_told: bool) -> ModelNotLoaded | None:
        """The process is gone, as it was told or for this reason; what is to be reported."""
        order = self._loading.died(reason, _now(), is_told=is_told)
        return self._not_loaded(order, f"the engine ended while it loaded it: {reason}")

    def trouble(self) -> str:
        """Which models couldn't be loaded, and why."""
        return "; ".join(f"{name}: {why}" for name, why in self._loading.failed.items())

    def warm(self) -> EngineWarm:
        """All that was planned was loaded or refused: the engine is of use."""
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
            pinned=self._pinned,
            measured=tuple(self._life.measured.values()),
        )

    def health(
        self, state: EngineState, since: datetime, pid: int | None, reason: str
    ) -> EngineHealth:
        """How the engine is now, in this state since then."""
        life, loading, now = self._life, self._loading, _now()
        return EngineHealth(
            name=self._engine,
            state=state,
            since=since,
            pid=pid,
            device=life.device,
            torch=life.torch,
            models=tuple(loading.warm),
            models_failed=loading.failing(now),
            rows=life.rows,
            steps=life.steps,
            reason=reason,
            budget_bytes=life.budget_bytes,
            reserves=reserves_of(life.budget_bytes),
            bytes=dict(life.bytes),
            pinned=self._pinned,
            models_planned=loading.planned,
            models_resting=loading.resting(now),
            loading=self._load_state(now),
            models_staged=tuple(loading.staged),
            staging_bytes=life.staging_bytes,
            staged_bytes=life.staged,
            memory=life.memory,
        )

    def _not_loaded(
        self, order: Order | None, reason: str, *, is_full: bool = False
    ) -> ModelNotLoaded | None:
        if order is None or not order.is_asked:
            return None
        name = order.model.name
        return ModelNotLoaded(name, reason, is_full, self._loading.has_given_up(name))

    def _load_state(self, now: float) -> LoadState | None:
        if (current := self._loading.current) is None:
            return None
        since_s = now - current.begun_at
        return LoadState(current.order.model.name, since_s, current.done, current.total)


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


def _now() -> float:
    return asyncio.get_running_loop().time()
