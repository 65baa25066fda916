"""A running server and its models: which version a job gets, and what came or went meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.core.nouns import ModelInfo
from calotype.pool.catalogue import Catalogue
from calotype.pool.registry import ModelRegistry
from calotype.pool.shelf import Choice

log = structlog.get_logger("calotype.catalogue")


def version_for(
    registry: ModelRegistry,
    reference: str,
    job_id: str,
    check: Callable[[ModelInfo], None],
) -> Choice[ModelInfo]:
    """What a reference means to this job; a canary that ``check`` raises of is tried on nobody.

    Raises InvalidInput, or what ``check`` raises of the version that all others get.
    """
    choice = registry.choose(reference, job_id)
    if choice.is_canary:
        try:
            check(choice.info)
        except OperatorError as error:
            log.warning("canary_left_out", model=choice.info.name, reason=error.detail)
            choice = registry.choose(reference)
    check(choice.info)
    return choice


async def keep_up(catalogue: Catalogue, looked: Callable[[], Awaitable[None]]) -> None:
    """See what comes, goes and changes, for ever: the next job finds it.

    ``looked`` is called after each look. What can't be read leaves everything as it was, until it
    changes again.
    """
    while True:
        await looked()
        await asyncio.sleep(limits.REGISTRY_LOOK_S)
        try:
            has_changed = await asyncio.to_thread(catalogue.refresh)
        except OperatorError as error:
            log.warning("models_unread", reason=error.detail)
            continue
        if has_changed:
            models = [model.name for model in catalogue.models.list()]
            log.info("models_changed", models=models, broken=dict(catalogue.broken()))
