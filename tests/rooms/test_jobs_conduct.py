"""Strikes that add up to suspensions, and cases that are on hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from calotype.core.conduct import Strike, StrikeRule
from calotype.core.errors import IllegalMove, InvalidInput, NotFound, OnHold
from calotype.core.states import ReportState
from calotype.jobs.cases import PICTURE, TEXT, Case
from calotype.jobs.files import RemovalKind
from calotype.jobs.store import JobStore
from tests.rooms.test_jobs import pictures, queue

RULE = StrikeRule("repeated-refusals", 3, 5, 3600.0, 600.0)
SEVERE = StrikeRule("severe", 1, 3, 3600.0, None)
STRIKE = Strike("acme", "ada", "violence", False, "blocklist", "pg13-1-abcd")
NOW = datetime.now(UTC)


async def strike(store: JobStore, count: int = 1, user: str = "ada") -> list[str]:
    made = []
    for _ in range(count):
        made += await store.people.strikes.add(replace(STRIKE, user=user), RULE)
    return [f"{one.tenant}/{one.user}" for one in made]


async def test_strikes_within_the_window_suspend_their_user_for_a_time(store: JobStore) -> None:
    strikes = store.people.strikes
    assert await strike(store, 2) == []
    assert await strikes.suspended("acme", "ada") is None
    assert await strike(store) == ["acme/ada"]
    held = await strikes.suspended("acme", "ada")
    assert held is not None
    assert held.until is not None
    assert (held.until - held.at).total_seconds() == 600
    assert await strikes.suspended("acme", "bob") is None
    assert await strikes.suspended("others", "ada") is None


async def test_many_users_of_a_tenant_suspend_all_of_it(store: JobStore) -> None:
    for user in ("ada", "bob"):
        assert await strike(store, 2, user) == []
    assert await strike(store, 1, "cay") == ["acme/None"]
    held = await store.people.strikes.suspended("acme", "somebody else")
    assert held is not None
    assert held.user is None


async def test_what_a_suspension_was_for_does_not_count_again(store: JobStore) -> None:
    assert await strike(store, 3) == ["acme/ada"]
    assert await strike(store, 1) == []


async def test_strikes_outside_the_window_do_not_count(store: JobStore) -> None:
    short = replace(RULE, window_s=-1.0)
    for _ in range(5):
        assert await store.people.strikes.add(STRIKE, short) == []


async def test_a_picture_counts_once_however_often_its_attempt_is_made_again(
    store: JobStore,
) -> None:
    job = await queue(store)
    one = replace(STRIKE, job_id=job.id, index=0)
    for _ in range(4):
        await store.people.strikes.add(one, RULE)
    assert [it["count"] for it in await store.people.strikes.counts("acme")] == [1]


async def test_a_severe_one_holds_until_a_person_lifts_it_with_a_reason(store: JobStore) -> None:
    strikes = store.people.strikes
    await strikes.add(replace(STRIKE, is_severe=True, category="sexual_minors"), SEVERE)
    held = await strikes.suspended("acme", "ada")
    assert held is not None
    assert held.until is None
    with pytest.raises(InvalidInput):
        await strikes.lift("acme", "ada", by="operator", reason="  ")
    assert await strikes.lift("acme", "ada", by="operator", reason="a mistake of the check") == 1
    assert await strikes.suspended("acme", "ada") is None
    assert await strikes.counts() == []
    with pytest.raises(NotFound):
        await strikes.lift("acme", "ada", by="operator", reason="again")
    [entry] = [it for it in await store.people.audit.of("acme") if it.kind == "lifted"]
    assert entry.data["reason"] == "a mistake of the check"


def case(**more: object) -> Case:
    made = Case(
        "case_1", TEXT, "acme", "ada", None, None, "sexual_minors", "blocklist", "1",
        "pg13-1-abcd", "a" * 64, "case_1", NOW, NOW + timedelta(days=365), ReportState.PREPARED,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


async def test_a_picture_has_one_case(store: JobStore) -> None:
    job = await queue(store)
    made = case(kind=PICTURE, job_id=job.id, index=0)
    assert await store.people.cases.open(made)
    assert not await store.people.cases.open(replace(made, id="case_2"))
    assert [it.id for it in await store.people.cases.every()] == ["case_1"]


async def test_a_reports_answers_are_kept_and_its_states_are_the_tables(store: JobStore) -> None:
    cases = store.people.cases
    await cases.open(case())
    begun = await cases.begin("case_1", "submit", host="http://127.0.0.1", by="ada")
    assert (begun.begun, begun.state) == ("submit", ReportState.PREPARED)
    after = await cases.answered("case_1", ReportState.SUBMITTED, by="ada", report_id="4711")
    assert (after.begun, after.report_id) == ("", "4711")
    with pytest.raises(IllegalMove):
        await cases.answered("case_1", ReportState.DESCRIBED, by="ada")
    done = await cases.answered("case_1", ReportState.FINISHED, by="ada")
    assert done.finished_at is not None
    kinds = [entry.kind for entry in await store.people.audit.of("case_1")]
    assert kinds == ["opened", "submit_begun", "submitted", "finished"]


async def test_a_hold_beats_deletion_and_retention_and_ends_with_its_term(store: JobStore) -> None:
    lease = await store.lease((await queue(store)).id, "cpu-0")
    job = await store.succeed(lease, pictures(lease.job_id))
    await store.people.cases.open(case(kind=PICTURE, job_id=job.id, index=0))
    image = job.images[0].id
    later = datetime.now(UTC) + timedelta(days=1)
    for kind in (RemovalKind.DELETED, RemovalKind.EXPIRED):
        with pytest.raises(OnHold):
            await store.files.take_away(image, kind, by="ada", reason="", tenant="ada")
    assert await store.files.due("fast", before=later, most=10) == []
    taken = await store.files.take_away(image, RemovalKind.WITHDRAWN, by="operator", reason="")
    assert taken.kind is RemovalKind.WITHDRAWN, "out of delivery, and kept apart"
    await store.people.cases._note("case_1", "test", "test", {}, kept_until=NOW)
    assert len(await store.files.due("fast", before=later, most=10)) == 1
    await store.files.take_away(image, RemovalKind.DELETED, by="operator", reason="")
