"""Webhooks and their outbox in the job store; on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from calotype.core import limits
from calotype.core.errors import IllegalMove, InvalidInput, NotFound
from calotype.core.nouns import Job, Tier
from calotype.jobs.store import JobStore
from calotype.jobs.webhook_tries import Try
from calotype.jobs.webhooks import KINDS, Message, MessageState, Webhook
from tests.rooms.test_jobs import SPEC

LATER = 4_000_000_000.0
URL = "https://example.com/hook"


async def cancelled(store: JobStore, tenant: str = "ada") -> Job:
    """A job that was queued, started and cancelled."""
    job = await store.insert(tenant, Tier.FAST, SPEC)
    await store.lease(job.id, "engine-0")
    return await store.cancel(job.id, by="caller")


def tried(status: int | None = 200, reason: str = "", answer: str = "") -> Try:
    return Try(datetime(2026, 1, 2, tzinfo=UTC), 12, status, reason, answer)


async def taken(store: JobStore, message: Message) -> None:
    await store.webhooks.told(message, tried(), state=MessageState.SENT, due_at=message.due_at)


async def due(store: JobStore) -> list[tuple[str, str]]:
    found = await store.webhooks.due(LATER, 100)
    return [(hook.id, message.kind) for hook, message in found]


async def test_each_event_that_is_wanted_has_a_message_for_each_webhook_of_its_tenant(
    store: JobStore,
) -> None:
    one = await store.webhooks.create("ada", URL, ["started", "cancelled"])
    two = await store.webhooks.create("ada", URL, ["cancelled"])
    other = await store.webhooks.create("bob", URL, KINDS)
    job = await cancelled(store)
    for hook, kinds in ((one, ["started", "cancelled"]), (two, ["cancelled"]), (other, [])):
        messages = await store.webhooks.messages(hook.id, state=None, most=9)
        assert sorted(message.seq for message in messages) == [
            event.seq for event in await store.events(job.id) if event.kind in kinds
        ]
    assert one.kinds == ("started", "cancelled")
    assert await store.webhooks.get(one.id, tenant="ada") == one


async def test_a_move_that_is_refused_writes_no_message(store: JobStore) -> None:
    hook = await store.webhooks.create("ada", URL, KINDS)
    job = await cancelled(store)
    before = await store.webhooks.messages(hook.id, state=None, most=9)
    with pytest.raises(IllegalMove):
        await store.cancel(job.id, by="caller")
    assert await store.webhooks.messages(hook.id, state=None, most=9) == before


async def test_of_a_job_only_the_next_message_is_due(store: JobStore) -> None:
    hook = await store.webhooks.create("ada", URL, ["queued", "started", "cancelled"])
    await cancelled(store)
    await cancelled(store)
    assert await due(store) == [(hook.id, "queued")] * 2
    assert await store.webhooks.due(0.0, 100) == []
    for kind in ("queued", "started", "cancelled"):
        for _, message in await store.webhooks.due(LATER, 100):
            assert message.kind == kind
            await taken(store, message)
    assert await due(store) == []


async def test_of_each_webhook_a_few_are_due_and_none_of_those_left_out(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_MESSAGES_EACH", 2)
    many = await store.webhooks.create("ada", URL, ["cancelled"])
    one = await store.webhooks.create("bob", URL, ["cancelled"])
    jobs = [await cancelled(store) for _ in range(3)]
    other = await cancelled(store, "bob")
    found = await store.webhooks.due(LATER, 3)
    assert [message.job_id for _, message in found] == [jobs[0].id, jobs[1].id, other.id]
    found = await store.webhooks.due(LATER, 3, apart_from=[many.id])
    assert [hook.id for hook, _ in found] == [one.id]
    assert await store.webhooks.due(LATER, 3, apart_from=[many.id, one.id]) == []


async def test_what_was_given_up_is_replayed_and_what_is_over_is_forgotten(store: JobStore) -> None:
    hook = await store.webhooks.create("ada", URL, ["cancelled"])
    await cancelled(store)
    ((_, message),) = await store.webhooks.due(LATER, 9)
    failed = tried(None, "no answer")
    await store.webhooks.told(message, failed, state=MessageState.GIVEN_UP, due_at=0.0)
    (given_up,) = await store.webhooks.messages(hook.id, state=MessageState.GIVEN_UP, most=9)
    assert (given_up.id, given_up.tries, given_up.reason) == (message.id, 1, "no answer")
    assert await store.webhooks.replay(hook.id, message_id=None, now=1.0) == 1
    ((_, again),) = await store.webhooks.due(LATER, 9)
    assert (again.id, again.tries, again.due_at) == (message.id, 0, 1.0)
    with pytest.raises(NotFound):
        await store.webhooks.replay(hook.id, message_id="msg_other", now=1.0)
    assert await store.webhooks.forget(before=datetime.now(UTC) + timedelta(1)) == 0
    await taken(store, again)
    assert await store.webhooks.forget(before=datetime.now(UTC) + timedelta(1)) == 1


async def test_the_newest_tries_of_a_message_are_kept_as_long_as_it_is(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_TRIES_KEPT_MAX", 3)
    hook = await store.webhooks.create("ada", URL, ["started", "cancelled"])
    await cancelled(store)
    ((_, message),) = await store.webhooks.due(LATER, 9)
    waiting = MessageState.WAITING
    for number in range(5):
        failed = tried(500 + number, "it failed", answer=f"<h1>{number} \ufffd</h1>")
        await store.webhooks.told(message, failed, state=waiting, due_at=0.0)
    found = await store.webhooks.tries(await store.webhooks.message(hook.id, message.id))
    assert [each.status for each in found] == [504, 503, 502]
    assert found[0] == tried(504, "it failed", "<h1>4 \ufffd</h1>")
    await taken(store, message)
    ((_, other),) = await store.webhooks.due(LATER, 9)
    await store.webhooks.told(other, tried(500), state=waiting, due_at=0.0)
    assert await store.webhooks.forget(before=datetime.now(UTC) + timedelta(1)) == 1
    assert await store.webhooks.tries(message) == []
    assert len(await store.webhooks.tries(other)) == 1
    await store.webhooks.remove(hook.id)
    assert await store.webhooks.tries(other) == []
    await store.webhooks.told(other, tried(), state=MessageState.SENT, due_at=0.0)  # too late
    assert await store.webhooks.tries(other) == []


async def test_a_webhook_that_is_off_gets_nothing(store: JobStore) -> None:
    hook = await store.webhooks.create("ada", URL, ["cancelled"])
    off: Webhook = await store.webhooks.enable(hook.id, is_on=False, reason="gone")
    assert (off.disabled_at is not None, off.disabled_reason) == (True, "gone")
    await cancelled(store)
    assert await store.webhooks.messages(hook.id, state=None, most=9) == []
    await store.webhooks.enable(hook.id, is_on=True)
    await cancelled(store)
    assert await due(store) == [(hook.id, "cancelled")]
    await store.webhooks.enable(hook.id, is_on=False)
    assert await due(store) == []
    await store.webhooks.remove(hook.id)
    assert await store.webhooks.every() == []


@pytest.mark.parametrize("kinds", [[], ["made"], ["queued", "step"]])
async def test_only_events_of_the_list_can_be_wanted(store: JobStore, kinds: list[str]) -> None:
    with pytest.raises(InvalidInput):
        await store.webhooks.create("ada", URL, kinds)
