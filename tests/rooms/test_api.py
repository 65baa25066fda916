"""HTTP over a real platform: what is asked, refused, streamed and served."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog
from fastapi import FastAPI

from calotype.api.app import create_app
from calotype.api.bodies import JobRequest, timestamp
from calotype.api.events import EventStreams
from calotype.api.problems import ERRORS_MAX
from calotype.cli.logs import configure_logging
from calotype.core import limits
from calotype.core.errors import TooMany
from calotype.core.nouns import Event
from calotype.flow.platform import Platform
from calotype.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = {"Content-Type": "application/json"}
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    platform = await Platform.start(settings)
    try:
        yield create_app(platform, link_ttl_s=settings.link_ttl_s)
    finally:
        await platform.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {app.state.platform.new_key}"}
    async with caller(app, headers) as opened:
        yield opened


def caller(app: FastAPI, headers: dict[str, str]) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers, timeout=240
    )


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:calotype:problem:")
    assert body["title"]
    assert body["detail"]
    if status < 500 and status != 429:  # too much at once is no field's fault
        assert body["field"]
    return body


def refusal(answer: httpx.Response, status: int) -> dict[str, Any]:
    """A problem of the request itself: it names the field, and what may be there."""
    body = problem(answer, status)
    assert "limit" in body
    return body


async def queued(client: httpx.AsyncClient) -> int:
    return len((await client.get("/v1/jobs?limit=100")).json()["jobs"])


async def test_a_job_is_accepted_with_where_to_go_next(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/jobs", json={"prompt": "a tent", "steps": 2, "guidance": 5})
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == body["urls"]["self"] == f"/v1/jobs/{body['id']}"
    assert body["urls"]["events"] == f"/v1/jobs/{body['id']}/events"
    assert body["steps"] == 2
    assert body["tier"] == "fast"
    assert body["images"] == []
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["created_at"])
    await client.delete(body["urls"]["cancel"])


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": "x" * 10_000}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({}, "prompt"),
    ({"prompt": "a", "promt": "b"}, "promt"),
    ({"prompt": "a", "model": "nope"}, "model"),
    ({"prompt": "a", "sampler": "nope"}, "sampler"),
    ({"prompt": "a", "tier": "nope"}, "tier"),
    ({"prompt": "a", "width": 129}, "width"),
    ({"prompt": "a", "height": 4096}, "height"),
    ({"prompt": "a", "steps": 0}, "steps"),
    ({"prompt": "a", "steps": "5"}, "steps"),
    ({"prompt": "a", "steps": True}, "steps"),
    ({"prompt": "a", "n": 9}, "n"),
    ({"prompt": "a", "seed": -1}, "seed"),
    ({"prompt": "a", "seed": 10**30}, "seed"),
    ({"prompt": "a", "guidance": 99.0}, "guidance"),
]


@pytest.mark.parametrize(("ask", "field"), BAD_FIELDS)
async def test_a_bad_field_is_named_and_nothing_is_queued(
    client: httpx.AsyncClient, ask: dict[str, Any], field: str
) -> None:
    before = await queued(client)
    body = refusal(await client.post("/v1/jobs", json=ask), 422)
    assert body["field"] == field
    assert await queued(client) == before


async def test_all_fields_of_a_wrong_type_are_listed(client: httpx.AsyncClient) -> None:
    body = refusal(await client.post("/v1/jobs", json={"prompt": 1, "n": "2"}), 422)
    assert [error["field"] for error in body["errors"]] == ["prompt", "n"]
    assert body["detail"] == "prompt has to be text"
    assert body["limit"] == "text"


async def test_an_unknown_field_is_told_which_ones_there_are(client: httpx.AsyncClient) -> None:
    body = refusal(await client.post("/v1/jobs", json={"promt": "a tent"}), 422)
    assert body["detail"] == "there is no field promt"
    assert body["limit"] == sorted(JobRequest.model_fields)
    asked = {f"field{number}" * 20: 1 for number in range(50)}
    body = refusal(await client.post("/v1/jobs", json=asked), 422)
    assert len(body["errors"]) == ERRORS_MAX
    assert len(body["field"]) <= 64


async def test_a_field_that_is_there_twice_is_refused(client: httpx.AsyncClient) -> None:
    content = b'{"prompt": "a", "seed": ' + b"1" * 4_300 + b', "seed": 1}'
    body = refusal(await client.post("/v1/jobs", content=content, headers=JSON), 422)
    assert body["field"] == "seed"
    assert body["limit"] == "once"


async def test_a_listing_from_an_unknown_job_is_refused(client: httpx.AsyncClient) -> None:
    body = refusal(await client.get(f"/v1/jobs?before=job_{ULID}"), 422)
    assert body["field"] == "before"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"prompt=a", b'{"prompt": "\xff"}', b'{"prompt": "\\ud800"}', b"[" * 9_000],
)
async def test_a_body_that_is_not_json_is_refused(
    client: httpx.AsyncClient, content: bytes
) -> None:
    body = refusal(await client.post("/v1/jobs", content=content, headers=JSON), 400)
    assert body["field"] == "body"
    assert body["limit"] == "a JSON object"


@pytest.mark.parametrize("content", [b"[1]", b'"a tent"', b"null"])
async def test_json_that_is_no_object_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.post("/v1/jobs", content=content, headers=JSON)
    assert refusal(answer, 422)["field"] == "body"


async def test_numbers_that_json_does_not_have_are_refused(client: httpx.AsyncClient) -> None:
    content = b'{"prompt": "a", "guidance": NaN}'
    answer = await client.post("/v1/jobs", content=content, headers=JSON)
    assert refusal(answer, 422)["field"] == "guidance"


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_another_media_type_is_refused(client: httpx.AsyncClient, media_type: str) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    answer = await client.post("/v1/jobs", content=b'{"prompt": "a"}', headers=headers)
    assert refusal(answer, 415)["limit"] == "application/json"


async def test_a_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    body = refusal(await client.post("/v1/jobs", json={"prompt": "x" * limits.BODY_BYTES_MAX}), 413)
    assert body["limit"] == limits.BODY_BYTES_MAX


async def test_a_chunked_body_is_read_no_further_than_the_limit(
    client: httpx.AsyncClient,
) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 4096
            yield b" " * 4096

    answer = await client.post("/v1/jobs", content=chunks(), headers=JSON)
    assert refusal(answer, 413)["limit"] == limits.BODY_BYTES_MAX
    assert sent <= limits.BODY_BYTES_MAX + 4096


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic abc"}, {"Authorization": ""}],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/models", "/v1/jobs/job_x/events"])
async def test_without_a_good_key_nothing_is_told(
    app: FastAPI, headers: dict[str, str], path: str
) -> None:
    async with caller(app, headers) as stranger:
        answer = await stranger.get(path)
    body = refusal(answer, 401)
    assert (body["field"], body["limit"]) == ("Authorization", "Bearer KEY")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_stranger_is_refused_before_the_body_is_looked_at(app: FastAPI) -> None:
    async with caller(app, {}) as stranger:
        refusal(await stranger.post("/v1/jobs", content=b"{"), 401)


async def test_another_tenants_job_looks_like_no_job(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    job = (await client.post("/v1/jobs", json={"prompt": "a tent"})).json()
    _, secret = await app.state.platform.create_key(tenant="others", name="theirs")
    async with caller(app, {"Authorization": f"Bearer {secret}"}) as other:
        for answer in (
            await other.get(job["urls"]["self"]),
            await other.get(job["urls"]["events"]),
            await other.delete(job["urls"]["cancel"]),
        ):
            refusal(answer, 404)
        assert (await other.get("/v1/jobs")).json() == {"jobs": []}
    assert (await client.delete(job["urls"]["cancel"])).json()["status"] == "cancelled"


async def test_unknown_addresses_and_methods_are_problems(client: httpx.AsyncClient) -> None:
    refusal(await client.get("/v1/nope"), 404)
    assert refusal(await client.get(f"/v1/jobs/job_{ULID}"), 404)["field"] == "job_id"
    answer = await client.put("/v1/jobs", json={})
    refusal(answer, 405)
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("query", "field"), [("limit=0", "limit"), ("limit=101", "limit"), ("page=2", "page")]
)
async def test_a_bad_query_is_named(client: httpx.AsyncClient, query: str, field: str) -> None:
    assert refusal(await client.get(f"/v1/jobs?{query}"), 422)["field"] == field


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
    job = (await client.post("/v1/jobs", json={"prompt": "a red tent", "steps": 4})).json()
    await events(client, job)
    body: dict[str, Any] = (await client.get(job["urls"]["self"])).json()
    assert body["status"] == "succeeded", body
    return body


async def test_events_have_ids_kinds_times_and_a_place_in_line(
    client: httpx.AsyncClient, drawn: dict[str, Any]
) -> None:
    log = await events(client, drawn)
    assert [frame["id"] for frame in log] == [str(number + 1) for number in range(len(log))]
    assert log[0]["event"] == "queued"
    assert log[0]["data"]["position"] >= 1
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


async def test_models_say_their_defaults_and_not_where_they_lie(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert "vignette" in [model["name"] for model in body["models"]]
    assert all("path" not in model for model in body["models"])
    assert body["models"][0]["defaults"]["steps"] >= 1


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
        app.state.platform, "readiness", lambda: {"ready": False, "fault": "no engine"}
    )
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["fault"] == "no engine"


async def test_every_answer_is_framed(client: httpx.AsyncClient) -> None:
    for path in ("/", "/v1/nope", "/healthz", "/web/nope.js"):
        headers = (await client.get(path)).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-request-id"].startswith("req_")


async def test_the_page_is_served_and_nothing_beside_its_folder(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assets = re.findall(r'"/?(web/[^"]+)"', page.text)
    assert assets
    for asset in assets:
        assert (await client.get(f"/{asset}")).status_code == 200, asset
    for path in ("/web/%2e%2e/settings.py", "/web/..%2fsettings.py", "/web//etc/passwd"):
        problem(await client.get(path), 404)


@pytest.fixture
def logging() -> Iterator[None]:
    configure_logging(Settings())
    yield
    structlog.reset_defaults()


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
    await client.get(drawn["images"][0]["url"])
    logged = capsys.readouterr().err
    assert "/v1/images/" in logged
    assert "signature" not in logged


async def test_the_schema_names_every_field_of_a_request(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    body = schema["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert {"prompt", "negative_prompt", "n", "tier"} <= set(body["schema"]["properties"])


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
    assert (await anext(passed)).seq == 1
    following = asyncio.ensure_future(anext(passed, None))
    await asyncio.sleep(0)
    streams.stopping.set()
    assert await asyncio.wait_for(following, 5) is None
    await asyncio.wait_for(ended.wait(), 5)  # and the subscription is given up


async def test_the_count_of_streams_is_exact_at_the_bound() -> None:
    streams = EventStreams(streams_max=1)
    streams.enter()
    with pytest.raises(TooMany):
        streams.enter()
    streams.leave()
    streams.enter()


async def test_times_are_told_in_utc() -> None:
    moment = datetime(2026, 1, 31, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    assert timestamp(moment) == "2026-01-31T12:00:00.000Z"
    assert timestamp(None) is None
