"""Webhooks over HTTP, from setting one up to the message of a finished job."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from standardwebhooks.webhooks import Webhook

from tests.flow.dispatch_bench import eventually
from tests.receiver import Receiver, receiving
from tests.rooms.api import FAKE, app_in, caller, job_of, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    home = tmp_path_factory.mktemp("home")
    async with app_in(home, engine=FAKE, webhooks_private=True) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


async def test_a_finished_job_is_told_with_addresses_that_work(
    app: FastAPI, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    made = await client.post("/v1/webhooks", json={"url": receiver.url})
    assert made.status_code == 201, made.text
    hook = made.json()
    assert hook["events"] == ["succeeded", "failed", "cancelled"]
    job = await job_of(client)
    await eventually(lambda: receiver.came)
    (came,) = receiver.came
    told = Webhook(hook["secret"]).verify(came.body.decode(), came.headers)
    assert told == json.loads(came.body)
    assert (told["type"], told["data"]["id"]) == ("job.succeeded", job["id"])
    async with caller(app, {}) as anyone:
        picture = await anyone.get(told["data"]["images"][0]["urls"]["webp"])
    assert picture.headers["content-type"] == "image/webp"
    path = f"/v1/webhooks/{hook['id']}"

    async def sent() -> Any:
        return (await client.get(f"{path}/messages?state=sent")).json()["messages"]

    await eventually(sent)
    (message,) = (await client.get(f"{path}/messages")).json()["messages"]
    assert (message["id"], message["tries"]) == (came.headers["webhook-id"], 1)
    detail = (await client.get(f"{path}/messages/{message['id']}")).json()
    assert {name: detail[name] for name in message} == message
    assert message["next_try_at"] is None
    (attempt,) = detail["attempts"]
    assert (attempt["status"], attempt["reason"], attempt["answer"]) == (200, None, "")
    assert attempt["took_ms"] >= 0
    assert detail["body"]["type"] == "job.succeeded"
    refusal(await client.get(f"{path}/messages/msg_other"), 404)
    again = await client.post(f"{path}/replay", json={"message": message["id"]})
    assert again.json() == {"replayed": 1}
    await eventually(lambda: len(receiver.came) > 1)
    assert receiver.came[1].headers["webhook-id"] == message["id"]


async def test_a_webhook_is_looked_at_changed_and_ended(
    app: FastAPI, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    ask = {"url": receiver.url, "events": ["failed"]}
    hook = (await client.post("/v1/webhooks", json=ask)).json()
    path = f"/v1/webhooks/{hook['id']}"
    seen = (await client.get(path)).json()
    assert (seen["enabled"], seen["events"]) == (True, ["failed"])
    assert "secret" not in seen
    changed = (await client.post(f"{path}/secret")).json()
    assert changed["secret"] != hook["secret"]
    off = (await client.patch(path, json={"enabled": False})).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "switched off")
    assert (await client.patch(path, json={"enabled": True})).json()["enabled"] is True
    assert hook["id"] in [it["id"] for it in (await client.get("/v1/webhooks")).json()["webhooks"]]
    _, secret = await app.state.platform.create_key(tenant="others", name="theirs")
    async with caller(app, {"Authorization": f"Bearer {secret}"}) as stranger:
        assert (await stranger.get("/v1/webhooks")).json() == {"webhooks": []}
        for answer in (
            await stranger.get(path),
            await stranger.delete(path),
            await stranger.post(f"{path}/secret"),
            await stranger.get(f"{path}/messages"),
            await stranger.get(f"{path}/messages/msg_1"),
            await stranger.post(f"{path}/replay", json={}),
            await stranger.patch(path, json={"enabled": False}),
        ):
            refusal(answer, 404)
    assert (await client.delete(path)).status_code == 204
    refusal(await client.get(path), 404)


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://user@example.com"}, "url"),
        ({"url": 5}, "url"),
        ({}, "url"),
        ({"url": "https://example.com", "events": ["made"]}, "events"),
        ({"url": "https://example.com", "events": []}, "events"),
        ({"url": "https://example.com", "colour": "red"}, "colour"),
    ],
)
async def test_what_can_not_be_set_up_is_named(
    client: httpx.AsyncClient, ask: dict[str, object], field: str
) -> None:
    answer = await client.post("/v1/webhooks", json=ask)
    assert refusal(answer, 422)["field"] == field
