"""Severe cases and their reports: against a stand-in that crashes after each call.

What is sealed here is a benign picture, or a few harmless words: never anything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from calotype.core.errors import (
    CalotypeError,
    Conflict,
    Forbidden,
    OperatorError,
)
from calotype.core.nouns import Key, Verdict, VerdictKind
from calotype.core.states import ReportState
from calotype.flow.cases import CaseBook
from calotype.flow.reports import Reports, unnumbered
from calotype.flow.sealed import sealed_parts
from calotype.jobs.cases import PICTURE, SENT, TEXT, Case
from calotype.jobs.store import JobStore
from calotype.safety.cybertipline import NoAnswer, NotReached, ReportFailed
from calotype.settings import REPORTS_TEST_HOST, Settings
from tests.cybertipline import PASSWORD, USER, Service, serving
from tests.laid import lay
from tests.pictures import file_of, picture
from tests.rooms.test_jobs import queue

CANARY = file_of(picture())
FOUND = Verdict(VerdictKind.BLOCK, "known:canaries", "2-a", "known", 0.9, policy="pg13-1-abcd")
NOW = datetime.now(UTC)


def key(name: str, *scopes: str) -> Key:
    return Key(f"key_{name}", "staff", name, name, scopes or ("cases",), NOW, None)


ADA, BOB = key("ada"), key("bob")


@dataclass
class Desk:
    """Where a case is kept and reported from."""

    settings: Settings
    store: JobStore
    service: Service

    @property
    def book(self) -> CaseBook:
        _, sealed = sealed_parts(self.settings)
        return CaseBook(self.store, sealed, kept_days=self.settings.kept_by_law_days)

    @property
    def reports(self) -> Reports:
        """A sender as a new process makes it: it knows what the store knows."""
        return Reports(self.settings, self.store, self.book)

    async def case(self, kind: str = PICTURE, data: bytes = CANARY) -> Case:
        job = await queue(self.store)
        made = {"job_id": job.id, "index": 0} if kind == PICTURE else {}
        await self.book.open(kind, "acme", "ada", verdict=FOUND, data=data, **made)  # type: ignore[arg-type]
        return (await self.store.people.cases.every())[-1]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    login = tmp_path / "login"
    login.write_text(f"{USER}\n{PASSWORD}\n")
    async with serving() as service:
        settings = Settings(
            home=tmp_path,
            reports_url=service.url,
            reports_login=login,
            reports_contact="safety@example.org",
        )
        lay(tmp_path / "calotype.db")
        store = await JobStore.open(settings.database)
        yield Desk(settings, store, service)
        await store.close()


# Reports.


async def test_a_report_goes_its_documented_way_and_is_finished_once(desk: Desk) -> None:
    case = await desk.case()
    assert desk.service.calls == [], "prepared: nothing is sent by itself"
    done = await desk.reports.send(case.id, ADA)
    assert desk.service.calls == ["submit", "upload", "fileinfo", "finish"]
    assert done.state is ReportState.FINISHED
    [report] = desk.service.reports.values()
    assert report.state == "finished"
    assert list(report.files.values()) == [CANARY]
    [details] = report.details.values()
    assert "<fileAnnotations><generativeAi/></fileAnnotations>" in details
    assert "<email>safety@example.org</email>" in report.document
    assert "<espIdentifier>acme/ada</espIdentifier>" in report.document
    assert case.file_sha256 in report.document
    assert done.kept_until >= case.kept_until, "its term begins anew"
    with pytest.raises(Conflict, match="finished"):
        await desk.reports.send(case.id, ADA)
    assert len(desk.service.calls) == 4


@pytest.mark.parametrize("way", ["crash_after", "crash_before"])
@pytest.mark.parametrize("call", range(4))
async def test_a_crash_at_any_call_leads_to_just_one_finished_report(
    desk: Desk, call: int, way: str
) -> None:
    case = await desk.case()
    setattr(desk.service, way, call)
    with pytest.raises(NoAnswer):
        await desk.reports.send(case.id, ADA)
    assert len(desk.service.finished()) <= 1
    done = await desk.reports.send(case.id, ADA)
    assert done.state is ReportState.FINISHED
    [number] = desk.service.finished()
    assert number == done.report_id
    assert list(desk.service.reports[number].files.values()) == [CANARY], "once"
    assert len(desk.service.reports[number].details) == 1


@pytest.mark.parametrize("call", range(1, 9))
async def test_a_process_that_dies_between_two_calls_goes_on_by_the_reports_number(
    desk: Desk, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after an answer came and before it was written, or before the call was made."""
    case = await desk.case()
    cases, made = desk.store.people.cases, 0
    for name in ("begin", "answered"):
        whole = getattr(cases, name)

        async def dying(*args: object, _whole: object = whole, **more: object) -> object:
            nonlocal made
            made += 1
            if made == call:
                raise KeyboardInterrupt
            return await _whole(*args, **more)  # type: ignore[operator]

        monkeypatch.setattr(cases, name, dying)
    with pytest.raises(KeyboardInterrupt):
        await desk.reports.send(case.id, ADA)
    monkeypatch.undo()
    done = await desk.reports.send(case.id, ADA)
    assert desk.service.finished() == [done.report_id]
    assert len(desk.service.reports[done.report_id].files) == 1


