"""Idempotency keys over HTTP, on a real platform."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from calotype.core import limits
from calotype.core.ids import new_id
from calotype.flow.platform import Platform
from calotype.jobs import tables
from tests.rooms.api import caller, problem, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = {"prompt": "a red tent by the sea", "steps": 2, "loras": [], "seed": 7}
MOST = limits.IDEMPOTENCY_KEY_CHARS_MAX


@pytest.fixture
def platform(app: FastAPI) -> Platform:
    platform: Platform = app.state.platform
    return platform


async def ask(
    client: httpx.AsyncClient, key: str, body: dict[str, Any] = ASK, **headers: str
) -> httpx.Response:
    return await client.post("/v1/jobs", json=body, headers={"Idempotency-Key": key, **headers})


async def in_flight(platform: Platform, requests: int) -> None:
    while len(platform._once._in_flight) != requests:  # noqa: ASYNC110 - nobody rings for it
        await asyncio.sleep(0.01)


async def count(client: httpx.AsyncClient) -> int:
    return len((await client.get("/v1/jobs?limit=100")).json()["jobs"])


async def test_a_request_sent_again_gets_its_job_and_says_so(client: httpx.AsyncClient) -> None:
    key = new_id("key")
    before = await count(client)
    first = await ask(client, key)
    assert first.status_code == 202
    assert "idempotency-replayed" not in first.headers
    again = await ask(client, key)
    assert again.status_code == 202
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.json()["id"] == first.json()["id"]
    assert await count(client) == before + 1


async def test_its_job_is_told_as_it_is_by_now(client: httpx.AsyncClient) -> None:
    key, body = new_id("key"), ASK | {"prompt": "a tent to forget"}  # by the engine: never over
    job = (await ask(client, key, body)).json()
    await client.delete(job["urls"]["cancel"])
    again = await ask(client, key, body)
    assert (again.status_code, again.json()["status"]) == (202, "cancelled")


async def test_the_same_body_may_be_written_otherwise(client: httpx.AsyncClient) -> None:
    key = new_id("key")
    job = (await ask(client, key)).json()
    other = (
        b'{ "seed": 7,"loras":[],\n"steps":2, "mask": null, "prompt":"a red t\\u0065nt by the sea"}'
    )
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    again = await client.post("/v1/jobs", content=other, headers=headers)
    assert again.json()["id"] == job["id"]


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"n": 1}, {"prompt": "a blue tent"}, {"loras": None}, {"tier": "relax"}]
)
async def test_another_body_under_the_same_key_is_refused(
    client: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    key = new_id("key")
    job = (await ask(client, key)).json()
    before = await count(client)
    body = refusal(await ask(client, key, ASK | change), 422)
    assert body["type"] == "urn:calotype:problem:idempotency-key-reused"
    assert (body["field"], body["job_id"]) == ("Idempotency-Key", job["id"])
    assert await count(client) == before


async def test_while_the_first_is_looked_at_the_second_is_told_to_wait(
    client: httpx.AsyncClient, platform: Platform
) -> None:
    key = new_id("key")
    async with platform._dispatcher._turns.take_asked():  # the first waits for its turn
        first = asyncio.create_task(ask(client, key))
        await in_flight(platform, 1)
        body = refusal(await ask(client, key), 409)
        assert body["type"] == "urn:calotype:problem:idempotency-key-in-flight"
        assert body["field"] == "Idempotency-Key"
        assert not first.done()
    job = (await first).json()
    assert (await ask(client, key)).json()["id"] == job["id"]


async def test_of_many_sent_at_once_one_makes_the_job(client: httpx.AsyncClient) -> None:
    key, before = new_id("key"), await count(client)
    answers = await asyncio.gather(*(ask(client, key) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert await count(client) == before + 1


async def test_a_caller_that_goes_away_does_not_free_the_key(
    client: httpx.AsyncClient, platform: Platform
) -> None:
    key, before = new_id("key"), await count(client)
    async with platform._dispatcher._turns.take_asked():
        first = asyncio.create_task(ask(client, key))
        await in_flight(platform, 1)
        first.cancel()
        await asyncio.wait([first])
        problem(await ask(client, key), 409)
    await in_flight(platform, 0)
    again = await ask(client, key)
    assert again.headers["idempotency-replayed"] == "true"
    assert await count(client) == before + 1


async def test_a_key_is_its_tenants_own(
    client: httpx.AsyncClient, app: FastAPI, platform: Platform
) -> None:
    key = new_id("key")
    mine = (await ask(client, key)).json()
    _, secret = await platform.create_key(tenant="eve", name="eve's")
    async with caller(app, {"Authorization": f"Bearer {secret}"}) as eve:
        theirs = await ask(eve, key, {"prompt": "a boat"})
    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine["id"]


@pytest.mark.parametrize(
    "key", ["", " ", "a b", "x" * (MOST + 1), "ä".encode("latin-1"), b"a\x7f", b"\xff\xfe"]
)
async def test_an_unfit_key_is_refused_with_the_header_and_the_limit(
    client: httpx.AsyncClient, key: str | bytes
) -> None:
    before = await count(client)
    raw = key if isinstance(key, bytes) else key.encode()
    body = refusal(
        await client.post("/v1/jobs", json=ASK, headers=[(b"Idempotency-Key", raw)]), 422
    )
    assert body["field"] == "Idempotency-Key"
    assert body["limit"]["max_chars"] == MOST
    assert await count(client) == before


async def test_two_keys_are_no_key(client: httpx.AsyncClient) -> None:
    headers = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    assert refusal(await client.post("/v1/jobs", json=ASK, headers=headers), 422)


async def test_the_longest_key_is_good(client: httpx.AsyncClient) -> None:
    key = (new_id("key") + "!~" * MOST)[:MOST]
    job = (await ask(client, key)).json()
    assert (await ask(client, key)).json()["id"] == job["id"]


async def test_a_refused_request_leaves_the_key_free(client: httpx.AsyncClient) -> None:
    key = new_id("key")
    assert (await ask(client, key, ASK | {"steps": 0})).status_code == 422
    assert (await ask(client, key)).status_code == 202


async def test_a_key_is_forgotten_after_its_time(
    client: httpx.AsyncClient, platform: Platform
) -> None:
    keys = [new_id("key") for _ in range(3)]
    jobs = [(await ask(client, key)).json()["id"] for key in keys]
    known = tables.idempotency_keys
    kept_s = platform._settings.idempotency_kept_s
    assert kept_s == 24 * 3600
    for key, age_s in zip(keys, (kept_s - 60, kept_s + 60, kept_s + 60), strict=True):
        at = datetime.now(UTC) - timedelta(seconds=age_s)
        async with platform._store._database.writing() as conn:
            await conn.execute(update(known).where(known.c.key == key).values(created_at=at))
    assert (await ask(client, keys[0])).json()["id"] == jobs[0]
    assert (await ask(client, keys[1])).json()["id"] != jobs[1], "good no longer, though not swept"
    assert await platform._once.forget() == 1
    assert (await ask(client, keys[2])).json()["id"] != jobs[2]
    assert (await ask(client, keys[0])).json()["id"] == jobs[0]
