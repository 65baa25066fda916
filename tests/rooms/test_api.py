"""HTTP over a real platform: what is asked for, and what is refused."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from calotype.api.bodies import JobRequest, timestamp
from calotype.api.problems import ERRORS_MAX
from calotype.core import limits
from tests.rooms.api import ULID, caller, problem, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")


JSON = {"Content-Type": "application/json"}


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
    ask = {"prompt": "a tent to forget"}  # the engine does: it is never over
    job = (await client.post("/v1/jobs", json=ask)).json()
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


async def test_models_say_their_defaults_and_not_where_they_lie(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert "vignette" in [model["name"] for model in body["models"]]
    assert all("path" not in model for model in body["models"])
    assert body["models"][0]["defaults"]["steps"] >= 1


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


async def test_the_schema_names_every_field_of_a_request(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    body = schema["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    assert {"prompt", "negative_prompt", "n", "tier"} <= set(body["schema"]["properties"])


async def test_times_are_told_in_utc() -> None:
    moment = datetime(2026, 1, 31, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    assert timestamp(moment) == "2026-01-31T12:00:00.000Z"
    assert timestamp(None) is None