async def test_a_report_whose_number_never_came_is_told_by_our_reference(desk: Desk) -> None:
    case = await desk.case()
    for way, call in (("crash_after", 0), ("crash_before", 1)):
        setattr(desk.service, way, call)
        with pytest.raises(NoAnswer):
            await desk.reports.send(case.id, ADA)
    done = await desk.reports.send(case.id, ADA)
    lost = await unnumbered(desk.store, case.id)
    assert [(it.reference, it.host) for it in lost] == [
        (f"{case.id}-{at}", desk.service.url) for at in (1, 2)
    ]
    [orphan] = [number for number, it in desk.service.reports.items() if it.state == "open"]
    assert lost[0].reference in desk.service.reports[orphan].document
    assert f"{case.id}-3." in desk.service.reports[done.report_id].document


async def test_what_was_refused_or_reached_nobody_left_nothing_open(desk: Desk) -> None:
    case, given = await desk.case(), desk.settings
    assert given.reports_login is not None
    given.reports_login.write_text("usr123\nwrong\n")
    with pytest.raises(ReportFailed, match="401"):
        await desk.reports.send(case.id, ADA)
    desk.settings = given.model_copy(update={"reports_url": "http://127.0.0.1:9"})
    with pytest.raises(NotReached):
        await desk.reports.send(case.id, ADA)
    assert await unnumbered(desk.store, case.id) == []
    assert (await desk.store.people.cases.get(case.id)).begun == ""


async def test_words_alone_are_reported_without_a_file(desk: Desk) -> None:
    case = await desk.case(TEXT, b'{"prompt": "a harmless canary & <nothing> else"}')
    await desk.reports.send(case.id, ADA)
    assert desk.service.calls == ["submit", "finish"]
    [report] = desk.service.reports.values()
    assert "a harmless canary &amp; &lt;nothing&gt; else" in report.document


async def test_a_picture_that_was_sent_here_is_not_called_generated(desk: Desk) -> None:
    await desk.reports.send((await desk.case(SENT)).id, ADA)
    [report] = desk.service.reports.values()
    assert "generativeAi" not in "".join(report.details.values())


async def test_a_report_is_retracted_before_it_is_finished_and_then_never_sent(
    desk: Desk,
) -> None:
    begun, fresh = await desk.case(), await desk.case(TEXT)
    desk.service.crash_before = 1
    with pytest.raises(NoAnswer):
        await desk.reports.send(begun.id, ADA)
    assert (await desk.reports.retract(begun.id, ADA)).state is ReportState.RETRACTED
    assert [it.state for it in desk.service.reports.values()] == ["retracted"]
    calls = len(desk.service.calls)
    assert (await desk.reports.retract(fresh.id, ADA)).state is ReportState.RETRACTED
    for case in (begun, fresh):
        with pytest.raises(Conflict, match="retracted"):
            await desk.reports.send(case.id, ADA)
    assert len(desk.service.calls) == calls


