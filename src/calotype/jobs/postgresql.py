"""What is particular to PostgreSQL: many writers at a time, each waiting for rows, not for all.

Writers read what is committed and lock the rows they change (``FOR UPDATE``, in ``moves``); readers
see one moment's state, as they do with SQLite.
"""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from calotype.core.errors import OperatorError

DRIVER = "postgresql+asyncpg"
_MIGRATION_LOCK = 0x63616C6F  # numbers that nobody else takes: "calo" ...
_SERVER_LOCK = _MIGRATION_LOCK + 1
SERVER_WAIT_S = 5.0  # for a server that was just killed: PostgreSQL has yet to notice
_LOOK_AGAIN_S = 0.1


def with_driver(url: URL) -> URL:
    """The address with the driver that Calotype brings, unless it names one."""
    return url.set(drivername=DRIVER) if url.drivername == "postgresql" else url


def views(engine: AsyncEngine) -> tuple[AsyncEngine, AsyncEngine]:
    """The engine as readers and as writers use it."""
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return reader, engine.execution_options(isolation_level="READ COMMITTED")


async def serve_alone(engine: AsyncEngine) -> AsyncConnection:
    """Keep other servers off the database for as long as this connection is open.

    Raises OperatorError if there is one. With SQLite the lock of the home folder sees to that.
    """
    connection = await engine.connect()
    await connection.execution_options(isolation_level="AUTOCOMMIT")
    deadline = time.monotonic() + SERVER_WAIT_S
    ask = text("SELECT pg_try_advisory_lock(:key)")
    while not (await connection.execute(ask, {"key": _SERVER_LOCK})).scalar_one():
        if time.monotonic() > deadline:
            await connection.close()
            raise OperatorError(
                "another Calotype server works on the job database: one at a time",
                field="database_url",
            )
        await asyncio.sleep(_LOOK_AGAIN_S)
    return connection


def lock_for_migration(connection: Connection) -> None:
    """Have others wait who would bring the same database up to date, until this transaction ends.

    SQLite needs no such lock: there, whoever writes is alone.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
