"""Quarantine: what jobs asked for that ended every engine they met.

An entry is written in the transaction in which its job fails, and lasts until somebody who has
found the cause lets it go. Knows nothing of why engines end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from calotype.core.errors import NotFound
from calotype.core.nouns import Spec
from calotype.jobs import tables
from calotype.jobs.database import Database
from calotype.jobs.rows import spec_json, utc_now


@dataclass(frozen=True)
class Quarantined:
    """One job, and all that ask for just the same."""

    job_id: str
    reason: str
    at: datetime


class Quarantine:
    """The entries of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, spec: Spec) -> Quarantined | None:
        """The entry of a job that asked for just this; None: it may run."""
        same = tables.quarantine.c.spec_sha256 == _sha256(spec_json(spec))
        async with self._database.reading() as conn:
            row = (await conn.execute(select(tables.quarantine).where(same))).one_or_none()
        return Quarantined(row.job_id, row.reason, row.at) if row else None

    async def every(self) -> list[Quarantined]:
        """All entries, oldest first."""
        query = select(tables.quarantine).order_by(tables.quarantine.c.at)
        async with self._database.reading() as conn:
            return [
                Quarantined(row.job_id, row.reason, row.at) for row in await conn.execute(query)
            ]

    async def release(self, job_id: str) -> None:
        """Let what this job asked for run again. Raises NotFound."""
        one = delete(tables.quarantine).where(tables.quarantine.c.job_id == job_id)
        async with self._database.writing() as conn:
            if not (await conn.execute(one)).rowcount:
                raise NotFound(
                    f"{job_id} isn't quarantined", field="job_id", limit="a quarantined job's id"
                )


async def add(conn: AsyncConnection, job_id: str, spec: Mapping[str, Any], reason: str) -> None:
    """Quarantine what this job asked for, as its row has it; once is enough."""
    digest, entries = _sha256(spec), tables.quarantine
    known = select(entries.c.job_id).where(entries.c.spec_sha256 == digest)
    if (await conn.execute(known)).first() is None:
        values = {"spec_sha256": digest, "job_id": job_id, "reason": reason, "at": utc_now()}
        await conn.execute(insert(entries).values(values))


# Of a spec, what changes nothing of what is drawn: how its model was chosen, and where it runs.
_HOW_CHOSEN = ("model_asked", "is_canary", "pool")


def _sha256(spec: Mapping[str, Any]) -> str:
    done = {name: value for name, value in spec.items() if name not in _HOW_CHOSEN}
    return hashlib.sha256(json.dumps(done, sort_keys=True).encode()).hexdigest()
