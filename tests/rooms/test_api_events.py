"""HTTP over a real platform: streams of events, pictures, health, and what is logged."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog
from fastapi import FastAPI

from calotype.api.events import EventStreams
from calotype.cli.logging_setup import configure_logging
from calotype.core.errors import TooMany
from calotype.core.nouns import Event
from calotype.settings import Settings
from tests.rooms.api import FAKE, ULID, caller, job_of, problem, refusal

ENGINE = ("env", "CALOTYPE_FAKE_STEP_S=0.05", *FAKE)
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_cancelled_job_stays_cancelled_and_its_stream_ends(
    client: httpx.AsyncClient,
) -> None:
    job = (await client.post("/v1/jobs", json={"prompt": "a tent", "steps": 100})).json()
    first = await client.delete(job["urls"]["cancel"])
    again = await client.delete(job["urls"]["cancel"])
    assert first.status_code == again.status_code == 200
    assert again.json()["status"] == "cancelled"
    assert again.json()["finished_at"]
    kinds = [event["event"] for event in await events(client, job)]
    assert kinds[0] == "queued"
    assert kinds[-1] == "cancelled"


async def events(
    client: httpx.AsyncClient, job: dict[str, Any], last_id: str = ""
) -> list[dict[str, Any]]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    answer = await client.get(job["urls"]["events"], headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "no-cache" in answer.headers["cache-control"]
    frames = []
    for text in answer.text.strip().split("\n\n"):
        lines = [line for line in text.split("\n") if not line.startswith(":")]
        if lines:  # else it is a comment: the server says that it lives
            frame: dict[str, Any] = dict(line.split(": ", 1) for line in lines)
            frames.append({**frame, "data": json.loads(frame["data"])})
    return frames


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def drawn(client: httpx.AsyncClient) -> dict[str, Any]:
    """A job that has succeeded."""
    return await job_of(client)


async def test_events_have_ids_kinds_and_times_and_a_place_only_while_it_is_one(
    client: httpx.AsyncClient, drawn: dict[str, Any]
) -> None:
    log = await events(client, drawn)
    assert [frame["id"] for frame in log] == [str(number + 1) for number in range(len(log))]
    assert log[0]["event"] == "queued"
    assert log[0]["data"]["position"] is None, "it waits no more"
    assert log[-1]["event"] == "succeeded"
    assert all(frame["data"]["at"].endswith("Z") for frame in log)


async def test_a_stream_resumes_after_the_id_that_was_seen(
    client: httpx.AsyncClient, drawn: dict[str, Any]
) -> None:
    whole = await events(client, drawn)
    assert await events(client, drawn, last_id="2") == whole[2:]
    after = await client.get(f"{drawn['urls']['events']}?after={len(whole) - 1}")
    assert after.text.count("event:") == 1


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "٣", "9" * 40])
async def test_an_impossible_event_id_is_refused(client: httpx.AsyncClient, value: str) -> None:
    headers = httpx.Headers([(b"Last-Event-ID", value.encode())])
    answer = await client.get(f"/v1/jobs/job_{ULID}/events", headers=headers)
    assert refusal(answer, 400)["field"] == "Last-Event-ID"


async def test_a_stream_of_an_unknown_job_is_a_refusal(client: httpx.AsyncClient) -> None:
    refusal(await client.get(f"/v1/jobs/job_{ULID}/events"), 404)


async def test_one_stream_too_many_is_refused_and_ended_streams_do_not_count(
    app: FastAPI, client: httpx.AsyncClient, drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: EventStreams = app.state.streams
    assert streams.open == 0
    monkeypatch.setattr(streams, "streams_max", 0)
    body = problem(await client.get(drawn["urls"]["events"]), 429)
    assert body["limit"] == 0
    assert streams.open == 0


async def test_a_picture_is_served_by_its_link_alone_and_cached_privately(
    app: FastAPI, drawn: dict[str, Any]
) -> None:
    image = drawn["images"][0]
    async with caller(app, {}) as anyone:
        png = await anyone.get(image["url"])
        assert png.headers["content-type"] == "image/png"
        assert png.content.startswith(b"\x89PNG")
        assert "private" in png.headers["cache-control"]
        assert "immutable" in png.headers["cache-control"]
        webp = await anyone.get(image["webp_url"])
        assert webp.headers["content-type"] == "image/webp"
        assert webp.headers["etag"] != png.headers["etag"]
        same = {"If-None-Match": png.headers["etag"]}
        assert (await anyone.get(image["url"], headers=same)).status_code == 304
        assert (await anyone.head(image["url"])).status_code == 200


async def test_a_picture_is_not_served_by_a_wrong_link(app: FastAPI, drawn: dict[str, Any]) -> None:
    url = drawn["images"][0]["url"]
    async with caller(app, {}) as anyone:
        problem(await anyone.get(url.partition("?")[0]), 401)
        problem(await anyone.get(re.sub("signature=...", "signature=abc", url)), 401)
        problem(await anyone.get(re.sub(r"expires=\d", "expires=9", url)), 401)
        same = {"If-None-Match": f'"{drawn["images"][0]["id"]}.png"'}
        problem(await anyone.get(url.partition("?")[0], headers=same), 401)
        problem(await anyone.get("/v1/images/img_1.gif"), 404)


async def test_health_needs_no_key(app: FastAPI, drawn: dict[str, Any]) -> None:
    async with caller(app, {}) as anyone:
        assert (await anyone.get("/healthz")).json() == {"status": "ok"}
        ready = await anyone.get("/readyz")
        assert ready.status_code == 200  # a picture was drawn: an engine is warm
        assert ready.json()["ready"] is True


async def test_not_ready_is_503_with_the_reasons(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        app.state.platform.installation, "readiness", lambda: {"ready": False, "fault": "no engine"}
    )
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["fault"] == "no engine"


@pytest.fixture
def logging() -> Iterator[None]:
    before = structlog.get_config()
    configure_logging(Settings())
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("logging")
async def test_an_unexpected_failure_tells_an_id_and_logs_no_secrets(
    app: FastAPI,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("inner workings")

    monkeypatch.setattr(app.state.platform, "admit", broken)
    answer = await client.post("/v1/jobs", json={"prompt": "a private wish"})
    body = problem(answer, 500)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "inner workings" not in answer.text
    assert "Traceback" not in answer.text
    logged = capsys.readouterr().err
    assert body["request_id"] in logged
    assert "inner workings" in logged
    assert "a private wish" not in logged
    assert str(app.state.platform.new_key) not in logged


@pytest.mark.usefixtures("logging")
async def test_the_log_has_no_queries(
    client: httpx.AsyncClient,
    drawn: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    await client.get(drawn["images"][0]["url"], headers={"Range": "bytes=0-1"})
    logged = capsys.readouterr().err
    assert "/v1/images/" in logged
    assert "signature" not in logged


async def test_streams_end_when_the_server_stops() -> None:
    streams = EventStreams()
    ended = asyncio.Event()

    async def log() -> AsyncIterator[Event]:
        try:
            yield Event("job_1", 1, "queued", datetime.now(UTC), {})
            await asyncio.Event().wait()  # nothing more ever happens to this job
        finally:
            ended.set()

    passed = streams.until_stopping(log())
    first = await anext(passed)
    assert first is not None
    assert first.seq == 1
    following = asyncio.ensure_future(anext(passed, None))
    await asyncio.sleep(0)
    streams.stopping.set()
    assert await asyncio.wait_for(following, 60) is None
    await asyncio.wait_for(ended.wait(), 60)  # and the subscription is given up


async def test_the_count_of_streams_is_exact_at_the_bound() -> None:
    streams = EventStreams(streams_max=1)
    streams.enter()
    with pytest.raises(TooMany):
        streams.enter()
    streams.leave()
    streams.enter()
