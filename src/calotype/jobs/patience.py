"""Trying a write again: a database that is locked or full for a moment must not stop the line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from calotype.core import limits

T = TypeVar("T")

log = structlog.get_logger("calotype.jobs")


async def patiently(write: Callable[[], Awaitable[T]]) -> T:
    """Do a write, up to STORE_TRIES_MAX times; then raise what the database said the last time.

    For writes that can be done twice, as those of the store can: a second one meets the state that
    the first has left. What isn't the database's failure is raised at once. A server that can't be
    reached is an OSError: SQLAlchemy leaves those as they are.
    """
    for tries_left in reversed(range(limits.STORE_TRIES_MAX)):
        try:
            return await write()
        except (SQLAlchemyError, OSError) as error:
            if not tries_left:
                raise
            log.warning("write_failed", reason=str(error).partition("\n")[0], tries_left=tries_left)
            await asyncio.sleep(limits.STORE_RETRY_S)
    raise AssertionError("no try at all")
