"""The whole way of a request: real HTTP, a real server, a real engine, the embedded model."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import select
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse
from PIL import Image

from calotype.core import limits
from calotype.core.hash_log import LogEntry
from calotype.core.ids import new_id
from calotype.jobs.store import JobStore
from calotype.provenance.verification import verify
from calotype.settings import Settings
from tests.serving import STOP_S_MAX, Server, engine_pid, running_server

LONG = {"prompt": "a blue castle on a hill at sunset", "steps": 100}


@dataclass(frozen=True)
class Restarted:
    """A server on the home of one that was killed with jobs in the line."""

    server: Server
    jobs: list[dict[str, Any]]  # of the first one, as they ended on the second
    pictures: set[str]  # ids of all that were in the home folder then


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    home = tmp_path_factory.mktemp("home")
    with running_server(home, is_warm=False) as first, client_of(first) as client:
        jobs = [submit(client, **LONG) for _ in range(3)]
        wait_for(client, jobs[0], "step")
        engine = os.pidfd_open(engine_pid(first))
        first.process.kill()
        first.process.wait()
    assert select.select([engine], [], [], STOP_S_MAX)[0], "the engine outlived its server"
    os.close(engine)
    asyncio.run(leave_stray(home))
    with running_server(home) as second:
        with client_of(second) as client:
            ended = [finished(client, job) for job in jobs]
        yield Restarted(second, ended, pictures_in(home))


@pytest.fixture(scope="module")
def server(restarted: Restarted) -> Server:
    return restarted.server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with client_of(server) as opened:
        yield opened


def client_of(server: Server) -> httpx.Client:
    headers = {"Authorization": f"Bearer {server.key}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)


def submit(client: httpx.Client, **ask: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"prompt": "a red tent by the sea", **ask})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


def events(client: httpx.Client, job: dict[str, Any], after: int = 0) -> list[dict[str, Any]]:
    headers = {"Last-Event-ID": str(after)} if after else {}
    with connect_sse(client, "GET", job["urls"]["events"], headers=headers) as source:
        return [
            {"seq": int(event.id), "kind": event.event, **json.loads(event.data)}
            for event in source.iter_sse()
            if event.data  # httpx-sse makes an empty event of a keep-alive comment
        ]


def finished(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    events(client, job)
    body: dict[str, Any] = client.get(job["urls"]["self"]).json()
    return body


def pixels(client: httpx.Client, image: dict[str, Any]) -> bytes:
    return Image.open(io.BytesIO(client.get(image["url"]).content)).convert("RGB").tobytes()


def wait_for(client: httpx.Client, job: dict[str, Any], kind: str) -> None:
    """Return once the job's log has an event of this kind."""
    with connect_sse(client, "GET", job["urls"]["events"]) as source:
        for event in source.iter_sse():
            if event.event == kind:
                return
    raise AssertionError(f"the log ended without {kind}")


def test_a_prompt_becomes_a_signed_picture(client: httpx.Client, server: Server) -> None:
    job = submit(client, steps=8, seed=7)
    assert set(job["urls"]) == {"self", "events", "cancel"}
    log = events(client, job)
    kinds = [event["kind"] for event in log]
    assert kinds[:2] == ["queued", "started"]
    assert kinds[-1] == "succeeded"
    assert log[0]["position"] in (1, None), "None: it has begun already"
    steps = [event for event in log if event["kind"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, 9))
    assert any(event.get("preview", "").startswith("data:image/webp") for event in steps)
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))

    body = client.get(job["urls"]["self"]).json()
    assert body["status"] == "succeeded"
    assert body["progress"] == 1.0
    assert body["created_at"] <= body["started_at"] <= body["finished_at"]
    image = body["images"][0]
    file = httpx.get(server.url + image["url"]).content  # the link alone opens it
    assert hashlib.sha256(file).hexdigest() == image["sha256"]
    assert Image.open(io.BytesIO(file)).size == (image["width"], image["height"]) == (128, 128)

    root = (server.home / "secrets" / "certificates" / "root.pem").read_text()
    for url in (image["url"], image["webp_url"]):
        report = verify(client.get(url).content, anchors_pem=root)
        assert report.state == "trusted"
        assert report.manifest is not None
        assert report.manifest["seed"] == 7
        assert report.manifest["steps"] == 8


