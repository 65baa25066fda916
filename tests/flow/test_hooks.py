"""Telling tenants of their jobs: in order, again and again, never twice under another id.

The store, the receiver and the connection are real; only the clock is a number.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from calotype.core import limits
from calotype.core.errors import InvalidInput, LeaseLost, NotFound, TooMany
from calotype.core.nouns import Job, Tier
from calotype.delivery.targets import NotPublic
from calotype.flow.hooks import JITTER, REST_S_MAX, WAITS_S, Hooks
from calotype.jobs.store import JobStore
from calotype.jobs.webhooks import KINDS, MessageState, Webhook
from tests.flow.dispatch_bench import SPEC, eventually
from tests.laid import opened_in
from tests.receiver import Came, Receiver, answered, receiving

ALL = ("queued", "started", "cancelled")


@dataclass
class House:
    """A store, its webhooks, and a clock that the test turns."""

    store: JobStore
    receiver: Receiver
    now: list[float] = field(default_factory=lambda: [2_000_000_000.0])

    def __post_init__(self) -> None:
        self.hooks = Hooks(
            self.store,
            bytes(32),
            lambda job, image: {"url": f"/{image.id}"},
            allow_private=True,
            clock=lambda: self.now[0],
        )

    async def hook(self, tenant: str = "ada", kinds: tuple[str, ...] = ALL) -> Webhook:
        hook, _ = await self.hooks.create(tenant, self.receiver.url, kinds)
        return hook

    async def job(self, tenant: str = "ada") -> Job:
        """Queued, started, cancelled: three events."""
        job = await self.store.insert(tenant, Tier.FAST, SPEC)
        await self.store.lease(job.id, "engine-0")
        return await self.store.cancel(job.id, by="caller")

    async def send(self) -> None:
        """Send until nothing more is begun."""
        while begun := await self.hooks.begin_due():
            await asyncio.gather(*begun)
            await asyncio.sleep(0)

    async def wait(self, seconds: float) -> None:
        self.now[0] += seconds
        await self.send()

    def told(self) -> list[tuple[str, str]]:
        """Job and event of each message that came."""
        bodies = [json.loads(came.body) for came in self.receiver.came]
        return [(body["data"]["id"], body["type"].removeprefix("job.")) for body in bodies]

    async def messages(self, hook: Webhook) -> list[Any]:
        found = await self.store.webhooks.messages(hook.id, state=None, most=100)
        return sorted(found, key=lambda each: (each.job_id, each.seq))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    store = await opened_in(tmp_path)
    async with receiving() as receiver:
        house = House(store, receiver)
        yield house
        await house.hooks.stop()
    await store.close()


async def test_what_happens_to_a_job_is_told_in_order(house: House) -> None:
    hook, job, other = await house.hook(), await house.job(), await house.job("bob")
    await house.send()
    assert house.told() == [(job.id, kind) for kind in ALL]
    ids = [came.headers["webhook-id"] for came in house.receiver.came]
    assert ids == [message.id for message in await house.messages(hook)]
    assert all(each.state is MessageState.SENT for each in await house.messages(hook))
    assert other.tenant == "bob"
    await house.wait(1e6)
    assert len(house.receiver.came) == 3


async def test_only_the_events_that_are_wanted_are_told(house: House) -> None:
    await house.hook(kinds=("cancelled",))
    job = await house.job()
    await house.send()
    assert house.told() == [(job.id, "cancelled")]


async def test_there_is_no_message_without_its_event(house: House) -> None:
    hook = await house.hook()
    job = await house.store.insert("ada", Tier.FAST, SPEC)
    lease = await house.store.lease(job.id, "engine-0")
    await house.store.cancel(job.id, by="caller")
    with pytest.raises(LeaseLost):
        await house.store.succeed(lease, [])
    assert [each.kind for each in await house.messages(hook)] == list(ALL)


async def test_a_receiver_that_was_down_for_an_hour_is_told_all_in_order(house: House) -> None:
    await house.hook()
    house.receiver.answer = lambda came: answered(503)
    jobs = [await house.job() for _ in range(5)]
    for _ in range(60):
        await house.wait(60)
    failed = len(house.receiver.came)
    assert failed >= 5
    house.receiver.came.clear()
    house.receiver.answer = lambda came: answered(200)
    jobs += [await house.job()]
    for _ in range(180):
        await house.wait(60)
    for job in jobs:
        assert [kind for who, kind in house.told() if who == job.id] == list(ALL)
    assert len(house.told()) == 18, "each once: none was taken before"


async def test_a_message_is_tried_for_three_days_and_then_given_up(house: House) -> None:
    hook = await house.hook(kinds=("cancelled",))
    house.receiver.answer = lambda came: answered(500)
    await house.job()
    begun, times = house.now[0], []
    house.receiver.answer = lambda came: times.append(house.now[0]) or answered(500)  # type: ignore[func-returns-value]
    for _ in range(400):
        await house.wait(900)
    assert len(times) == len(WAITS_S) + 1
    assert 72 * 3600 * (1 - JITTER) < times[-1] - begun < 100 * 3600
    (message,) = await house.messages(hook)
    assert (message.state, message.status) == (MessageState.GIVEN_UP, 500)
    assert len({came.headers["webhook-id"] for came in house.receiver.came}) == 1
    house.receiver.came.clear()
    house.receiver.answer = lambda came: answered(200)
    assert await house.hooks.replay(hook.id, "ada") == 1
    await house.send()
    (came,) = house.receiver.came
    assert came.headers["webhook-id"] == message.id


async def test_what_became_of_each_try_can_be_looked_at(house: House) -> None:
    hook = await house.hook(kinds=("cancelled",))
    job, begun = await house.job(), house.now[0]
    body = b"HTTP/1.1 503 X\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndown"
    house.receiver.answer = lambda came: body
    await house.send()
    house.receiver.answer = lambda came: answered(204)
    await house.wait(60)
    (message,) = await house.messages(hook)
    seen, tries, told = await house.hooks.look(hook.id, "ada", message.id)
    assert seen == message
    assert [(each.status, each.answer, each.reason) for each in tries] == [
        (204, "", ""),
        (503, "down", "the answer was 503"),
    ]
    assert [each.at.timestamp() - begun for each in tries] == [60, 0]
    assert told is not None
    assert told["data"]["id"] == job.id
    assert told == json.loads(house.receiver.came[-1].body)
    house.receiver.answer = lambda came: body
    await house.hooks.replay(hook.id, "ada", message.id)
    await house.send()
    house.receiver.answer = lambda came: answered(200)
    await house.hooks.replay(hook.id, "ada", message.id)
    await house.send()  # at once: who asks has seen to the receiver
    _, tries, _ = await house.hooks.look(hook.id, "ada", message.id)
    assert [each.status for each in tries] == [200, 503, 204, 503]
    for whose, which in (("bob", message.id), ("ada", "msg_other")):
        with pytest.raises(NotFound):
            await house.hooks.look(hook.id, whose, which)


async def test_a_receiver_that_is_gone_is_told_no_more(house: House) -> None:
    hook = await house.hook()
    house.receiver.answer = lambda came: answered(410)
    await house.job()
    for _ in range(10):
        await house.wait(3600)
    assert len(house.receiver.came) == 1
    ended = await house.store.webhooks.get(hook.id)
    assert ended.disabled_at is not None
    assert "410" in ended.disabled_reason
    await house.job()  # nothing is written for it
    assert len(await house.messages(hook)) == 3
    await house.store.webhooks.enable(hook.id, is_on=True)
    house.receiver.answer = lambda came: answered(200)
    await house.wait(3600)
    assert len(house.receiver.came) == 3


async def test_a_slow_receiver_holds_up_no_other(house: House) -> None:
    await house.hook("ada")
    async with receiving() as other:
        await house.hooks.create("bob", other.url, ALL)
        house.receiver.answer = lambda came: None
        await house.job("ada")
        await house.job("bob")
        begun = await house.hooks.begin_due()
        await eventually(lambda: other.came)
        assert len(begun) == 2
        assert len(house.receiver.came) == 1


async def test_many_messages_of_one_webhook_hold_up_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while it rests nor when it is well; a look finds fewer than it has."""
    monkeypatch.setattr(limits, "WEBHOOK_MESSAGES_AT_ONCE", 20)
    monkeypatch.setattr(limits, "WEBHOOK_MESSAGES_EACH", 5)
    hook = await house.hook("ada", ("queued",))
    for _ in range(21):
        await house.store.insert("ada", Tier.FAST, SPEC)
    house.receiver.answer = lambda came: answered(503)
    async with receiving() as other:
        await house.hooks.create("bob", other.url, ALL)
        await house.send()
        assert len(house.receiver.came) == 1
        await house.job("bob")
        await house.send()
        assert len(other.came) == 3
        assert len(house.receiver.came) == 1, "it rests"
        house.receiver.answer = lambda came: answered(200)
        await house.job("bob")
        house.now[0] += REST_S_MAX
        begun = await house.hooks.begin_due()
        assert len(begun) == 2
        await asyncio.gather(*begun)
        assert len(house.receiver.came) == 1 + limits.WEBHOOK_MESSAGES_EACH
        await house.send()
        assert len(other.came) == 6
    assert {each.state for each in await house.messages(hook)} == {MessageState.SENT}


