"""Severe cases: what has to be kept for its legal term, and how far its report has come.

What is kept lies sealed elsewhere; here is its name, its hash and the term. A job of a case is on
hold: nothing of it is deleted, whoever asks. Each answer of the reporting service is written before
the next call, so that a report goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core.errors import Conflict, NotFound
from calotype.core.states import REPORT_MOVES, ReportState, move
from calotype.jobs import audit
from calotype.jobs.database import Database
from calotype.jobs.people_tables import cases
from calotype.jobs.rows import spec_of, utc_now
from calotype.jobs.tables import jobs

PICTURE, SENT, TEXT = "picture", "sent", "text"  # made here, sent by a person, words alone


@dataclass(frozen=True)
class Case:
    """One severe finding."""

    id: str
    kind: str  # PICTURE, SENT or TEXT
    tenant: str
    user: str
    job_id: str | None
    index: int | None
    category: str
    check: str
    version: str  # of the check
    policy: str  # its version
    file_sha256: str  # of what is sealed
    sealed: str  # its name in the sealed store
    opened_at: datetime
    kept_until: datetime
    state: ReportState
    begun: str = ""  # the call of which nobody knows the answer
    host: str = ""  # the service to which it is reported
    report_id: str = ""  # its number there
    file_id: str = ""
    finished_at: datetime | None = None


class Cases:
    """The cases in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, case: Case) -> bool:
        """Write a case; False if its picture has one already: then nothing is changed."""

        async def write() -> bool:
            async with self._database.writing() as conn:
                return await _open(conn, case, "opened")

        return await self._database.finish(write())

    async def recover(self, case: Case) -> bool:
        """The same of a case that this database has lost; it may have lost its job as well."""

        async def write() -> bool:
            async with self._database.writing() as conn:
                job = select(jobs.c.id).where(jobs.c.id == case.job_id)
                has_job = (await conn.execute(job)).first() is not None
                found = case if has_job else replace(case, job_id=None, index=None)
                return await _open(conn, found, "recovered", job=case.job_id)

        return await self._database.finish(write())

    async def get(self, case_id: str) -> Case:
        """One case. Raises NotFound."""
        async with self._database.reading() as conn:
            return await _one(conn, case_id)

    async def every(self) -> Sequence[Case]:
        """All cases, the oldest first."""
        async with self._database.reading() as conn:
            rows = await conn.execute(select(cases).order_by(cases.c.opened_at, cases.c.id))
            return [_case_of(row) for row in rows]

    async def begin(self, case_id: str, call: str, *, host: str, by: str, **more: str) -> Case:
        """Note that a call is about to be made; until ``answered`` nobody knows how it went."""
        said = {"call": call, "host": host, **more}
        return await self._note(case_id, f"{call}_begun", by, said, begun=call, host=host)

    async def refused(self, case_id: str, call: str, *, by: str, reason: str) -> Case:
        """Note that the call that was begun has changed nothing at the service."""
        return await self._note(case_id, f"{call}_refused", by, {"reason": reason}, begun="")

    async def answered(self, case_id: str, after: ReportState, *, by: str, **values: Any) -> Case:
        """Note the answer of the call that was begun, and what it brought. Raises IllegalMove."""
        if after is ReportState.FINISHED:
            values["finished_at"] = utc_now()
        said = {name: str(value) for name, value in values.items()}
        return await self._note(case_id, after.value, by, said, after=after, begun="", **values)

    async def over(self, now: datetime) -> Sequence[Case]:
        """Those whose term is over: they are kept no longer."""
        return [case for case in await self.every() if case.kept_until <= now and case.sealed]

    async def let_go(self, case_id: str) -> None:
        """Note that what was sealed is destroyed, its term being over."""
        await self._note(case_id, "destroyed", "retention", {}, sealed="")

    async def held_pictures(self) -> set[str]:
        """Ids of the pictures that jobs on hold began from: they are kept as long."""
        query = select(jobs.c.spec).where(on_hold(jobs.c.id))
        async with self._database.reading() as conn:
            specs = [spec_of(spec) for spec in (await conn.execute(query)).scalars()]
        return {picture for spec in specs for picture in spec.picture_ids}

    async def _note(
        self,
        case_id: str,
        kind: str,
        by: str,
        said: dict[str, Any],
        *,
        after: ReportState | None = None,
        **values: Any,
    ) -> Case:
        async def write() -> Case:
            async with self._database.writing() as conn:
                case = await _one(conn, case_id)
                changed = dict(values)
                if after is not None:
                    changed["state"] = move(REPORT_MOVES, case.state, after).value
                ours = (cases.c.id == case_id) & (cases.c.state == case.state.value)
                if (await conn.execute(update(cases).where(ours).values(changed))).rowcount != 1:
                    raise Conflict(f"{case_id} was changed at the same time", field="case")
                await audit.append(conn, case_id, kind, by, said)
                return await _one(conn, case_id)

        return await self._database.finish(write())


def on_hold(job_id: Any) -> ColumnElement[bool]:
    """Whether a job (a column, or an id) has a case that has to be kept: nothing of it goes."""
    return exists().where(cases.c.job_id == job_id, cases.c.kept_until > utc_now())


async def _open(conn: AsyncConnection, case: Case, kind: str, **more: Any) -> bool:
    if case.job_id is not None:
        same = (cases.c.job_id == case.job_id) & (cases.c["index"] == case.index)
        if (await conn.execute(select(cases.c.id).where(same))).first() is not None:
            return False
    await conn.execute(insert(cases).values({**vars(case), "state": case.state.value}))
    said = {"kind": case.kind, "category": case.category, "sha256": case.file_sha256, **more}
    await audit.append(conn, case.id, kind, f"check {case.check}", said)
    return True


async def _one(conn: AsyncConnection, case_id: str) -> Case:
    row = (await conn.execute(select(cases).where(cases.c.id == case_id))).one_or_none()
    if row is None:
        raise NotFound(f"there is no case {case_id[:40]}", field="case", limit="the id of a case")
    return _case_of(row)


def _case_of(row: Row[Any]) -> Case:
    values = {each.name: row._mapping[each.name] for each in fields(Case)}
    return Case(**{**values, "state": ReportState(values["state"])})
