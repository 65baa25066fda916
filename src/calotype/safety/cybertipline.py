"""The CyberTipline's reporting API, as documented by NCMEC: its documents, and one call at a time.

The way of a report is ``/submit`` (it gets a number), ``/upload`` and ``/fileinfo`` for its file,
then ``/finish``; until then ``/retract`` takes it back. A call either has an answer, or nobody
knows how it went (``NoAnswer``): what follows from that is for the caller to say. Nothing here
decides to send anything.

Its schema (``/xsd``) wasn't at hand: the documents hold the few elements that are documented, in
the documented order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import ClassVar, Self
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import httpx

from calotype.core import limits
from calotype.core.errors import OperatorError

# Of 18 U.S.C. 2258A, as the service names it.
INCIDENT = "Child Pornography (possession, manufacture, and distribution)"
OK, ALREADY_RETRACTED, ALREADY_FINISHED = "0", "5101", "5102"
_XML = {"Content-Type": "text/xml; charset=utf-8"}


class ReportFailed(OperatorError):
    """The service refused a call; ``code`` is its own."""

    kind: ClassVar[str] = "report-failed"
    title: ClassVar[str] = "The reporting service refused"

    def __init__(self, call: str, code: str, said: str) -> None:
        super().__init__(f"{call}: the service refused ({code}): {said}", field=call)
        self.code = code


class NoAnswer(OperatorError):
    """A call was made, or may have been, and what became of it isn't known."""

    kind: ClassVar[str] = "report-unanswered"
    title: ClassVar[str] = "The reporting service gave no answer"


class NotReached(NoAnswer):
    """There was no connection, so the call wasn't made."""


@dataclass(frozen=True)
class Found:
    """What a report tells."""

    at: datetime  # when it was found
    account: str  # who asked for it, as this installation names them
    reporter: str  # e-mail address of who reports
    details: str  # which check found what
    reference: str  # ours, by which the report can be found there should its number never come
    words: str = ""  # what was asked for, where that is all there is


def report_xml(found: Found) -> bytes:
    """The document of ``/submit``."""
    more = f"Our reference: {found.reference}. {found.details}"
    more += f"\n\n{found.words}" if found.words else ""
    return _document(
        "report",
        f"""<incidentSummary>
<incidentType>{escape(INCIDENT)}</incidentType>
<incidentDateTime>{found.at.isoformat(timespec="seconds")}</incidentDateTime>
</incidentSummary>
<reporter><reportingPerson><email>{escape(found.reporter)}</email></reportingPerson></reporter>
<personOrUserReported><espIdentifier>{_text(found.account)}</espIdentifier></personOrUserReported>
<additionalInfo>{_text(more)}</additionalInfo>""",
    )


def file_xml(report_id: str, file_id: str, name: str, *, is_made: bool) -> bytes:
    """The document of ``/fileinfo``; ``is_made``: by generative AI, here."""
    annotated = "<fileAnnotations><generativeAi/></fileAnnotations>" if is_made else ""
    return _document(
        "fileDetails",
        f"""<reportId>{escape(report_id)}</reportId>
<fileId>{escape(file_id)}</fileId>
<originalFileName>{escape(name)}</originalFileName>
{annotated}""",
    )


class CyberTipline:
    """A connection to the service, or to its test host."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            auth=(user, password), timeout=limits.REPORT_S_MAX, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def submit(self, document: bytes) -> str:
        """Open a report; returns its number. Raises ReportFailed, NoAnswer, as all of these."""
        answer = await self._call("submit", content=document, headers=_XML)
        return _needed("submit", answer, "reportId")

    async def upload(self, report_id: str, name: str, data: bytes) -> str:
        """Add a file; returns its id."""
        files = {"file": (name, data)}
        answer = await self._call("upload", data={"id": report_id}, files=files)
        return _needed("upload", answer, "fileId")

    async def describe(self, document: bytes) -> None:
        """Tell of a file that was added; doing so again does no harm."""
        await self._call("fileinfo", content=document, headers=_XML)

    async def finish(self, report_id: str) -> None:
        """Send it; one that is finished already stays so."""
        await self._once("finish", report_id, ALREADY_FINISHED)

    async def retract(self, report_id: str) -> None:
        """Take back what isn't finished; again it does no harm."""
        await self._once("retract", report_id, ALREADY_RETRACTED)

    async def _once(self, call: str, report_id: str, already: str) -> None:
        try:
            answer = await self._call(call, data={"id": report_id})
        except ReportFailed as error:
            if error.code != already:
                raise
            return
        if answer.get("reportId", report_id) != report_id:
            raise NoAnswer(f"{call}: the answer is of another report", field=call)

    async def _call(self, call: str, **given: object) -> Mapping[str, str]:
        try:
            async with self._http.stream("POST", f"{self.url}/{call}", **given) as answer:  # type: ignore[arg-type]
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > limits.REPORT_ANSWER_BYTES_MAX:
                        raise NoAnswer(f"{call}: the answer is too long", field=call)
        except httpx.HTTPError as error:
            is_away = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise (NotReached if is_away else NoAnswer)(
                f"{call}: no answer from {self.url}: {error!r}", field=call
            ) from error
        if answer.status_code in (401, 403):
            raise ReportFailed(call, str(answer.status_code), "user and password aren't taken")
        return _answered(call, body)


def _answered(call: str, body: bytes) -> Mapping[str, str]:
    """What an answer says, by element. Raises NoAnswer for what isn't one, ReportFailed."""
    if b"<!" in body:  # an entity could be anything; answers have neither those nor comments
        raise NoAnswer(f"{call}: the answer isn't one of the service's", field=call)
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - it can't declare any entity
    except ElementTree.ParseError as error:
        raise NoAnswer(f"{call}: the answer isn't XML", field=call) from error
    wanted = "reportDoneResponse" if call == "finish" else "reportResponse"
    said = {element.tag: (element.text or "").strip() for element in root}
    code = said.get("responseCode", "")
    if code and code != OK:
        raise ReportFailed(call, code, said.get("responseDescription", "no reason")[:500])
    if root.tag != wanted or not code:
        raise NoAnswer(f"{call}: the answer isn't one of the service's", field=call)
    return said


def _needed(call: str, answer: Mapping[str, str], name: str) -> str:
    if not answer.get(name):
        raise NoAnswer(f"{call}: the answer has no {name}", field=call)
    return answer[name]


def _document(root: str, body: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>\n{body}\n</{root}>\n'.encode()


def _text(text: str) -> str:
    """Text as XML can hold it: what isn't allowed there at all is left out."""
    kept = "".join(
        character
        for character in text
        if character in "\t\n\r" or (character >= " " and not "\ud800" <= character <= "\udfff")
        if character not in "\ufffe\uffff"
    )
    return escape(kept)
