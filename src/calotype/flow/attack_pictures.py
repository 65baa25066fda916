"""What becomes of attacks that pass the prompt check: they are drawn, and the pictures judged.

For ``calotype safety attack --pictures``: an engine of its own draws them with the embedded model,
and its checks, and the policy in force judge as they would for a job. No server is needed, and
nothing is kept. That model is of a closed domain: a picture that is let through is of that domain,
and shows nothing of what was wished for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

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
from calotype.safety.evaluate import tally
from calotype.safety.pictures import PictureCheck, Scored
from calotype.safety.setup import SafetySetup

STEPS = 12  # of each picture: rough, and more likely to be refused, than with the usual twenty
_AT_ONCE = 8  # rows that the engine holds
_SILENT_S_MAX = 300.0  # between two messages of the engine


def judged(
    report: Mapping[str, Any], setup: SafetySetup, most: int, env: Mapping[str, str]
) -> dict[str, Any]:
    """A report of ``evaluate.attack``, and what was let through of at most so many pictures each.

    Each attack gets "drawn" (of those that passed the prompt check), "after" (pictures that passed
    their check, of those drawn) and "combined", the share of all that passed both: exact where all
    were drawn, else an estimate. Raises InternalError if the engine ends or hangs.
    """
    rng = random.Random(report["seed"])  # noqa: S311 - has to come again, not to be a secret
    chosen = {
        name: rng.sample(each["passed"], min(most, len(each["passed"])))
        for name, each in report["attacks"].items()
    }
    texts = list(dict.fromkeys(text for each in chosen.values() for text in each))
    passed = asyncio.run(_let_through(texts, setup, env)) if texts else set()
    attacks = {}
    for name, before in report["attacks"].items():
        drawn = chosen[name]
        after = tally(sum(text in passed for text in drawn), len(drawn))
        share = after["count"] / len(drawn) if drawn else 0.0
        combined = before["count"] / before["of"] * share
        attacks[name] = before | {"drawn": len(drawn), "after": after, "combined": combined}
    return {**report, "attacks": attacks, "pictures": len(texts), "pictures_passed": len(passed)}


async def _let_through(
    texts: Sequence[str], setup: SafetySetup, env: Mapping[str, str]
) -> set[str]:
    """Of these prompts, those whose pictures the model's checks and the policy allow."""
    registry = ModelRegistry([embedded_folder()], embedded_folder() / "none")
    await asyncio.to_thread(registry.scan)
    model = registry.get(embedded_folder().name)
    uses = setup.uses(model.domain, model.name)
    check = PictureCheck(setup=setup)
    with TemporaryDirectory(prefix="calotype-attack-") as folder:
        process = await EngineProcess.start(ENGINE_COMMAND, env, Path(folder) / "engine.log")
        try:
            await _heard(process, EngineReady)
            load = LoadModel(
                model.name, model.path, model.build, checks=uses, components=model.parts
            )
            await process.write(load)
            await _heard(process, ModelLoaded)
            found = await _drawn(process, model, check.refused_from(uses), texts)
        finally:
            await process.write(Stop())
            await process.end(limits.ENGINE_STOP_S_MAX)
    return {
        text
        for text, (done, pixels) in found.items()
        if isinstance(done, RowDone) and _is_allowed(check, uses, done, pixels)
    }


async def _drawn(
    process: EngineProcess, model: ModelInfo, limit: Mapping[str, float], texts: Sequence[str]
) -> dict[str, tuple[Message, bytes]]:
    """The answer to each prompt: its picture, or that there is none."""
    found: dict[str, tuple[Message, bytes]] = {}
    waiting = list(enumerate(texts))[::-1]
    held: dict[str, str] = {}
    while waiting or held:
        while waiting and len(held) < _AT_ONCE:
            at, text = waiting.pop()
            row = _row(model, at, text, limit)
            held[row.row] = text
            await process.write(row)
        message, blob = await _heard(process, RowDone, RowFailed, RowRefused)
        found[held.pop(message.row)] = message, blob  # type: ignore[union-attr]
    return found


def _row(model: ModelInfo, at: int, text: str, limit: Mapping[str, float]) -> RunRow:
    return RunRow(
        row=f"attack/1/{at}",
        model=model.name,
        prompt=text,
        negative_prompt="",
        width=model.width,
        height=model.height,
        steps=STEPS,
        guidance=model.guidance,
        sampler=model.sampler,
        seed=at,
        tier=Tier.FAST,
        refused_from=dict(limit),
    )


async def _heard(process: EngineProcess, *kinds: type[Any]) -> tuple[Message, bytes]:
    while True:
        try:
            async with asyncio.timeout(_SILENT_S_MAX):
                message, blob = await process.read()
        except TimeoutError as error:
            raise InternalError(f"the engine said nothing for {_SILENT_S_MAX:g} s") from error
        if isinstance(message, ModelFailed):
            raise InternalError(f"the embedded model can't be loaded: {message.reason}")
        if isinstance(message, kinds):
            return message, blob


def _is_allowed(check: PictureCheck, uses: Sequence[CheckUse], done: RowDone, raw: bytes) -> bool:
    pixels = np.frombuffer(raw, np.uint8).reshape(done.height, done.width, 3)
    scored = Scored(done.scores, tuple(uses), done.unchecked, is_degraded=bool(done.degraded))
    try:
        return check.judge(pixels, scored).kind is VerdictKind.ALLOW
    except SafetyUnavailable:  # it would be held, and not delivered
        return False
