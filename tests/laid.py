"""Databases with the job store's tables, copied: all migrations take a fifth of a second each time.

The store's own tests make some from nothing (tests/rooms/test_jobs_database.py), and servers do.
"""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from calotype.jobs.store import JobStore


async def opened_in(folder: Path) -> JobStore:
    """The store that ``folder`` has in jobs.db, which is made if missing."""
    lay(folder / "jobs.db")
    return await JobStore.open(f"sqlite+aiosqlite:///{folder / 'jobs.db'}")


def lay(file: Path) -> None:
    """Have a new database in this file, unless there is one."""
    if not file.exists():
        file.write_bytes(_laid())


def migrate(url: str) -> None:
    """Open a store once, in a loop of its own."""

    async def once() -> None:
        await (await JobStore.open(url)).close()

    with ThreadPoolExecutor(1) as thread:  # in this one a loop may be running
        thread.submit(asyncio.run, once()).result()


@cache
def _laid() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "jobs.db"
        migrate(f"sqlite+aiosqlite:///{file}")
        assert [it.name for it in file.parent.iterdir()] == [file.name], "its log is merged"
        return file.read_bytes()
