"""Reviews over HTTP, from a score that nobody is sure of to a picture that people let out.

The engine is the fake one: a word in the prompt has its checks doubt a benign picture.
"""

from __future__ import annotations

import asyncio
import io
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from PIL import Image

from calotype.core.nouns import Budget
from calotype.flow.gate import balances
from calotype.safety.pdq import pdq, to_hex
from tests.pictures import file_of, picture
from tests.rooms.api import FAKE, HEIGHT, WIDTH, app_in, caller, problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAFETY = """
default = "seen"
[policies.seen]
extends = "pg13"
[policies.seen.review]
outside = 0.3
[conduct]
uncounted = ["damaged", "unjudgeable"]
[conduct.ordinary]
strikes = 4
tenant_strikes = 100
"""
CANARY = picture(WIDTH, HEIGHT, 99)  # a benign picture that is on the list of known ones


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    import numpy as np

    home = tmp_path_factory.mktemp("home")
    (home / "safety.toml").write_text(SAFETY)
    hashes = home / "canaries.txt"
    hashes.write_text(to_hex(pdq(np.asarray(CANARY.convert("RGB"))).positions[0]) + "\n")
    async with app_in(home, engine=FAKE, blocked_pictures=hashes) as opened:
        yield opened


async def person(app: FastAPI, tenant: str, *scopes: str, user: str = "ada") -> httpx.AsyncClient:
    _, secret = await app.state.platform.create_key(
        tenant=tenant, user=user, name="theirs", scopes=scopes or ("jobs",)
    )
    return caller(app, {"Authorization": f"Bearer {secret}"})


async def reviewer(app: FastAPI, user: str) -> httpx.AsyncClient:
    return await person(app, "staff", "review", user=user)


async def ask(client: httpx.AsyncClient, word: str, seed: int = 1) -> dict[str, Any]:
    file = file_of(picture(WIDTH, HEIGHT, seed))
    sent = await client.post("/v1/pictures", content=file, headers={"Content-Type": "image/png"})
    body = {"prompt": f"a tent {word}", "source": sent.json()["id"], "strength": 0.5, "seed": seed}
    answer = await client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return await settled(client, answer.json()["id"])


