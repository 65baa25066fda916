"""Stands in for the reporting service: real HTTP, the documented answers, and crashes on demand."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes

from tests.receiver import Came, answered, receiving

USER, PASSWORD = "usr123", "pswd123"
_AUTH = "basic dXNyMTIzOnBzd2QxMjM="


@dataclass
class Report:
    """What the service holds of one report."""

    document: str
    files: dict[str, bytes] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)  # documents of /fileinfo, by file
    state: str = "open"  # "finished" or "retracted"


@dataclass
class Service:
    """What came, and how it misbehaves: after so many calls it carries one out and is silent."""

    url: str = ""
    reports: dict[str, Report] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    crash_after: int = -1  # index of the call whose answer never comes
    crash_before: int = -1  # of the call that isn't even carried out

    def finished(self) -> list[str]:
        return [number for number, it in self.reports.items() if it.state == "finished"]

    def hear(self, came: Came) -> bytes:
        """What is answered to a call; nothing, and an end, where it crashes."""
        call, number = came.path.strip("/"), len(self.calls)
        self.calls.append(call)
        if number == self.crash_before:
            return b""
        status, said = self.answer(call, came.headers, came.body)
        if number == self.crash_after:
            return b""
        document = f'<?xml version="1.0" encoding="UTF-8"?>{said}' if said else ""
        return answered(status, document.encode())

    def answer(self, call: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        if headers.get("authorization", "").lower() != _AUTH.lower():
            return 401, ""
        if call == "submit":
            number = str(4711 + len(self.reports))
            self.reports[number] = Report(body.decode())
            return 200, _said(number)
        if call == "fileinfo":
            number, file_id = (_element(body, name) for name in ("reportId", "fileId"))
            self.reports[number].details[file_id] = body.decode()
            return 200, _said(number)
        given = _form(headers["content-type"], body)
        report = self.reports[given["id"].decode()]
        return 200, getattr(self, f"_{call}")(given["id"].decode(), report, given)

    def _upload(self, number: str, report: Report, given: dict[str, bytes]) -> str:
        if report.state != "open":
            return _refused(5102 if report.state == "finished" else 5101)
        file_id = f"file-{len(report.files)}"
        report.files[file_id] = given["file"]
        return _said(number, f"<fileId>{file_id}</fileId><hash>0</hash>")

    def _finish(self, number: str, report: Report, _: dict[str, bytes]) -> str:
        if report.state != "open":
            return _refused(5102 if report.state == "finished" else 5101)
        report.state = "finished"
        files = "".join(f"<fileId>{each}</fileId>" for each in report.files)
        return (
            f"<reportDoneResponse><responseCode>0</responseCode><reportId>{number}</reportId>"
            f"<files>{files}</files></reportDoneResponse>"
        )

    def _retract(self, number: str, report: Report, _: dict[str, bytes]) -> str:
        if report.state != "open":
            return _refused(5102 if report.state == "finished" else 5101)
        report.state = "retracted"
        return _said(number)


def _said(number: str, more: str = "") -> str:
    return (
        "<reportResponse><responseCode>0</responseCode><responseDescription>Success"
        f"</responseDescription><reportId>{number}</reportId>{more}</reportResponse>"
    )


def _refused(code: int) -> str:
    return (
        f"<reportResponse><responseCode>{code}</responseCode><responseDescription>no"
        "</responseDescription></reportResponse>"
    )


def _element(body: bytes, name: str) -> str:
    found = re.search(f"<{name}>([^<]*)</{name}>".encode(), body)
    assert found is not None
    return found.group(1).decode()


def _form(content_type: str, body: bytes) -> dict[str, bytes]:
    if not content_type.startswith("multipart/"):
        name, _, value = body.partition(b"=")
        return {name.decode(): value}
    whole = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts = {}
    for part in whole.walk():
        if named := part.get_param("name", header="content-disposition"):
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            parts[str(named)] = payload
    return parts


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    """The service on a free port of this machine."""
    async with receiving() as receiver:
        service = Service(receiver.url.removesuffix("/hook"))
        receiver.answer = service.hear
        yield service
