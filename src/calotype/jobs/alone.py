"""That one server works on a PostgreSQL database: a lock that goes with a connection, and is kept.

When PostgreSQL restarts the connection is lost, and the lock with it. Until it is taken again
nothing is written (``is_held``); if another server has it by then, or has had it meanwhile, what
this one knows of the jobs is worth nothing any more. With SQLite the home folder's lock sees to it.
"""

from __future__ import annotations

import asyncio
import time

import structlog
from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from calotype.core.errors import OperatorError
from calotype.core.ids import new_id
from calotype.jobs import tables
from calotype.jobs.postgresql import SERVER_LOCK, is_away

SERVER_WAIT_S = 5.0  # for a server that was just killed: PostgreSQL has yet to notice
LOOK_S = 10.0  # between two looks at a connection that may be dead without a word
_AGAIN_S = 0.1  # between two tries to have the lock, or to connect
_NAME, _ENTRY = "server", "id"  # of the note that says who had it last

log = structlog.get_logger("calotype.jobs")


class Alone:
    """The lock of one server; ``take`` it, then ``keep`` it until the end."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._id = new_id("srv")
        self._connection: AsyncConnection | None = None
        self._lost = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """Whether the lock is ours at this moment."""
        return self._connection is not None and not self._lost.is_set()

    async def take(self) -> None:
        """Take the lock. Raises OperatorError if another server has it."""
        self._connection = connection = await self._locked()
        notes = tables.notes
        await connection.execute(delete(notes).where(notes.c.name == _NAME))
        await connection.execute(insert(notes).values(name=_NAME, entry=_ENTRY, data=self._id))

    async def keep(self) -> None:
        """Take the lock again whenever the connection is lost, until this is cancelled.

        Raises OperatorError once another server has, or had, the database.
        """
        while True:
            await self._until_lost()
            log.error("server_lock_lost")
            await self.let_go()
            await self._engine.dispose()  # the others are as dead
            await self._take_again()
            log.warning("server_lock_taken_again")

    async def let_go(self) -> None:
        """Close the connection, and with it the lock."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._lost.is_set():
            await connection.invalidate()  # or closing it would speak with the dead
        await connection.close()

    async def _until_lost(self) -> None:
        while not self._lost.is_set():
            try:
                await asyncio.wait_for(self._lost.wait(), LOOK_S)
            except TimeoutError:
                await self._look()

    async def _look(self) -> None:
        assert self._connection is not None, "it was taken"
        try:
            async with asyncio.timeout(LOOK_S):
                await self._connection.execute(text("SELECT 1"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the lock isn't known to be ours
            log.warning("server_lock_silent", reason=str(error).partition("\n")[0])
            self._lost.set()

    async def _take_again(self) -> None:
        while True:
            try:
                connection = await self._locked()
                notes = tables.notes
                query = select(notes.c.data).where(notes.c.name == _NAME)
                last = (await connection.execute(query)).scalar_one_or_none()
            except Exception as error:
                if not is_away(error):
                    raise
                await asyncio.sleep(_AGAIN_S)
                continue
            if last != self._id:
                await connection.close()
                raise OperatorError("another Calotype server has worked on the job database")
            self._connection = connection
            return

    async def _locked(self) -> AsyncConnection:
        """A connection that has the lock, and rings when it ends."""
        connection = await self._engine.connect()
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        ask, deadline = text("SELECT pg_try_advisory_lock(:key)"), time.monotonic() + SERVER_WAIT_S
        try:
            while not (await connection.execute(ask, {"key": SERVER_LOCK})).scalar_one():
                if time.monotonic() > deadline:
                    raise OperatorError(
                        "another Calotype server works on the job database: one at a time",
                        field="database_url",
                    )
                await asyncio.sleep(_AGAIN_S)
            self._lost = asyncio.Event()
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None, "a connection that is open"
            lost = self._lost
            raw.add_termination_listener(lambda _: lost.set())
        except BaseException:
            await connection.close()
            raise
        return connection
