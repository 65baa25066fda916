"""The same request again, after what loses its answer: kill -9, a cut connection. Real servers."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from calotype.cli.client import Client
from calotype.cli.client import Server as Address
from calotype.core.ids import new_id
from tests.faked import a_source
from tests.postgres import Postgres
from tests.serving import Server, running_server

WAIT_S = 60.0
LENGTH = re.compile(rb"(?i)content-length: (\d+)")
ASK = {"prompt": "a red tent by the sea", "steps": 2}


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """What a server's environment says of its database."""
    if request.param == "sqlite":
        return {}
    server: Postgres = request.getfixturevalue("postgres")
    return {"CALOTYPE_DATABASE_URL": server.new_database()}


def test_a_request_whose_answer_is_lost_makes_one_job_however_often_it_is_sent(
    tmp_path: Path, database: dict[str, str]
) -> None:
    key = new_id("key")
    slow = database | {"FAKE_STEP_S": "5"}  # it can't be over when the server is killed
    with running_server(tmp_path, slow, is_drawn=False) as server:
        with _client(server) as client:
            ask = ASK | a_source(client)
        with closing(_sent_unheard(server, key, ask)):
            [job] = _until_listed(server)  # so it is committed, and nobody was told
        server.process.kill()
        server.process.wait()
    with running_server(tmp_path, database, is_drawn=False) as server:
        _check_that_it_is_that_job(server, key, ask, job["id"])
        _check_that_a_command_whose_connection_is_cut_makes_one_job(server, ask)


def _check_that_it_is_that_job(server: Server, key: str, ask: dict[str, Any], job_id: str) -> None:
    with _client(server) as client:
        again = client.post("/v1/jobs", json=ask, headers={"Idempotency-Key": key})
        assert again.headers["idempotency-replayed"] == "true"
        assert again.json()["id"] == job_id
        done = _until_over(client, job_id)
        assert (done["status"], len(done["images"])) == ("succeeded", 1)
        assert client.get(done["images"][0]["url"]).content.startswith(b"\x89PNG")
        assert [each["id"] for each in _listed(client)] == [job_id]


def _check_that_a_command_whose_connection_is_cut_makes_one_job(
    server: Server, ask: dict[str, Any]
) -> None:
    with _client(server) as direct:
        before = len(_listed(direct))
        with _cutting(server) as url, Client(Address(url, server.key)) as client:
            job = client.create(ask)
        jobs = _listed(direct)
        assert (len(jobs), jobs[0]["id"]) == (before + 1, job["id"])


def _client(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers=server.headers, timeout=WAIT_S)


def _listed(client: httpx.Client) -> list[dict[str, str]]:
    jobs: list[dict[str, str]] = client.get("/v1/jobs").json()["jobs"]
    return jobs


def _sent_unheard(server: Server, key: str, ask: dict[str, Any]) -> socket.socket:
    """Send the request on a connection that is never read from."""
    request = httpx.Request(
        "POST", f"{server.url}/v1/jobs", json=ask, headers=server.headers | {"Idempotency-Key": key}
    )
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join(["POST /v1/jobs HTTP/1.1", *lines, "", ""])
    connection = socket.create_connection((request.url.host, request.url.port or 80))
    connection.sendall(head.encode() + request.read())
    return connection


def _until_listed(server: Server) -> list[dict[str, str]]:
    with _client(server) as client:
        deadline = time.monotonic() + WAIT_S
        while not (jobs := _listed(client)):
            assert time.monotonic() < deadline
        return jobs


def _until_over(client: httpx.Client, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
        if job["status"] not in ("queued", "running"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"{job_id} isn't over")


@contextmanager
def _cutting(server: Server) -> Iterator[str]:
    """An address before the server's, where the first request is passed on and its answer kept."""
    target = httpx.URL(server.url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            is_first = True
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return  # the test is over
                with caller, socket.create_connection((target.host, target.port or 80)) as onward:
                    _pass_on(caller, onward, is_heard=not is_first)
                is_first = False

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{port}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(WAIT_S)


def _pass_on(caller: socket.socket, onward: socket.socket, *, is_heard: bool) -> None:
    """One request and its answer."""
    onward.sendall(_message(caller))
    answer = _message(onward)
    if is_heard:
        caller.sendall(answer)


def _message(connection: socket.socket) -> bytes:
    """A whole message; each says how long its body is."""
    connection.settimeout(WAIT_S)
    message = b""
    while (more := connection.recv(65536)) != b"":
        message += more
        head, end, body = message.partition(b"\r\n\r\n")
        if end and len(body) == int(LENGTH.findall(head)[0]):
            break
    return message
