"""An engine of its own that draws with the embedded model; its pictures are judged as a job's are.

For commands that measure: no server is needed, nothing is kept or delivered. The engine runs the
checks that safety.toml configures, and the policy says what their scores mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.messages import (
    EngineReady,
    LoadModel,
    Message,
    ModelFailed,
    ModelLoaded,
    RowDone,
    RowFailed,
    RowRefused,
    RunRow,
    Stop,
)
from calotype.core.nouns import ModelInfo, Tier, VerdictKind
from calotype.core.picture_checks import CheckUse
from calotype.pool.pool import ENGINE_COMMAND
from calotype.pool.process import EngineProcess
from calotype.pool.registry import ModelRegistry, embedded_folder
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.pictures import PictureCheck, Scored
from calotype.safety.policies import Policy
from calotype.safety.setup import SafetySetup

STEPS = 8  # of each picture: as good as twenty with this model, by its card
_AT_ONCE = 8  # rows that the engine holds
_SILENT_S_MAX = 300.0  # between two messages of the engine


@dataclass(frozen=True)
class Ask:
    """A picture to be drawn."""

    prompt: str
    seed: int
    steps: int = STEPS


@dataclass(frozen=True)
class Judged:
    """What became of an ask."""

    is_allowed: bool  # it would be delivered; not what is blocked, for a person to see, or unjudged
    pixels: NDArray[np.uint8] | None  # height x width x 3 RGB; None: refused, or not drawn
    scores: Mapping[str, float]  # by "check:label"


class Easel:
    """The running engine; made by ``easel``."""

    def __init__(
        self, process: EngineProcess, model: ModelInfo, check: PictureCheck, policy: Policy | None
    ) -> None:
        self._process, self._model, self._check, self._policy = process, model, check, policy
        self._uses: tuple[CheckUse, ...] = ()
        self._refused_from: Mapping[str, float] = {}
        self._asked = 0

    async def begin(self, uses: tuple[CheckUse, ...]) -> None:
        """Have the model and these checks loaded; raises InternalError."""
        model, self._uses = self._model, uses
        self._refused_from = self._check.refused_from(uses, self._policy)
        await self._heard(EngineReady)
        load = LoadModel(model.name, model.path, model.build, checks=uses, components=model.parts)
        await self._process.write(load)
        await self._heard(ModelLoaded)

    async def judged(self, asks: Sequence[Ask]) -> list[Judged]:
        """What becomes of each, in their order. Raises InternalError if the engine hangs."""
        found: dict[int, Judged] = {}
        waiting = list(enumerate(asks))[::-1]
        held: dict[str, int] = {}
        while waiting or held:
            while waiting and len(held) < _AT_ONCE:
                at, ask = waiting.pop()
                row = self._row(ask)
                held[row.row] = at
                await self._process.write(row)
            message, raw = await self._heard(RowDone, RowFailed, RowRefused)
            at = held.pop(message.row)  # type: ignore[union-attr]
            found[at] = judgement(self._check, self._uses, message, raw, self._policy)
        return [found[at] for at in range(len(asks))]

    def _row(self, ask: Ask) -> RunRow:
        model, self._asked = self._model, self._asked + 1
        return RunRow(
            row=f"easel/1/{self._asked}",
            model=model.name,
            prompt=ask.prompt,
            negative_prompt="",
            width=model.width,
            height=model.height,
            steps=ask.steps,
            guidance=model.guidance,
            sampler=model.sampler,
            seed=ask.seed,
            tier=Tier.FAST,
            refused_from=dict(self._refused_from),
        )

    async def _heard(self, *kinds: type[Any]) -> tuple[Message, bytes]:
        while True:
            try:
                async with asyncio.timeout(_SILENT_S_MAX):
                    message, blob = await self._process.read()
            except TimeoutError as error:
                raise InternalError(f"the engine said nothing for {_SILENT_S_MAX:g} s") from error
            if isinstance(message, ModelFailed):
                raise InternalError(f"the embedded model can't be loaded: {message.reason}")
            if isinstance(message, kinds):
                return message, blob


@asynccontextmanager
async def easel(
    setup: SafetySetup, env: Mapping[str, str], policy: Policy | None = None
) -> AsyncIterator[Easel]:
    """An engine that is ready to draw, and ends with the block; by the default policy if none."""
    registry = ModelRegistry([embedded_folder()], embedded_folder() / "none")
    await asyncio.to_thread(registry.scan)
    model = registry.get(embedded_folder().name)
    with TemporaryDirectory(prefix="calotype-easel-") as folder:
        process = await EngineProcess.start(ENGINE_COMMAND, env, Path(folder) / "engine.log")
        try:
            mine = Easel(process, model, PictureCheck(setup=setup), policy)
            await mine.begin(setup.uses(model.domain, model.name))
            yield mine
        finally:
            await process.write(Stop())
            await process.end(limits.ENGINE_STOP_S_MAX)


def judgement(
    check: PictureCheck,
    uses: Sequence[CheckUse],
    message: Message,
    raw: bytes,
    policy: Policy | None = None,
) -> Judged:
    """What becomes of a row by its engine's last message: nothing of what has no picture."""
    if not isinstance(message, RowDone):
        return Judged(is_allowed=False, pixels=None, scores={})
    pixels = np.frombuffer(raw, np.uint8).reshape(message.height, message.width, 3)
    degraded = bool(message.degraded)
    scored = Scored(message.scores, tuple(uses), message.unchecked, is_degraded=degraded)
    try:
        is_allowed = check.judge(pixels, scored, policy).kind is VerdictKind.ALLOW
    except SafetyUnavailable:  # it would be held, and not delivered
        is_allowed = False
    return Judged(is_allowed, pixels, message.scores)
