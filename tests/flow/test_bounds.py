"""Bounds over real HTTP, with a server in its own process: 429, and when to ask again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from calotype.cli.client import Answered, Client
from calotype.cli.client import Server as Address
from calotype.flow.gate import balances
from calotype.jobs.store import JobStore
from calotype.policy.admit import Balance
from tests.faked import a_source
from tests.flow.command_line import here
from tests.serving import Server, running_server

LIMITS = {
    "FAKE_STEP_S": "0.05",
    "CALOTYPE_JOBS_PER_MINUTE": "turbo=12",
    "CALOTYPE_JOBS_AT_ONCE": "turbo=2",
    "CALOTYPE_UNFINISHED_JOBS_MAX": "relax=2",
}
LONG = {"prompt": "a red tent", "steps": 100, "n": 4}  # 5 s of work
SHORT = {"prompt": "a red tent", "steps": 1}


@dataclass(frozen=True)
class Restarted:
    """A server that was killed with a job in mid-run and started again on the same home."""

    server: Server
    client: httpx.Client  # who asked for that job
    job: dict[str, Any]
    before: Balance  # with the job out


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    home = tmp_path_factory.mktemp("bounds")
    with running_server(home, LIMITS, is_drawn=False) as server, caller(server, "ada") as client:
        calotype(home, "tenants", "set", "ada", "--fast-seconds-per-month", "500")
        short = SHORT | a_source(client)
        done = ended(client, client.post("/v1/jobs", json=short).json())
        assert done["status"] == "succeeded"
        job = client.post("/v1/jobs", json={**short, "steps": 100}).json()
        before, headers = balance(home, "ada"), client.headers
        server.process.kill()
        server.process.wait()
    with running_server(home, LIMITS, is_drawn=False) as server:
        client = httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False)
        with client:
            yield Restarted(server, client, job, before)


@pytest.fixture
def server(restarted: Restarted) -> Server:
    return restarted.server


def calotype(home: Path, *arguments: str) -> Any:
    answer = here(home, *arguments, "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def new_key(server: Server, tenant: str) -> str:
    async def make() -> str:
        store = await JobStore.open(f"sqlite+aiosqlite:///{server.home / 'calotype.db'}")
        _, secret = await store.create_key(tenant=tenant, name="test", scopes=["jobs"])
        await store.close()
        return secret

    return asyncio.run(make())


def caller(server: Server, tenant: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {new_key(server, tenant)}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False)


def refused(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 429, answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"] == "urn:calotype:problem:too-many"
    assert body["limit"] is not None
    assert answer.headers.get("retry-after") == (
        str(body["retry_after_s"]) if "retry_after_s" in body else None
    )
    return body


def balance(home: Path, tenant: str) -> Balance:
    """As the server last wrote it."""

    async def look() -> Balance:
        store = await JobStore.open(f"sqlite+aiosqlite:///{home / 'calotype.db'}")
        found = (await balances(store))[tenant][1]
        await store.close()
        return found

    return asyncio.run(look())


def ended(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    with client.stream("GET", job["urls"]["events"]) as stream:
        stream.read()
    body: dict[str, Any] = client.get(job["urls"]["self"]).json()
    return body


def test_a_restart_keeps_balances_and_settles_what_was_out(restarted: Restarted) -> None:
    before = restarted.before
    assert before.used_s + before.left_s == pytest.approx(500)
    assert ended(restarted.client, restarted.job)["status"] == "succeeded"
    after = balance(restarted.server.home, "ada")
    assert after.renews_at == before.renews_at
    assert 0 < after.used_s != before.used_s
    listed = calotype(restarted.server.home, "tenants")["tenants"]
    told = next(one for one in listed if one["tenant"] == "ada")
    assert told["fast_seconds_per_month"] == 500
    assert told["used_s"] == pytest.approx(after.used_s, abs=1e-3)


def test_over_the_rate_is_429_and_after_its_retry_after_the_same_is_let_in(server: Server) -> None:
    turbo = {**SHORT, "tier": "turbo"}
    with caller(server, "fast typist") as client, caller(server, "another") as other:
        answers = [client.post("/v1/jobs", json=turbo)]
        while answers[-1].status_code == 202 and len(answers) < 9:  # 3, but on a busy machine
            answers.append(client.post("/v1/jobs", json=turbo))
        assert len(answers) >= 3, "two may come at once"
        body = refused(answers[-1])
        assert (body["bound"], body["field"], body["limit"]) == ("rate", "tier", 12)
        assert body["retry_after_s"] <= 5
        assert other.post("/v1/jobs", json=turbo).status_code == 202, "another's is untouched"
        time.sleep(int(answers[-1].headers["retry-after"]))
        assert client.post("/v1/jobs", json=turbo).status_code == 202


def test_concurrency_is_of_jobs_that_are_not_over(server: Server) -> None:
    relax = {**LONG, "tier": "relax"}
    with caller(server, "collector") as client:
        first = client.post("/v1/jobs", json=relax).json()
        second = client.post("/v1/jobs", json=relax).json()
        body = refused(client.post("/v1/jobs", json=relax))
        assert (body["bound"], body["field"], body["limit"]) == ("concurrency", "tier", 2)
        assert client.post("/v1/jobs", json=SHORT).status_code == 202, "in fast there is room"
        client.delete(first["urls"]["cancel"])
        third = client.post("/v1/jobs", json=relax)
        assert third.status_code == 202
        for job in (second, third.json()):
            client.delete(job["urls"]["cancel"])


def test_a_spent_budget_is_refused_or_falls_to_relax_without_a_restart(server: Server) -> None:
    home = server.home
    with caller(server, "spender") as client:
        short = SHORT | a_source(client)
        calotype(home, "tenants", "set", "spender", "--fast-seconds-per-month", "0.001")
        job = client.post("/v1/jobs", json=short)  # overdraws it, as one job may
        assert job.status_code == 202
        answer = client.post("/v1/jobs", json=short)
        body = refused(answer)
        assert (body["bound"], body["field"], body["limit"]) == ("budget", "tier", 0.001)
        month_s = 30 * 86_400
        assert month_s - 3_600 < body["retry_after_s"] <= month_s
        assert "try again in 30 days" in body["detail"]
        calotype(home, "tenants", "set", "spender", "--when-spent", "relax")
        fell = client.post("/v1/jobs", json={**short, "tier": "turbo"}).json()
        assert (fell["tier"], fell["fell_from"]) == ("relax", "turbo")
        assert "spent" in fell["tier_detail"]
        assert ended(client, fell)["status"] == "succeeded"
        ended(client, job.json())
        assert balance(home, "spender").used_s > 0.001
        calotype(home, "tenants", "set", "spender", "--unlimited")
        assert client.post("/v1/jobs", json=short).json()["tier"] == "fast"


def test_a_cancelled_job_gives_back_what_was_not_used(server: Server) -> None:
    with caller(server, "regretful") as client:
        calotype(server.home, "tenants", "set", "regretful", "--fast-seconds-per-month", "500")
        job = client.post("/v1/jobs", json=LONG).json()
        charged = balance(server.home, "regretful")
        client.delete(job["urls"]["cancel"])
        deadline = time.monotonic() + 60
        while (after := balance(server.home, "regretful")).used_s >= charged.used_s:
            assert time.monotonic() < deadline, (charged, after)
        assert after.used_s >= 0


def test_the_command_line_says_it_in_words(server: Server) -> None:
    calotype(server.home, "tenants", "set", "waiter", "--fast-seconds-per-month", "0.001")
    with Client(Address(server.url, new_key(server, "waiter"))) as client:
        client.create(SHORT)
        with pytest.raises(Answered, match=r"device-seconds .* spent.*try again in 30 days"):
            client.create(SHORT)
