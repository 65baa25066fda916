"""What is kept of severe cases: sealed, shown to two people, for its term, whatever else is lost.

What is sealed here is a benign picture, or a few harmless words: never anything else.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from calotype.core.errors import Conflict, Forbidden, InternalError, NotFound, OperatorError
from calotype.flow.conduct import Conductor
from calotype.flow.sealed import sealed_parts
from calotype.jobs.cases import PICTURE, SENT, TEXT, Case
from calotype.jobs.store import JobStore
from calotype.safety.conduct import Conduct
from tests.flow.test_reports import ADA, BOB, CANARY, FOUND, Desk, desk, key
from tests.laid import lay

__all__ = ["desk"]  # a fixture


async def test_a_case_is_opened_by_two_people_and_written_down_before(desk: Desk) -> None:
    case = await desk.case()
    for second in (ADA, replace(BOB, id=ADA.id), replace(ADA, id="key_other"), key("eve", "jobs")):
        with pytest.raises(Forbidden):
            await desk.book.look(case.id, ADA, second, reason="to look")
    assert len(await desk.store.people.audit.of(case.id)) == 1
    assert await desk.book.look(case.id, ADA, BOB, reason="to look") == CANARY
    entry = (await desk.store.people.audit.of(case.id))[-1]
    assert (entry.kind, entry.by) == ("opened_by_two", "staff/ada and staff/bob")
    assert entry.data["reason"] == "to look"


async def test_nobody_sees_anything_that_can_not_be_written_down(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = await desk.case()

    async def full(*_: object) -> None:
        raise OperatorError("the disk is full")

    monkeypatch.setattr(desk.store.people.audit, "note", full)
    opened: list[str] = []
    book = desk.book
    monkeypatch.setattr(book._sealed, "open", opened.append)
    with pytest.raises(OperatorError, match="full"):
        await book.look(case.id, ADA, BOB, reason="to look")
    assert opened == []


async def test_what_is_not_what_was_found_is_not_shown(desk: Desk) -> None:
    case = await desk.case()
    await desk.book._sealed.seal(case.sealed, b"another")
    with pytest.raises(InternalError):
        await desk.book.look(case.id, ADA, BOB, reason="to look")


async def test_what_a_crash_left_without_a_record_is_kept_for_the_term_all_the_same(
    desk: Desk,
) -> None:
    case = await desk.case()
    await desk.book._sealed.seal("case_lost", CANARY)
    await desk.book.sweep()
    assert await desk.book._sealed.open("case_lost") == CANARY, "it may be evidence"
    desk.settings = desk.settings.model_copy(update={"kept_by_law_days": -1.0})
    await desk.book.sweep()
    with pytest.raises(NotFound):
        await desk.book._sealed.open("case_lost")
    assert await desk.book._sealed.open(case.sealed) == CANARY


async def test_a_case_outlives_a_database_that_was_restored_from_before_it(
    desk: Desk, tmp_path: Path
) -> None:
    sent, waiting = await desk.case(), await desk.case(TEXT, b"a few harmless words")
    done = await desk.reports.send(sent.id, ADA)
    lay(tmp_path / "restored.db")
    store = await JobStore.open(f"sqlite+aiosqlite:///{tmp_path / 'restored.db'}")
    again = replace(desk, store=store)
    pictures, _ = sealed_parts(desk.settings)
    conductor = Conductor(store, Conduct.shipped(), again.book, pictures)
    try:
        for _ in range(2):
            await conductor.recover()
            await again.book.sweep()
            cases = {case.id: case for case in await store.people.cases.every()}
            # The job is gone with the database; how far the report had come isn't.
            assert cases == {
                sent.id: replace(done, job_id=None, index=None),
                waiting.id: waiting,
            }
        assert await again.book.unsealed(cases[sent.id]) == CANARY
        with pytest.raises(Conflict, match="finished"):
            await again.reports.send(sent.id, ADA)
        [entry] = await store.people.audit.of(sent.id)
        assert (entry.kind, entry.data["job"]) == ("recovered", sent.job_id)
        frozen = await store.people.strikes.suspensions()
        assert {(it.tenant, it.user, it.until) for it in frozen} == {("acme", "ada", None)}
    finally:
        await store.close()


async def test_a_case_whose_record_was_not_written_for_a_crash_is_taken_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(_: Case) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(desk.store.people.cases, "open", killed)
        with pytest.raises(KeyboardInterrupt):
            await desk.book.open(SENT, "acme", "ada", verdict=FOUND, data=CANARY)
    [case] = await desk.book.recover()
    assert (case.kind, await desk.book.unsealed(case)) == (SENT, CANARY)
    assert await desk.book.recover() == []


async def test_a_record_that_was_changed_is_not_taken_up_and_hinders_no_other(desk: Desk) -> None:
    first, second = await desk.case(SENT), await desk.case(SENT)
    lay(desk.settings.home / "restored.db")
    store = await JobStore.open(f"sqlite+aiosqlite:///{desk.settings.home / 'restored.db'}")
    [file] = (desk.settings.sealed_folder / "cases").glob(f"{first.id}-record*")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert [it.id for it in await replace(desk, store=store).book.recover()] == [second.id]
    await store.close()


async def test_it_is_kept_for_its_term_and_no_longer(desk: Desk) -> None:
    case = await desk.case()
    assert case.kept_until - case.opened_at == timedelta(days=365)
    assert await desk.book.let_go() == 0
    past = datetime.now(UTC) - timedelta(seconds=1)
    await desk.store.people.cases._note(case.id, "test", "test", {}, kept_until=past)
    assert await desk.book.let_go() == 1
    with pytest.raises(NotFound):
        await desk.book._sealed.open(case.id)
    assert await desk.book._sealed.names() == []
    assert (await desk.store.people.audit.of(case.id))[-1].kind == "destroyed"


async def test_the_same_picture_of_a_job_is_one_case(desk: Desk) -> None:
    case = await desk.case()
    for _ in range(2):
        await desk.book.open(
            PICTURE, "acme", "ada", verdict=FOUND, data=CANARY, job_id=case.job_id, index=0
        )
    assert len(await desk.store.people.cases.every()) == 1
    folder = desk.settings.sealed_folder / "cases"
    assert [path.name for path in sorted(folder.glob("*.sealed"))] == [
        f"{case.id}-record.sealed",
        f"{case.id}.sealed",
    ]