async def test_after_a_change_both_secrets_sign_for_a_day(house: House) -> None:
    hook = await house.hook(kinds=("cancelled",))
    changed, secret = await house.hooks.change_secret(hook.id, "ada")
    assert secret.startswith("whsec_")
    assert changed.changed_at is not None
    house.now[0] = changed.changed_at.timestamp() + 60
    await house.job()
    house.now[0] += 3600  # events have the wall's time
    await house.send()
    assert len(house.receiver.came[-1].headers["webhook-signature"].split(" ")) == 2
    house.now[0] += limits.WEBHOOK_SECRETS_OVERLAP_S
    await house.job()
    await house.send()
    assert len(house.receiver.came[-1].headers["webhook-signature"].split(" ")) == 1


async def test_a_message_that_was_taken_before_a_crash_has_the_same_id(house: House) -> None:
    hook = await house.hook(kinds=("cancelled",))
    await house.job()
    came: list[Came] = house.receiver.came
    real = house.store.webhooks.told

    async def crash(*args: Any, **kwargs: Any) -> None:
        raise OSError("the server was killed here")

    house.store.webhooks.told = crash  # type: ignore[method-assign]
    await asyncio.gather(*await house.hooks.begin_due())
    house.store.webhooks.told = real  # type: ignore[method-assign]
    assert len(came) == 1
    await asyncio.sleep(0)
    await house.send()
    assert len(came) == 2
    assert came[0].headers["webhook-id"] == came[1].headers["webhook-id"]
    assert (await house.messages(hook))[0].state is MessageState.SENT


