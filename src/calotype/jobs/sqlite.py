"""What is particular to SQLite: one file, one writer at a time, a write-ahead log.

Each writing transaction takes SQLite's own write lock from its start (``BEGIN IMMEDIATE``): none
can fail half way for having read before another wrote. Another process waits for that lock
(``busy_timeout``). Readers never wait: with a write-ahead log they see the last committed state.
"""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from calotype.core.errors import OperatorError

BUSY_TIMEOUT_S = 10.0  # how long a writer waits for another process's transaction
WAL_RETRY_S = 0.02  # between tries to make a new file's log while another process does the same
# An accepted job is on the disk before it is answered: with this log, NORMAL would have a power cut
# undo the last commits.
SYNCHRONOUS = "FULL"
_WRITES = "calotype_writes"  # the execution option that marks a writing transaction


def check(url: URL) -> None:
    """Refuse what is no file, and open the file once, plainly.

    When aiosqlite can't open it, its thread may outlive the event loop.
    """
    if url.database in (None, "", ":memory:"):
        raise OperatorError("the job database must be a file: in memory it would not outlive us")
    if not url.query:  # with options it may be a "file:" address, which is read another way
        sqlite3.connect(str(url.database)).close()


def views(engine: AsyncEngine) -> tuple[AsyncEngine, AsyncEngine]:
    """The engine as readers and as writers use it."""
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine, engine.execution_options(**{_WRITES: True})


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where _begin says, not by guess
    cursor = connection.cursor()
    # The timeout first: changing the journal can itself meet another process's lock.
    cursor.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1000)}")
    _use_write_ahead_log(cursor)
    cursor.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
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


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
