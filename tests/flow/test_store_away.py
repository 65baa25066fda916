"""A server whose PostgreSQL is restarted under it, over real HTTP, and then taken by another."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from calotype.cli.client import Client
from calotype.cli.client import Server as Address
from calotype.core import limits
from calotype.jobs.postgresql import SERVER_LOCK
from tests.faked import a_source
from tests.postgres import Postgres, running_postgres
from tests.serving import Server, running_server

WAIT_S = 60.0


def until(look: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {WAIT_S:g} s: {what}")


def test_a_server_outlives_a_restart_of_its_database_and_ends_when_another_server_has_it(
    tmp_path: Path,
) -> None:
    with running_postgres() as database:
        name = database.new_database()
        with (
            running_server(
                tmp_path,
                {"CALOTYPE_DATABASE_URL": name, "FAKE_STEP_S": "0.1"},
                is_drawn=False,
            ) as server,
            httpx.Client(
                base_url=server.url, headers=server.headers, timeout=60, trust_env=False
            ) as client,
        ):
            _restart_under(database, server, client)
            _take(database, name, server.process)
            said = (tmp_path / "server.log").read_text()
            assert "another Calotype server works on the job database" in said
            assert "Every job is stored" in said


def test_one_whose_database_says_nothing_any_more_ends_when_it_is_told_to(tmp_path: Path) -> None:
    with running_postgres() as database:
        settings = {"CALOTYPE_DATABASE_URL": database.new_database(), "FAKE_STEP_S": "0.1"}
        with (
            running_server(tmp_path, settings, is_drawn=False) as server,
            httpx.Client(
                base_url=server.url, headers=server.headers, timeout=60, trust_env=False
            ) as client,
        ):
            ask = {"prompt": "a red tent", "steps": 100} | a_source(client)
            job = client.post("/v1/jobs", json=ask).json()
            until(lambda: client.get(job["urls"]["self"]).json()["progress"], "the job runs")
            with database.frozen():
                with pytest.raises(httpx.ReadTimeout):  # meanwhile steps are made, and not written
                    client.post("/v1/jobs", json=ask, timeout=1.0)
                server.process.send_signal(signal.SIGTERM)
                assert server.process.wait(WAIT_S) == 0
        said = (tmp_path / "server.log").read_text()
        assert "not_stopped_in_order" in said, "it would wait for its database for ever"


def _restart_under(database: Postgres, server: Server, client: httpx.Client) -> None:
    ask = {"prompt": "a red tent", "steps": 60} | a_source(client)
    job = client.post("/v1/jobs", json=ask).json()

    def body() -> dict[str, Any]:
        answer = client.get(job["urls"]["self"])
        return answer.json() if answer.is_success else {}

    with Client(Address(server.url, server.key)) as other, ThreadPoolExecutor(1) as thread:
        following = thread.submit(lambda: [kind for kind, _ in other.follow(job)])
        until(lambda: body().get("progress", 0) > 0, "the job runs")
        _shut_and_start(database, client, job)
        done = until(lambda: body() if body().get("status") == "succeeded" else None, "pictures")
        assert (done["attempt"], len(done["images"])) == (1, 1), "it was drawn all the while"
        assert following.result(WAIT_S)[-1] == "succeeded", "who followed it was told"
    assert client.get("/readyz").json()["database_away"] is False
    after = client.post("/v1/jobs", json={"prompt": "a red tent", "steps": 1})
    assert after.status_code == 202


def _shut_and_start(database: Postgres, client: httpx.Client, job: dict[str, Any]) -> None:
    database.shut()
    for answer in (client.get(job["urls"]["self"]), client.post("/v1/jobs", json={"prompt": "x"})):
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:calotype:problem:store-away"
        assert answer.headers["Retry-After"] == str(limits.STORE_AWAY_RETRY_S)
    assert client.get("/readyz").json()["database_away"] is True
    database.start()


def database_of(address: str) -> str:
    return address.partition("?")[0].rpartition("/")[2]


def _take(database: Postgres, name: str, server: subprocess.Popen[bytes]) -> None:
    """Take the lock as another server would, while this one is held up."""
    os.kill(server.pid, signal.SIGSTOP)
    database.shut()
    database.start()
    held = f"SELECT count(*) FROM pg_locks WHERE objid = {SERVER_LOCK} AND granted"
    command = [
        str(database.programs / "psql"), "-h", str(database.folder), "-U", "postgres",
        "-d", database_of(name),
        "-c", f"SELECT pg_advisory_lock({SERVER_LOCK})", "-c", "SELECT pg_sleep(60)",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as other:
        until(lambda: database.sql(held) == "1", "the lock is another's")
        os.kill(server.pid, signal.SIGCONT)
        assert server.wait(WAIT_S) == 1
        other.kill()
