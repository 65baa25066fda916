"""The connection to the database: how it is opened, who may write, and when.

Knows nothing of jobs. Writers of one process queue here, on a lock, and readers never wait. What
SQLite and PostgreSQL do differently is in the modules of their names; above this one there is one
way to write and one to read.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from calotype.core import limits
from calotype.core.errors import InternalError, OperatorError, StoreAway
from calotype.jobs import postgresql, sqlite
from calotype.jobs.alone import Alone

CONNECTIONS_MAX = 8  # one writes; the others read
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": postgresql.DRIVER}

T = TypeVar("T")

log = structlog.get_logger("calotype.jobs")


class Database:
    """An open database, migrated to the newest schema."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._is_postgresql = engine.dialect.name == "postgresql"
        backend = postgresql if self._is_postgresql else sqlite
        self._reader, self._writer = backend.views(engine)
        self._turn = asyncio.Lock()
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._alone: Alone | None = None

    @property
    def is_away(self) -> bool:
        """Whether this server has lost its connection to the database, and may not write."""
        return self._alone is not None and not self._alone.is_held

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One read transaction: it sees one moment's state. Raises StoreAway."""
        self._check_open()
        with self._saying_away():
            async with self._reader.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """One write transaction, alone; committed at the end, rolled back on an exception.

        Raises StoreAway. When that came from committing, nobody knows whether it was.
        """
        self._check_open()
        with self._saying_away():
            async with self._turn:
                if self.is_away:
                    raise away()
                async with self._writer.begin() as connection:
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
        if self._is_postgresql:
            self._alone = Alone(self._engine)
            await self._alone.take()

    async def stay_alone(self) -> None:
        """Go on so until this is cancelled. Raises OperatorError once another server was here."""
        if self._alone is not None:
            await self._alone.keep()

    async def close(self) -> None:
        """Wait for the transactions that run, then drop every connection."""
        if self._unfinished:
            await asyncio.wait(set(self._unfinished))
        self._is_closed = True
        if self._alone is not None:
            await self._alone.let_go()
        await self._engine.dispose()

    @contextmanager
    def _saying_away(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._is_postgresql and postgresql.is_away(error):
                log.warning("database_away", reason=str(error).partition("\n")[0])
                raise away() from error
            raise

    def _check_open(self) -> None:
        """Raise InternalError once closed: SQLAlchemy would connect anew, for nobody to end."""
        if self._is_closed:
            raise InternalError("the job store is closed")


def away() -> StoreAway:
    """What is told while the database can't be reached; where it is stands in the log only."""
    after_s = limits.STORE_AWAY_RETRY_S
    said = f"the job database can't be reached now; try again in {after_s} seconds"
    return StoreAway(said, retry_after_s=after_s)


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
        async with database._writer.begin() as connection:
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