def test_a_stream_resumes_after_the_last_event_seen(client: httpx.Client) -> None:
    job = submit(client, steps=4)
    log = events(client, job)
    assert events(client, job, after=3) == log[3:]


def test_each_image_of_a_job_has_its_own_seed(client: httpx.Client) -> None:
    body = finished(client, submit(client, steps=4, n=3, seed=2**32 - 1))
    assert [image["seed"] for image in body["images"]] == [2**32 - 1, 0, 1]
    assert len({pixels(client, image) for image in body["images"]}) == 3


def test_the_same_seed_makes_the_same_pixels_alone_or_beside_others(client: httpx.Client) -> None:
    ask = {"prompt": "a white lighthouse on the right at night", "seed": 5, "steps": 12}
    alone = pixels(client, finished(client, submit(client, **ask))["images"][0])
    others = [
        submit(client, prompt="hills", seed=index, steps=6 + index, sampler=sampler, guidance=cfg)
        for index, (sampler, cfg) in enumerate(
            [("ddim", 1.0), ("euler", 5.0), ("euler_a", 2.0), ("dpmpp_2m", 7.5)]
        )
    ]
    beside = submit(client, **ask)
    late = submit(client, prompt="sea", seed=9, steps=9)
    assert pixels(client, finished(client, beside)["images"][0]) == alone
    for other in [*others, late]:
        assert finished(client, other)["status"] == "succeeded"


def test_a_running_job_can_be_cancelled(client: httpx.Client) -> None:
    job = submit(client, **LONG)
    wait_for(client, job, "step")
    answer = client.delete(job["urls"]["cancel"])
    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelled"
    assert client.delete(job["urls"]["cancel"]).status_code == 200  # again is the same
    assert events(client, job)[-1]["kind"] == "cancelled"
    assert client.get(job["urls"]["self"]).json()["images"] == []


def test_a_finished_job_cannot_be_cancelled(client: httpx.Client) -> None:
    job = submit(client, steps=2)
    finished(client, job)
    answer = client.delete(job["urls"]["cancel"])
    assert answer.status_code == 409
    assert answer.json()["state"] == "succeeded"


def test_a_blocked_prompt_is_refused_and_says_why(client: httpx.Client) -> None:
    before = client.get("/v1/jobs").json()["jobs"][:1]
    answer = client.post("/v1/jobs", json={"prompt": "a nude woman"})
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["type"].endswith("refused")
    assert problem["field"] == "prompt"
    assert problem["category"] == "sexual"
    assert problem["check"]
    assert client.get("/v1/jobs").json()["jobs"][:1] == before


BAD = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": "   "}, "prompt"),
    ({"prompt": "x" * 10_000}, "prompt"),
    ({"prompt": "a\x00b"}, "prompt"),
    ({"prompt": "ok", "negative_prompt": "x" * 10_000}, "negative_prompt"),
    ({}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": "ok", "colour": "red"}, "colour"),
    ({"prompt": "ok", "model": "nope"}, "model"),
    ({"prompt": "ok", "sampler": "nope"}, "sampler"),
    ({"prompt": "ok", "tier": "first"}, "tier"),
    ({"prompt": "ok", "width": 100}, "width"),
    ({"prompt": "ok", "height": 100_000}, "height"),
    ({"prompt": "ok", "steps": 0}, "steps"),
    ({"prompt": "ok", "steps": 101}, "steps"),
    ({"prompt": "ok", "steps": "20"}, "steps"),
    ({"prompt": "ok", "steps": 10**400}, "steps"),
    ({"prompt": "ok", "guidance": -1}, "guidance"),
    ({"prompt": "ok", "guidance": 1e9}, "guidance"),
    ({"prompt": "ok", "seed": -1}, "seed"),
    ({"prompt": "ok", "seed": 2**32}, "seed"),
    ({"prompt": "ok", "n": 9}, "n"),
    ({"prompt": "ok", "n": 0}, "n"),
]


