"""Trying a write again: a database that is locked, full or away a while must not stop the line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from calotype.core import limits
from calotype.core.errors import StoreAway

T = TypeVar("T")

log = structlog.get_logger("calotype.jobs")


async def patiently(write: Callable[[], Awaitable[T]]) -> T:
    """Do a write, up to STORE_TRIES_MAX times; then raise what the database said the last time.

    For writes that can be done twice, as those of the store can: a second one meets the state that
    the first has left. What isn't the database's failure is raised at once. A database that can't
    be reached is waited for longer, STORE_AWAY_S_MAX: it may be starting.
    """
    tries_left = limits.STORE_TRIES_MAX - 1
    give_up_at = time.monotonic() + limits.STORE_AWAY_S_MAX
    while True:
        try:
            return await write()
        except StoreAway as error:
            if time.monotonic() > give_up_at:
                raise
            log.warning("store_away", reason=error.detail)
        except (SQLAlchemyError, OSError) as error:
            if not tries_left:
                raise
            log.warning("write_failed", reason=str(error).partition("\n")[0], tries_left=tries_left)
            tries_left -= 1
        await asyncio.sleep(limits.STORE_RETRY_S)