async def settled(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(120):
        while True:
            job: dict[str, Any] = (await client.get(f"/v1/jobs/{job_id}")).json()
            if job["status"] in ("succeeded", "failed", "in_review"):
                return job
            await asyncio.sleep(0.02)


async def review_of(reader: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    listed = (await reader.get("/v1/reviews?limit=100")).json()["reviews"]
    [found] = [it for it in listed if it["job"] == job["id"]]
    return dict(found)


async def decide(
    reader: httpx.AsyncClient, review: dict[str, Any], decision: str
) -> httpx.Response:
    body = {"decision": decision, "reason": "looked at"}
    return await reader.post(f"/v1/reviews/{review['id']}/decision", json=body)


async def test_what_a_check_doubts_is_held_seen_and_let_out(app: FastAPI) -> None:
    tenant, reader = await person(app, "held"), await reviewer(app, "bob")
    job = await ask(tenant, "doubtful")
    assert job["status"] == "in_review"
    assert job["images"] == []
    assert job["eta"]["reason"] == "a person has to look at it first"
    review = await review_of(reader, job)
    assert (review["state"], review["category"], review["score"]) == ("held", "outside", 0.4)
    path = f"/v1/reviews/{review['id']}"
    coarse = await reader.get(f"{path}/picture")
    assert coarse.headers["cache-control"] == "no-store"
    assert max(Image.open(io.BytesIO(coarse.content)).size) == 32
    store = app.state.platform.people.reviews._store
    assert [it.kind for it in await store.people.audit.of(review["id"])] == ["opened"]
    whole = await reader.get(f"{path}/picture?size=whole")
    assert Image.open(io.BytesIO(whole.content)).size == (WIDTH, HEIGHT)
    assert [it.kind for it in await store.people.audit.of(review["id"])] == ["opened", "seen"]
    shown = (await reader.get(path)).json()
    assert (shown["prompt"], shown["votes"]) == ("a tent doubtful", [])
    assert (await decide(reader, review, "allow")).json()["state"] == "allowed"
    job = (await tenant.get(f"/v1/jobs/{job['id']}")).json()
    assert (job["status"], job["error"], job["refused"]) == ("succeeded", None, [])
    [image] = job["images"]
    async with caller(app, {}) as anyone:
        served = await anyone.get(image["url"])
        assert served.status_code == 200
        said = await anyone.post("/v1/images/verify", content=served.content)
    assert said.json()["verdict"] == "ours"
    problem(await decide(reader, review, "allow"), 409)
    sealed = app.state.platform._settings.sealed_folder / "pictures"
    assert image["id"] in str(list(sealed.iterdir()))
    await app.state.platform.people.reviews.let_go()
    assert image["id"] not in str(list(sealed.iterdir())), "decided for good: it isn't kept"


async def test_a_refused_job_is_appealed_once_and_decided_by_somebody_else(app: FastAPI) -> None:
    tenant = await person(app, "appeals")
    bob, cay = await reviewer(app, "bob"), await reviewer(app, "cay")
    job = await ask(tenant, "doubtful", 2)
    assert (await decide(bob, await review_of(bob, job), "block")).json()["state"] == "blocked"
    job = (await tenant.get(f"/v1/jobs/{job['id']}")).json()
    assert (job["status"], job["error"]["check"]) == ("failed", "people")
    appeal = f"/v1/jobs/{job['id']}/appeal"
    problem(await (await person(app, "others")).post(appeal, json={"reason": "mine?"}), 404)
    answer = await tenant.post(appeal, json={"reason": "it is a tent"})
    assert answer.status_code == 202
    problem(await tenant.post(appeal, json={"reason": "again"}), 409)
    review = await review_of(cay, job)
    assert (review["state"], review["appeal"]) == ("appealed", "it is a tent")
    problem(await decide(bob, review, "allow"), 403)
    assert (await decide(cay, review, "allow")).json()["state"] == "allowed"
    job = (await tenant.get(f"/v1/jobs/{job['id']}")).json()
    assert (job["status"], len(job["images"])) == ("succeeded", 1)


async def test_what_a_check_refuses_can_be_appealed_too(app: FastAPI) -> None:
    tenant, reader = await person(app, "checked"), await reviewer(app, "bob")
    job = await ask(tenant, "offending", 3)
    assert (job["status"], job["error"]["category"]) == ("failed", "outside")
    await tenant.post(f"/v1/jobs/{job['id']}/appeal", json={"reason": "it is a tent"})
    review = await review_of(reader, job)
    assert (await decide(reader, review, "block")).json()["state"] == "upheld"
    job = (await tenant.get(f"/v1/jobs/{job['id']}")).json()
    assert job["images"] == []


async def test_each_key_does_what_it_is_for(app: FastAPI) -> None:
    tenant, reader = await person(app, "scopes"), await reviewer(app, "dan")
    for path in ("/v1/reviews", "/v1/reviews/rev_1", "/v1/reviews/rev_1/picture"):
        problem(await tenant.get(path), 403)
    problem(await decide(tenant, {"id": "rev_1"}, "allow"), 403)
    problem(await reader.get("/v1/jobs"), 403)
    problem(await reader.post("/v1/jobs", json={"prompt": "a tent"}), 403)
    problem(await reader.get("/v1/reviews/rev_1"), 404)
    problem(await decide(reader, {"id": "rev_1"}, "allow"), 404)
    async with caller(app, {}) as nobody:
        problem(await nobody.get("/v1/reviews"), 401)


async def test_who_asked_does_not_decide(app: FastAPI) -> None:
    both = await person(app, "both", "jobs", "review")
    job = await ask(both, "doubtful", 4)
    problem(await decide(both, await review_of(both, job), "allow"), 403)
    refused = await both.post(
        f"/v1/reviews/{(await review_of(both, job))['id']}/decision",
        json={"decision": "perhaps", "reason": "x"},
    )
    problem(refused, 422)
    cancelled = await both.delete(f"/v1/jobs/{job['id']}")
    assert cancelled.json()["status"] == "cancelled"


async def test_refusals_suspend_an_account_and_cost_nothing(app: FastAPI) -> None:
    tenant, store = await person(app, "often"), app.state.platform.people.reviews._store
    await store.budgets.put("often", Budget(1000.0))
    for seed in range(4):
        assert (await ask(tenant, "offending", seed))["status"] == "failed"
    said = problem(await tenant.post("/v1/jobs", json={"prompt": "a harmless tent"}), 403)
    assert said["type"].endswith(":suspended")
    assert (said["rule"], said["until"] is not None) == ("repeated-refusals", True)
    assert "outside" not in said["detail"]
    listed = await tenant.get("/v1/jobs")
    assert listed.status_code == 200, "what was made before is there"
    assert (await balances(store))["often"][1].used_s == 0.0
    assert await store.people.strikes.lift("often", None, by="operator", reason="a test") == 1
    assert (await ask(tenant, "", 9))["status"] == "succeeded"
    assert (await balances(store))["often"][1].used_s > 0.0


async def test_a_known_picture_that_is_sent_is_a_case_and_freezes_the_account(
    app: FastAPI,
) -> None:
    tenant, store = await person(app, "sender"), app.state.platform.people.reviews._store
    data = file_of(CANARY)
    sent = await tenant.post("/v1/pictures", content=data, headers={"Content-Type": "image/png"})
    problem(sent, 422)
    [case] = [it for it in await store.people.cases.every() if it.tenant == "sender"]
    assert (case.kind, case.category, case.state.value) == ("sent", "known", "prepared")
    assert await app.state.platform.people.cases.unsealed(case) == data
    said = problem(await tenant.post("/v1/jobs", json={"prompt": "a harmless tent"}), 403)
    assert (said["rule"], said["until"]) == ("severe-refusal", None)
    assert modes(app.state.platform._settings.sealed_folder) == {0o600}


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*.sealed")}
