"""The home folder, before a command works in it: there, usable, and private."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from calotype.core.errors import OperatorError

if TYPE_CHECKING:
    from calotype.jobs.store import JobStore
    from calotype.settings import Settings

T = TypeVar("T")


def prepare_home(settings: Settings) -> Path:
    """Make the home folder if it is missing, and return it; raise OperatorError if it is no use."""
    home = settings.home
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _no_use(home, error.strerror or str(error)) from error
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise _no_use(home, "it may not be written to")
    return home


def keep_private(settings: Settings) -> None:
    """Let only its owner read what this process makes from now on, and the database of before.

    The home folder's own mode is left alone: it may be a shared folder that was there before.
    """
    os.umask(0o077)
    for path in settings.home.glob("calotype.db*"):
        with contextlib.suppress(PermissionError):  # another's: theirs to say who reads it
            path.chmod(0o600)


def with_store(home: Path | None, work: Callable[[JobStore], Awaitable[T]]) -> T:
    """Open the job store of this home folder, do the work, and close it; beside a server or not."""
    from calotype.jobs.store import JobStore
    from calotype.settings import Settings

    async def run() -> T:
        settings = Settings(home=home)
        prepare_home(settings)
        keep_private(settings)
        store = await JobStore.open(settings.database)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def _no_use(home: Path, why: str) -> OperatorError:
    return OperatorError(
        f"the home folder {home} can't be used: {why}; choose another with --home or CALOTYPE_HOME",
        field="home",
    )