async def test_what_the_service_refuses_is_told_and_nothing_is_taken_for_an_answer(
    desk: Desk,
) -> None:
    case = await desk.case()
    assert desk.settings.reports_login is not None
    desk.settings.reports_login.write_text("usr123\nwrong\n")
    with pytest.raises(ReportFailed, match="401"):
        await desk.reports.send(case.id, ADA)
    assert (await desk.store.people.cases.get(case.id)).state is ReportState.PREPARED
    desk.settings.reports_login.write_text(f"{USER}\n{PASSWORD}\n")
    evil = '<!DOCTYPE r [<!ENTITY a "4711">]><reportResponse>&a;</reportResponse>'
    answers = [
        *("", "no XML", "<html/>", evil, "x" * 100_000),
        "<reportResponse><responseCode>0</responseCode></reportResponse>",
        "<reportResponse><reportId>1</reportId></reportResponse>",
    ]
    for answer in answers:
        desk.service.answer = lambda *given, answer=answer: (200, answer)  # type: ignore[method-assign]
        with pytest.raises(NoAnswer):
            await desk.reports.send(case.id, ADA)
    assert (await desk.store.people.cases.get(case.id)).state is ReportState.PREPARED


@pytest.mark.parametrize("missing", ["reports_login", "reports_contact"])
async def test_nothing_is_sent_before_an_operator_has_said_who_and_as_whom(
    desk: Desk, missing: str
) -> None:
    case = await desk.case()
    desk.settings = desk.settings.model_copy(update={missing: None})
    with pytest.raises(OperatorError) as error:
        await desk.reports.send(case.id, ADA)
    assert error.value.field == missing
    assert desk.service.calls == []


def test_where_nothing_is_said_it_is_the_test_host(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.reports_url == REPORTS_TEST_HOST
    assert "//exttest." in REPORTS_TEST_HOST
    assert settings.reports_login is None


async def test_a_report_that_was_begun_elsewhere_is_not_sent_here(desk: Desk) -> None:
    case = await desk.case()
    desk.service.crash_after = 1
    with pytest.raises(NoAnswer):
        await desk.reports.send(case.id, ADA)
    desk.settings = desk.settings.model_copy(update={"reports_url": "http://127.0.0.1:1"})
    with pytest.raises(Conflict, match="begun at"):
        await desk.reports.send(case.id, ADA)


async def test_who_sends_needs_a_key_for_cases_and_is_written_down(desk: Desk) -> None:
    case = await desk.case()
    with pytest.raises(Forbidden):
        await desk.reports.send(case.id, key("eve", "jobs", "review"))
    await desk.reports.send(case.id, BOB)
    trail = await desk.store.people.audit.of(case.id)
    assert {entry.by for entry in trail[1:]} == {"staff/bob"}
    assert [entry.kind for entry in trail] == [
        *("opened", "submit_begun", "submitted", "upload_begun", "uploaded"),
        *("fileinfo_begun", "described", "finish_begun", "finished"),
    ]
    assert await desk.store.people.audit.verify() == len(trail)


async def test_two_do_not_send_at_once(desk: Desk) -> None:
    """From another process: the lock is the process's."""
    case = await desk.case()
    lock = desk.settings.sealed_folder / "sending.lock"
    lock.touch()
    script = (
        "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    other = await asyncio.create_subprocess_exec(
        "python3", "-c", script, str(lock),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert other.stdout is not None
    await other.stdout.readline()
    with pytest.raises(Conflict, match="being sent"):
        await desk.reports.send(case.id, ADA)
    other.kill()
    await other.wait()
    assert (await desk.reports.send(case.id, ADA)).state is ReportState.FINISHED


def test_every_error_of_the_service_is_one_of_ours() -> None:
    assert issubclass(ReportFailed, CalotypeError)
    assert issubclass(NoAnswer, CalotypeError)
