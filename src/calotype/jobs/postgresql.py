"""What is particular to PostgreSQL: many writers at a time, each waiting for rows, not for all.

Writers read what is committed and lock the rows they change (``FOR UPDATE``, in ``moves``); readers
see one moment's state, as they do with SQLite.
"""

from __future__ import annotations

from sqlalchemy import URL, Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

DRIVER = "postgresql+asyncpg"
_MIGRATION_LOCK = 0x63616C6F  # any number that nobody else takes: "calo"


def with_driver(url: URL) -> URL:
    """The address with the driver that Calotype brings, unless it names one."""
    return url.set(drivername=DRIVER) if url.drivername == "postgresql" else url


def views(engine: AsyncEngine) -> tuple[AsyncEngine, AsyncEngine]:
    """The engine as readers and as writers use it."""
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return reader, engine.execution_options(isolation_level="READ COMMITTED")


def lock_for_migration(connection: Connection) -> None:
    """Have others wait who would bring the same database up to date, until this transaction ends.

    SQLite needs no such lock: there, whoever writes is alone.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
