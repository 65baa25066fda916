"""Severe cases: sealed at once, opened by two people and never by default, kept for their term.

What is sealed is written before its record, and whoever opens it stands in the audit trail before
they see anything. The term begins anew when a report is finished. The record is sealed, too, beside
what was found: a database that was restored from before a case takes it up again.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from calotype.core.errors import Forbidden, InternalError, OperatorError
from calotype.core.ids import new_id
from calotype.core.nouns import Key, Verdict
from calotype.core.reviews import Person
from calotype.core.states import ReportState
from calotype.flow.sealed import Sealed
from calotype.jobs.cases import Case
from calotype.jobs.patience import patiently
from calotype.jobs.store import JobStore

log = structlog.get_logger("calotype.cases")

_RECORD = "-record"  # ends the name of a case's record in the sealed store
SCOPE = "cases"  # of keys whose people may open a case, two together, and send its report


class CaseBook:
    """The cases of an installation."""

    def __init__(self, store: JobStore, sealed: Sealed, *, kept_days: float) -> None:
        self._kept, self._sealed = store.people, sealed
        self._term = timedelta(days=kept_days)

    async def open(
        self,
        kind: str,
        tenant: str,
        user: str,
        *,
        verdict: Verdict,
        data: bytes,
        job_id: str | None = None,
        index: int | None = None,
    ) -> None:
        """Seal what was found and write it down; once, for the same picture of a job."""
        case_id, now = new_id("case"), datetime.now(UTC)
        await self._sealed.seal(case_id, data)
        case = Case(
            case_id, kind, tenant, user, job_id, index,
            category=verdict.category or "", check=verdict.check, version=verdict.version,
            policy=verdict.policy, file_sha256=hashlib.sha256(data).hexdigest(), sealed=case_id,
            opened_at=now, kept_until=now + self._term, state=ReportState.PREPARED,
        )  # fmt: skip
        await self.keep(case)
        if await patiently(lambda: self._kept.cases.open(case)):
            log.error("case_opened", case=case_id, kind=kind, category=case.category)
        else:
            await self._destroy(case)

    async def keep(self, case: Case) -> None:
        """Seal the record of a case as it is now. Raises OperatorError."""
        await self._sealed.seal(case.id + _RECORD, _packed(case))

    async def recover(self) -> list[Case]:
        """Take up the cases that this database doesn't have, and return them; before any is swept.

        It was restored from before them, or a crash came before they were written there.
        """
        known = {case.id for case in await self._kept.cases.every()}
        names, found = await self._sealed.names(), []
        for name in names:
            case_id = name.removesuffix(_RECORD)
            if name == case_id or case_id in known or case_id not in names:
                continue
            try:
                case = _unpacked(await self._sealed.open(name))
            except OperatorError as error:  # it stays where it is; the other cases go on
                log.error("case_not_recovered", case=case_id, reason=error.detail)
                continue
            if await self._kept.cases.recover(case):
                log.error("case_recovered", case=case_id, report=case.state.value)
                found.append(await self._kept.cases.get(case_id))
            else:
                await self._destroy(case)
        return found

    async def look(self, case_id: str, one: Key, other: Key, *, reason: str) -> bytes:
        """What is sealed, for two people who both want to see it; written down first.

        Raises NotFound, and Forbidden unless they are two with keys for cases.
        """
        people = [person_of(key) for key in (one, other)]
        for key in (one, other):
            check_scope(key)
        if people[0].key == people[1].key or people[0].who == people[1].who:
            raise Forbidden(
                "two people open a case, each with a key of their own",
                field="second_key",
                limit="another person's key",
            )
        case = await self._kept.cases.get(case_id)
        said = {"who": [person.who for person in people], "keys": [it.key for it in people]}
        by = " and ".join(person.who for person in people)
        await self._kept.audit.note(case_id, "opened_by_two", by, said | {"reason": reason})
        return await self.unsealed(case)

    async def unsealed(self, case: Case) -> bytes:
        """What is sealed, as it was. Who asks for it is written down before."""
        data = await self._sealed.open(case.sealed)
        if hashlib.sha256(data).hexdigest() != case.file_sha256:
            raise InternalError(f"what is sealed for {case.id} isn't what was found")
        return data

    def term_from_now(self) -> datetime:
        """Until when a case is kept whose report is finished now."""
        return datetime.now(UTC) + self._term

    async def sweep(self) -> None:
        """Destroy what has been sealed for the term and isn't a case's: a crash came between."""
        cases = await self._kept.cases.every()
        kept = {name for case in cases if case.sealed for name in (case.sealed, case.id + _RECORD)}
        if gone := await self._sealed.sweep(kept, before=datetime.now(UTC) - self._term):
            log.warning("sealed_swept", count=len(gone))

    async def let_go(self) -> int:
        """Destroy what has been kept for its term; return how many."""
        over = await self._kept.cases.over(datetime.now(UTC))
        for case in over:
            await self._destroy(case)
            await self._kept.cases.let_go(case.id)
        return len(over)

    async def _destroy(self, case: Case) -> None:
        await self._sealed.destroy([case.sealed, case.id + _RECORD])


def _packed(case: Case) -> bytes:
    return json.dumps(vars(case), default=datetime.isoformat).encode()


def _unpacked(record: bytes) -> Case:
    values: dict[str, Any] = json.loads(record)
    for name in ("opened_at", "kept_until", "finished_at"):
        values[name] = datetime.fromisoformat(values[name]) if values[name] else None
    return Case(**{**values, "state": ReportState(values["state"])})


def person_of(key: Key) -> Person:
    """Who a key's owner is to whom it matters who decides."""
    return Person(key.id, f"{key.tenant}/{key.user}")


def check_scope(key: Key) -> None:
    """Raise Forbidden unless the key is one for cases."""
    if SCOPE not in key.scopes:
        raise Forbidden(
            f"{key.id} is no key for cases: `calotype keys create --scope {SCOPE}` makes one",
            field="key",
            limit=SCOPE,
        )
