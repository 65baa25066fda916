"""Over HTTP: when a job will be done and what it waits for, in its body and in its events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from calotype.core import limits
from tests.rooms.api import FAKE, source_of

# It takes its time: to start, and for each step of a row.
ENGINE = ("sh", "-c", 'sleep 3; CALOTYPE_FAKE_STEP_S=0.02 exec "$@"', "sh", *FAKE)
pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = {"prompt": "a tent", "steps": 40, "n": 4}
ETA = {"position", "p50_s", "p90_s", "reason", "basis", "is_extrapolated"}


async def asked(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/jobs", json=ASK | more)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def body_of(client: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = (await client.get(job["urls"]["self"])).json()
    return body


async def once_it_runs(client: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    for _ in range(1_200):
        if (body := await body_of(client, job))["status"] == "running":
            return body
        await asyncio.sleep(0.1)
    pytest.fail("it never ran")


async def test_before_an_engine_is_up_a_job_is_told_that_one_starts(
    client: httpx.AsyncClient,
) -> None:
    job = await asked(client)  # the engine takes seconds to start
    assert job["status"] == "queued"
    eta = job["eta"]
    assert set(eta) == ETA
    assert eta["position"] == job["position"] == 1
    assert eta["reason"].startswith("an engine is starting, about ")
    assert 0.0 < eta["p50_s"] <= eta["p90_s"]
    assert eta["basis"] == "prior"
    body = await once_it_runs(client, job)
    assert body["eta"]["position"] is None
    assert body["eta"]["reason"] == "it is drawn"
    await client.delete(job["urls"]["cancel"])
    assert (await body_of(client, job))["eta"] is None


async def test_jobs_that_wait_are_told_what_is_ahead_of_them(client: httpx.AsyncClient) -> None:
    jobs = [await asked(client, tier="turbo") for _ in range(9)]
    bodies = [await body_of(client, job) for job in jobs]
    waiting = [body for body in bodies if body["status"] == "queued"]
    assert len(waiting) >= 3, "an engine holds 24 rows"
    for body in waiting:
        assert body["eta"]["position"] == body["position"]
    assert waiting[0]["eta"]["reason"].startswith("it is next")
    assert "of yours ahead" in waiting[-1]["eta"]["reason"]
    listed = (await client.get("/v1/jobs?limit=9")).json()["jobs"]
    assert all(set(body["eta"]) == ETA for body in listed)
    places = [body["eta"] for body in listed if body["status"] == "queued"]  # of one moment
    places.sort(key=lambda eta: eta["position"])
    assert places[0]["p50_s"] <= places[-1]["p50_s"]
    for job in jobs:
        await client.delete(job["urls"]["cancel"])


async def followed(client: httpx.AsyncClient, job: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """(id, kind, data) of a job's events until it is over."""
    told: list[tuple[str, str, Any]] = []
    fields: dict[str, str] = {}
    async with client.stream("GET", job["urls"]["events"]) as stream:
        async for line in stream.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "event" in fields:
                told.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
                fields = {}
    return told


async def test_who_follows_a_job_that_waits_is_told_again_and_again(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ETA_EVENTS_S", 0.2)
    full = [await asked(client, steps=100) for _ in range(6)]  # as many rows as an engine holds
    job = await asked(client, steps=2, n=1, **await source_of(client))
    assert job["status"] == "queued"
    following = asyncio.create_task(followed(client, job))
    await asyncio.sleep(2.5)  # time for a dozen, or for one on a machine that is very busy
    for each in full:
        await client.delete(each["urls"]["cancel"])
    told = await following
    etas = [(at, data) for at, kind, data in told if kind == "eta"]
    assert etas
    assert all(at == "" for at, _ in etas), "an estimate is no part of the log"
    assert all(set(data) == ETA for _, data in etas)
    assert told[-1][1] == "succeeded"
    kinds = [kind for _, kind, _ in told]
    assert kinds.index("queued") < kinds.index("eta") < kinds.index("started")
    assert "eta" not in kinds[kinds.index("started") :]
    logged = [int(at) for at, kind, _ in told if kind != "eta"]
    assert logged == list(range(1, len(logged) + 1))