@pytest.mark.parametrize(("ask", "field"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_names_its_field(client: httpx.Client, ask: dict[str, Any], field: str) -> None:
    before = client.get("/v1/jobs").json()
    answer = client.post("/v1/jobs", json=ask)
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["field"] == field
    after = client.get("/v1/jobs").json()
    assert [job["id"] for job in after["jobs"]] == [job["id"] for job in before["jobs"]]


def test_the_limit_is_in_the_problem(client: httpx.Client) -> None:
    problem = client.post("/v1/jobs", json={"prompt": "ok", "n": 9}).json()
    assert problem["limit"] == {"min": 1, "max": limits.IMAGES_PER_JOB_MAX}


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"not json", 400), (b'"text"', 422), (b"\xff\xfe", 400), (b"[" * 60_000, 400)],
)
def test_a_body_that_is_no_job_is_refused(client: httpx.Client, body: bytes, status: int) -> None:
    answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_an_oversized_body_is_refused(client: httpx.Client) -> None:
    body = json.dumps({"prompt": "x" * limits.BODY_BYTES_MAX}).encode()
    answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["limit"] == limits.BODY_BYTES_MAX


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer ct_wrong", "Basic abc", "ct_wrong"])
def test_no_key_or_a_wrong_one_is_unauthorized(server: Server, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    answer = httpx.get(f"{server.url}/v1/jobs", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["", "/events"])
def test_an_unknown_job_is_not_found(client: httpx.Client, path: str) -> None:
    answer = client.get(f"/v1/jobs/job_01ARZ3NDEKTSV4RRFFQ69G5FAV{path}")
    assert answer.status_code == 404
    assert answer.json()["status"] == 404


def test_a_tampered_link_opens_nothing(client: httpx.Client, server: Server) -> None:
    image = finished(client, submit(client, steps=2))["images"][0]
    assert httpx.get(server.url + image["url"][:-4] + "AAAA").status_code == 401
    assert httpx.get(server.url + image["url"].split("?")[0]).status_code in (401, 422)


def test_many_jobs_at_once_all_finish(client: httpx.Client) -> None:
    jobs = [submit(client, steps=3, tier=tier) for tier in ("turbo", "fast", "relax") * 5]
    with ThreadPoolExecutor(8) as threads:
        ended = list(threads.map(lambda job: finished(client, job), jobs))
    assert {job["status"] for job in ended} == {"succeeded"}


def test_a_job_outlives_its_engine(client: httpx.Client, server: Server) -> None:
    job = submit(client, **LONG, n=2)
    wait_for(client, job, "step")
    os.kill(engine_pid(server), signal.SIGKILL)
    log = events(client, job)
    kinds = [event["kind"] for event in log]
    assert kinds.count("started") == 2
    assert kinds.count("attempt_failed") == 1
    assert kinds.count("queued") == 2
    assert kinds.count("succeeded") == 1
    assert kinds[-1] == "succeeded"
    assert len(client.get(job["urls"]["self"]).json()["images"]) == 2


def test_accepted_jobs_outlive_the_server(restarted: Restarted) -> None:
    ended = [(body["status"], len(body["images"])) for body in restarted.jobs]
    assert ended == [("succeeded", 1)] * 3
    delivered = {image["id"] for body in restarted.jobs for image in body["images"]}
    assert restarted.pictures == delivered, "a picture that no job has"


async def leave_stray(home: Path) -> None:
    """A picture's file as of a server that was killed while it stored: logged, and of no job."""
    image = new_id("img")
    entry = LogEntry(
        image=image,
        mark=1,
        mark_key="key",
        files={"png": "0" * 64},
        phash=0,
        width=128,
        height=128,
        sketch=b"sketch",
        at=datetime.now(UTC),
    )
    store = await JobStore.open(Settings(home=home).database)
    try:
        await store.hash_log.append([entry])
    finally:
        await store.close()
    (home / "pictures" / image[-2:]).mkdir()
    (home / "pictures" / image[-2:] / f"{image}.png").write_bytes(b"half a job's")


def pictures_in(home: Path) -> set[str]:
    """Ids of pictures: a file is called ID.SHA256.FORM."""
    return {path.name.partition(".")[0] for path in (home / "pictures").rglob("*.*")}


def test_the_server_process_never_imports_torch(server: Server) -> None:
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "calotype" in maps or "python" in maps
    assert "libtorch" not in maps


def test_a_server_whose_store_fails_ends_with_1_and_says_why(server: Server) -> None:
    """The last one: it ends the server of the others."""
    with client_of(server) as client:
        with sqlite3.connect(server.home / "calotype.db") as broken:
            broken.execute("DROP TABLE attempts")
        client.post("/v1/jobs", json={"prompt": "a red tent"})
        assert server.process.wait(60) == 1
    assert "attempts" in (server.home / "server.log").read_text()