async def test_setting_up_has_its_bounds(house: House) -> None:
    with pytest.raises(InvalidInput) as refused:
        await house.hooks.create("ada", house.receiver.url, ["made"])
    assert refused.value.limit == list(KINDS)
    for _ in range(limits.WEBHOOKS_PER_TENANT_MAX):
        await house.hook()
    with pytest.raises(TooMany):
        await house.hook()
    with pytest.raises(TooMany):  # and no name is looked up for it
        await house.hooks.create("ada", "https://no-such-host.invalid/")
    hook = (await house.store.webhooks.every("ada"))[0]
    await house.job()
    await house.store.webhooks.remove(hook.id, tenant="ada")
    with pytest.raises(NotFound):
        await house.store.webhooks.get(hook.id)
    guarded = Hooks(house.store, bytes(32), lambda job, image: {})
    with pytest.raises(InvalidInput):
        await guarded.create("bob", house.receiver.url)
    with pytest.raises(NotPublic):
        await guarded.create("bob", house.receiver.url.replace("http:", "https:"))


async def test_another_tenants_webhook_looks_like_none(house: House) -> None:
    hook = await house.hook()
    with pytest.raises(NotFound):
        await house.store.webhooks.get(hook.id, tenant="bob")
    with pytest.raises(NotFound):
        await house.hooks.replay(hook.id, "bob")
    with pytest.raises(NotFound):
        await house.hooks.change_secret(hook.id, "bob")
    with pytest.raises(NotFound):
        await house.store.webhooks.remove(hook.id, tenant="bob")
