"""Reports of severe cases: prepared here, sent by a person, one call after another.

Before each call it is written down that it is made, after it what was answered. So whatever stops
it half way, it goes on by the report's number, and in the end there is exactly one finished report:

- without an answer to ``/submit`` there is no number; it is opened anew. What was opened then is
  never finished, and an unfinished report isn't one. The service lists none, so a person is told of
  it (``unnumbered``), with the reference of ours that its document has.
- without an answer to ``/upload`` nobody knows whether the file is there: the report is retracted
  and begun anew, or it could be there twice.
- ``/fileinfo`` and ``/finish`` are made again: the service says if it is finished already.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from calotype.core.errors import Conflict, OperatorError
from calotype.core.nouns import Key
from calotype.core.states import ReportState
from calotype.flow.cases import CaseBook, check_scope, person_of
from calotype.jobs.cases import PICTURE, SENT, TEXT, Case
from calotype.jobs.store import JobStore
from calotype.safety.cybertipline import (
    CyberTipline,
    Found,
    NotReached,
    ReportFailed,
    file_xml,
    report_xml,
)
from calotype.settings import Settings

log = structlog.get_logger("calotype.reports")

SUBMIT, UPLOAD, DESCRIBE, FINISH, RETRACT = "submit", "upload", "fileinfo", "finish", "retract"


@dataclass(frozen=True)
class Unnumbered:
    """A report that may be open at the service, and whose number never came."""

    reference: str
    host: str
    at: datetime


class Reports:
    """Sends reports and takes them back, for a person who says so."""

    def __init__(self, settings: Settings, store: JobStore, book: CaseBook) -> None:
        self._settings, self._cases, self._book = settings, store.people.cases, book
        self._audit = store.people.audit

    @property
    def url(self) -> str:
        """Where reports are sent."""
        return self._settings.reports_url

    async def document(self, case: Case, words: str = "") -> bytes:
        """What ``/submit`` would be given of a case."""
        return report_xml(
            Found(
                at=case.opened_at,
                account=f"{case.tenant}/{case.user}",
                reporter=self._settings.reports_contact or "",
                details=(
                    f"Found by {case.check} ({case.version}) as {case.category} under policy "
                    f"{case.policy}; SHA-256 of what is kept: {case.file_sha256}. "
                    f"{_WHAT[case.kind]}"
                ),
                reference=await self._reference(case.id),
                words=words,
            )
        )

    async def send(self, case_id: str, key: Key) -> Case:
        """Send a report, or go on with one that stopped half way, until it is finished.

        Raises Forbidden, NotFound, Conflict (it is finished or retracted, or being sent),
        OperatorError for what the settings lack, ReportFailed, NoAnswer.
        """
        check_scope(key)
        by = person_of(key).who
        user, password = self._login()
        if not self._settings.reports_contact:
            raise OperatorError("say with reports_contact who reports", field="reports_contact")
        with self._alone():
            case = await self._cases.get(case_id)
            if case.state in (ReportState.FINISHED, ReportState.RETRACTED):
                raise Conflict(f"the report of {case_id} is {case.state.value}", field="case")
            if case.report_id and case.host != self.url:
                raise Conflict(
                    f"it was begun at {case.host}: go on there, or retract it", field="reports_url"
                )
            async with CyberTipline(self.url, user, password) as service:
                while case.finished_at is None:
                    case = await self._next(service, case, by)
                    await self._book.keep(case)
        log.warning("report_finished", case=case_id, report=case.report_id, host=case.host)
        return case

    async def retract(self, case_id: str, key: Key) -> Case:
        """Take a report back before it is finished; one that wasn't begun is never sent."""
        check_scope(key)
        by = person_of(key).who
        with self._alone():
            case = await self._cases.get(case_id)
            if case.state in (ReportState.FINISHED, ReportState.RETRACTED):
                raise Conflict(f"the report of {case_id} is {case.state.value}", field="case")
            if case.report_id:
                await self._cases.begin(case_id, RETRACT, host=case.host, by=by)
                async with CyberTipline(case.host, *self._login()) as service:
                    await service.retract(case.report_id)
            case = await self._cases.answered(case_id, ReportState.RETRACTED, by=by)
            await self._book.keep(case)
            return case

    async def _next(self, service: CyberTipline, case: Case, by: str) -> Case:
        """Make the call that is next, and write its answer down."""
        match case.state:
            case ReportState.PREPARED:
                return await self._submit(service, case, by)
            case ReportState.SUBMITTED if case.begun == UPLOAD:
                await service.retract(case.report_id)
                return await self._cases.answered(
                    case.id, ReportState.PREPARED, by=by, report_id="", file_id=""
                )
            case ReportState.SUBMITTED if case.kind != TEXT:
                await self._cases.begin(case.id, UPLOAD, host=case.host, by=by)
                data = await self._book.unsealed(case)
                file_id = await service.upload(case.report_id, _name(case), data)
                return await self._cases.answered(
                    case.id, ReportState.UPLOADED, by=by, file_id=file_id
                )
            case ReportState.UPLOADED:
                await self._cases.begin(case.id, DESCRIBE, host=case.host, by=by)
                is_made = case.kind == PICTURE
                await service.describe(
                    file_xml(case.report_id, case.file_id, _name(case), is_made=is_made)
                )
                return await self._cases.answered(case.id, ReportState.DESCRIBED, by=by)
            case _:
                await self._cases.begin(case.id, FINISH, host=case.host, by=by)
                await service.finish(case.report_id)
                return await self._cases.answered(
                    case.id, ReportState.FINISHED, by=by, kept_until=self._book.term_from_now()
                )

    async def _submit(self, service: CyberTipline, case: Case, by: str) -> Case:
        words = (await self._book.unsealed(case)).decode() if case.kind == TEXT else ""
        document, reference = await self.document(case, words), await self._reference(case.id)
        await self._cases.begin(case.id, SUBMIT, host=self.url, by=by, reference=reference)
        try:
            report_id = await service.submit(document)
        except (ReportFailed, NotReached) as error:
            await self._cases.refused(case.id, SUBMIT, by=by, reason=error.detail)
            raise
        return await self._cases.answered(
            case.id, ReportState.SUBMITTED, by=by, report_id=report_id
        )

    async def _reference(self, case_id: str) -> str:
        """Ours of the report that is opened next: each has another."""
        trail = await self._audit.of(case_id)
        return f"{case_id}-{1 + sum(entry.kind == f'{SUBMIT}_begun' for entry in trail)}"

    def _login(self) -> tuple[str, str]:
        """User and password of the service. Raises OperatorError."""
        path = self._settings.reports_login
        if path is None:
            raise OperatorError(
                "nothing is sent without reports_login: a file with user and password, a line each",
                field="reports_login",
            )
        try:
            lines = path.read_text(encoding="utf-8").split()
        except OSError as error:
            said = f"{path} can't be read: {error.strerror}"
            raise OperatorError(said, field="reports_login") from error
        if len(lines) != 2:
            raise OperatorError(f"{path} has to have two lines", field="reports_login", limit=2)
        return lines[0], lines[1]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One sender at a time; the lock goes with its process, however that ends."""
        path = Path(self._settings.sealed_folder / "sending.lock")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Conflict("another report is being sent", field="case") from error
            yield


async def unnumbered(store: JobStore, case_id: str) -> list[Unnumbered]:
    """What may be open at the service beside the report that has a number, oldest first."""
    found: list[Unnumbered] = []
    for entry in await store.people.audit.of(case_id):
        if entry.kind == f"{SUBMIT}_begun":
            reference = entry.data.get("reference", "none")
            found.append(Unnumbered(reference, entry.data["host"], entry.at))
        elif entry.kind in (ReportState.SUBMITTED.value, f"{SUBMIT}_refused"):
            found.pop()
    return found


_WHAT = {
    PICTURE: "The picture was made by generative AI and delivered to nobody.",
    TEXT: "These are words that asked for a picture; none was made.",
    SENT: "The picture was sent here by the account, and wasn't taken in.",
}


def _name(case: Case) -> str:
    return f"{case.id}.png" if case.kind == PICTURE else case.id
