"""The connection to the database: how it is opened, who may write, and when.

Knows nothing of jobs. Writers of one process queue here, on a lock, and readers never wait. What
SQLite and PostgreSQL do differently is in the modules of their names; above this one there is one
way to write and one to read.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from calotype.core.errors import InternalError, OperatorError
from calotype.jobs import postgresql, sqlite

CONNECTIONS_MAX = 8  # one writes; the others read
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": postgresql.DRIVER}

T = TypeVar("T")


class Database:
    """An open database, migrated to the newest schema."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        backend = sqlite if engine.dialect.name == "sqlite" else postgresql
        self._reader, self._writer = backend.views(engine)
        self._turn = asyncio.Lock()
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._serving: AsyncConnection | None = None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One read transaction: it sees one moment's state."""
        self._check_open()
        async with self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One write transaction, alone; committed at the end, rolled back on an exception."""
        self._check_open()
        async with self._turn, self._writer.begin() as connection:
            yield connection

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a transaction to its end, even if its caller gives up waiting half way.

        A cancelled caller (a request whose client went away) then never leaves it open whether
        a write was done, or done without waking those who wait for it; and a cancelled follower
        doesn't cost a connection, which could not be used again.
        """
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return await asyncio.shield(task)

    async def serve_alone(self) -> None:
        """Keep other servers off this database until it is closed. Raises OperatorError."""
        if self._engine.dialect.name == "postgresql":
            self._serving = await postgresql.serve_alone(self._engine)

    async def close(self) -> None:
        """Wait for the transactions that run, then drop every connection."""
        if self._unfinished:
            await asyncio.wait(set(self._unfinished))
        self._is_closed = True
        if self._serving is not None:
            await self._serving.close()
        await self._engine.dispose()

    def _check_open(self) -> None:
        """Raise InternalError once closed: SQLAlchemy would connect anew, for nobody to end."""
        if self._is_closed:
            raise InternalError("the job store is closed")


async def open_database(url: str) -> Database:
    """Connect and migrate. Raises OperatorError, with a sentence, when it can't be done."""
    place = "the address of the job database"  # never the text itself: it may hold a password
    engine: AsyncEngine | None = None
    try:
        parsed = postgresql.with_driver(make_url(url))
        place = f"the job database {parsed.render_as_string(hide_password=True)}"
        _check_driver(parsed)
        if parsed.get_backend_name() == "sqlite":
            await asyncio.to_thread(sqlite.check, parsed)
        engine = create_async_engine(parsed, pool_size=CONNECTIONS_MAX, max_overflow=0)
        database = Database(engine)
        async with database.writing() as connection:
            await connection.run_sync(migrate)
    except (SQLAlchemyError, sqlite3.Error, CommandError, ImportError, OSError) as error:
        if engine is not None:
            await engine.dispose()
        raise OperatorError(f"{place} can't be opened: {_reason(error)}") from error
    return database


def _check_driver(url: URL) -> None:
    """Refuse a database that the store doesn't speak, and a driver that isn't async."""
    driver = DRIVERS.get(url.get_backend_name())
    if driver is None:
        raise OperatorError(
            f"the job database has to be {' or '.join(DRIVERS)}, not {url.get_backend_name()}"
        )
    if not url.get_dialect().is_async:
        raise OperatorError(f"the job database needs {driver}://; {url.drivername} is not async")


def migrate(connection: Connection, version: str = "head") -> None:
    """Bring the schema to this version (the newest), in the transaction that is open."""
    if connection.dialect.name == "postgresql":
        postgresql.lock_for_migration(connection)
    config = Config()
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = connection
    command.upgrade(config, version)


def _reason(error: Exception) -> str:
    if isinstance(error, CommandError):
        return f"its schema isn't one of this version of Calotype ({error})"
    if isinstance(error, ModuleNotFoundError) and error.name == "asyncpg":
        return "its driver isn't installed; pip install 'calotype[postgresql]' brings it"
    cause = getattr(error, "orig", None) or error
    return str(cause).splitlines()[0] if str(cause) else type(error).__name__
