"""``/metrics``: what Prometheus reads of the warm pool, and what it never may."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.flow.dispatch_bench import eventually
from tests.rooms.api import FAKE, app_in, caller, job_of, owner, problem

MEMORY = "calotype_engine_memory_bytes"
DOCS = Path(__file__).parents[2] / "docs" / "pool.md"
LABELS = {
    "engine": {"engine-0"},
    "tier": {"turbo", "fast", "relax"},
    "place": {"warm", "staged", "failed"},
    "line": {"weights"},  # of the fake engine; a real one has the ledger's
}


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    more = {"engine_memory_bytes": 10**9, "engine_staging_bytes": 10**8, "heartbeat_s": 0.1}
    async with app_in(tmp_path, engine=FAKE, **more) as app, owner(app) as opened:
        yield opened


async def samples(client: httpx.AsyncClient) -> dict[str, list[tuple[dict[str, str], float]]]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = [*text_string_to_metric_families(answer.text)]
    assert len({family.name for family in families}) == len(families)
    assert all(family.documentation for family in families)
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


async def test_a_scrape_tells_of_bytes_models_loads_and_jobs_by_bounded_labels(
    client: httpx.AsyncClient,
) -> None:
    before = await samples(client)
    assert before["calotype_warm_hits_total"] == [({}, 0.0)]

    async def is_known() -> bool:
        return any(value for _, value in (await samples(client)).get(MEMORY, []))

    await eventually(is_known)
    job = await job_of(client)
    told = await samples(client)
    assert told["calotype_warm_hits_total"] == [({}, 1.0)]
    assert told["calotype_load_seconds_count"] == [({}, 0.0)], "what it began with isn't one"
    assert ({"engine": "engine-0", "place": "warm"}, 1.0) in told["calotype_engine_models"]
    assert told["calotype_engine_memory_budget_bytes"] == [({"engine": "engine-0"}, 1e9)]
    assert told["calotype_engine_staging_budget_bytes"] == [({"engine": "engine-0"}, 1e8)]
    assert told["calotype_engine_ready"] == [({"engine": "engine-0"}, 1.0)]
    waiting = {labels["tier"]: count for labels, count in told["calotype_jobs_waiting"]}
    assert waiting == dict.fromkeys(LABELS["tier"], 0.0)
    for each in told.values():
        for labels, _ in each:
            assert all(value in LABELS[name] for name, value in labels.items()), labels
    text = (await client.get("/metrics")).text
    for word in (job["id"], "vignette", "default"):
        assert word not in text


async def test_a_scrape_without_a_key_is_refused(client: httpx.AsyncClient) -> None:
    stranger = caller(client._transport.app, {})  # type: ignore[attr-defined]
    async with stranger:
        assert problem(await stranger.get("/metrics"), 401)["field"] == "Authorization"


async def test_what_all_tenants_do_together_is_for_operators_keys(
    client: httpx.AsyncClient,
) -> None:
    app = client._transport.app  # type: ignore[attr-defined]
    for scopes, status in ((("jobs",), 403), (("jobs", "operator"), 200), (("operator",), 200)):
        platform = app.state.platform
        _, secret = await platform.create_key(tenant="ada", name="hers", scopes=scopes)
        async with caller(app, {"Authorization": f"Bearer {secret}"}) as hers:
            for path in ("/metrics", "/v1/models/where"):
                answer = await hers.get(path)
                assert answer.status_code == status, (path, scopes)
                if status == 403:
                    assert problem(answer, 403)["limit"] == "operator"


async def test_each_metric_is_in_the_documentation_and_no_other(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text
    told = {re.sub("_total$", "", name) for name in re.findall(r"# TYPE (\S+) ", text)}
    named = {re.sub("_total$", "", it) for it in re.findall(r"`(calotype_\w+)`", DOCS.read_text())}
    assert told == named
