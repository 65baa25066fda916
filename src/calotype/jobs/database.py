"""The connection to the database: how it is opened, who may write, and when.

Knows nothing of jobs. SQLite takes one writer at a time, so writers queue here, on a lock, and each
transaction takes SQLite's own write lock from its start (``BEGIN IMMEDIATE``): none can fail half
way for having read before another wrote. Another process waits for that lock (``busy_timeout``).
Readers never wait: with a write-ahead log they see the last committed state.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from calotype.core.errors import InternalError, OperatorError

BUSY_TIMEOUT_S = 10.0  # how long a writer waits for another process's transaction
WAL_RETRY_S = 0.02  # between tries to make a new file's log while another process does the same
CONNECTIONS_MAX = 8  # one writes; the others read
_WRITES = "calotype_writes"  # the execution option that marks a writing transaction

T = TypeVar("T")


class Database:
    """An open database, migrated to the newest schema."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{_WRITES: True})
        self._turn = asyncio.Lock()
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._is_closed = False

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

    async def close(self) -> None:
        """Wait for the transactions that run, then drop every connection."""
        if self._unfinished:
            await asyncio.wait(set(self._unfinished))
        self._is_closed = True
        await self._reader.dispose()

    def _check_open(self) -> None:
        """Raise InternalError once closed: SQLAlchemy would connect anew, for nobody to end."""
        if self._is_closed:
            raise InternalError("the job store is closed")


async def open_database(url: str) -> Database:
    """Connect and migrate. Raises OperatorError, with a sentence, when it can't be done."""
    place = "the address of the job database"  # never the text itself: it may hold a password
    engine: AsyncEngine | None = None
    try:
        parsed = make_url(url)
        place = f"the job database {parsed.render_as_string(hide_password=True)}"
        if parsed.get_backend_name() == "sqlite":
            _check_driver(parsed)
            await asyncio.to_thread(_try_sqlite, parsed)
        engine = create_async_engine(parsed, pool_size=CONNECTIONS_MAX, max_overflow=0)
        if engine.dialect.name == "sqlite":
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
        database = Database(engine)
        async with database.writing() as connection:
            await connection.run_sync(_migrate)
    except (SQLAlchemyError, sqlite3.Error, CommandError, ImportError, OSError) as error:
        if engine is not None:
            await engine.dispose()
        raise OperatorError(f"{place} can't be opened: {_reason(error)}") from error
    return database


def _check_driver(url: URL) -> None:
    """Refuse a driver that isn't async before it makes a file."""
    if not url.get_dialect().is_async:
        raise OperatorError(
            f"the job database needs sqlite+aiosqlite://; {url.drivername} is not async"
        )


def _try_sqlite(url: URL) -> None:
    """Open the file once, plainly: when aiosqlite can't, its thread may outlive the event loop."""
    if url.database in (None, "", ":memory:"):
        raise OperatorError("the job database must be a file: in memory it would not outlive us")
    if not url.query:  # with options it may be a "file:" address, which is read another way
        sqlite3.connect(str(url.database)).close()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not by guess
    cursor = connection.cursor()
    # The timeout first: changing the journal can itself meet another process's lock.
    cursor.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1000)}")
    _use_write_ahead_log(cursor)
    # An accepted job is on the disk before it is answered: with this log, NORMAL would have a
    # power cut undo the last commits.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _use_write_ahead_log(cursor: Any) -> None:
    """Turn a new file's journal into a write-ahead log; of an old one it is that already.

    Of two who try at the same moment SQLite refuses one at once, however long it would wait: both
    hold what the other needs. The refused one tries again.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(WAL_RETRY_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(connection: Connection) -> None:
    config = Config()
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _reason(error: Exception) -> str:
    if isinstance(error, CommandError):
        return f"its schema isn't one of this version of Calotype ({error})"
    cause = getattr(error, "orig", None) or error
    return str(cause).splitlines()[0] if str(cause) else type(error).__name__
