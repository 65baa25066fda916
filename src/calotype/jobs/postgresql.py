"""What is particular to PostgreSQL: many writers at a time, each waiting for rows, not for all.

Writers read what is committed and lock the rows they change (``FOR UPDATE``, in ``moves``); readers
see one moment's state, as they do with SQLite. It is another machine, or may be: it can be away for
a while.
"""

from __future__ import annotations

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

DRIVER = "postgresql+asyncpg"
_MIGRATION_LOCK = 0x63616C6F  # numbers that nobody else takes: "calo" ...
SERVER_LOCK = _MIGRATION_LOCK + 1
# SQLSTATE, appendix A of PostgreSQL's manual: it shuts down, has crashed, or is starting; all
# connections are taken; and (class 08) a connection broke.
_AWAY = ("57P01", "57P02", "57P03", "53300")


def with_driver(url: URL) -> URL:
    """The address with the driver that Calotype brings, unless it names one."""
    return url.set(drivername=DRIVER) if url.drivername == "postgresql" else url


def views(engine: AsyncEngine) -> tuple[AsyncEngine, AsyncEngine]:
    """The engine as readers and as writers use it."""
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return reader, engine.execution_options(isolation_level="READ COMMITTED")


def is_away(error: BaseException) -> bool:
    """Whether an error says that the server can't be reached now, or has ended our connection."""
    if isinstance(error, OSError):
        return True  # SQLAlchemy leaves those of connecting as they are, and the driver's own too
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = str(getattr(getattr(error, "orig", error), "sqlstate", None) or "")
    return state in _AWAY or state.startswith("08")


def lock_for_migration(connection: Connection) -> None:
    """Have others wait who would bring the same database up to date, until this transaction ends.

    SQLite needs no such lock: there, whoever writes is alone.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
