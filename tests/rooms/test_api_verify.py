"""Where a picture came from, asked over HTTP: by anyone, with any file, and by many at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest
from fastapi import FastAPI

from calotype.core import limits
from calotype.provenance.log_proofs import audit
from tests.rooms.api import image_of, problem, refusal, roots

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_everybody_can_ask_where_a_picture_came_from(
    anyone: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    image = await image_of(client)
    file = (await anyone.get(image["url"])).content
    answer = (await anyone.post("/v1/images/verify", content=file)).json()
    assert (answer["verdict"], answer["confidence"]) == ("ours", "proven")
    assert answer["c2pa"]["manifest"]["image"] == image["id"]
    assert answer["hash_log"]["image"] == image["id"]
    assert answer["hash_log"]["proven"] is True
    for at in range(3, len(file), len(file) // 25):  # also where the claim leaves itself out
        changed = file[:at] + bytes([file[at] ^ 1]) + file[at + 1 :]
        answer = (await anyone.post("/v1/images/verify", content=changed)).json()
        assert answer["verdict"] != "ours", at


async def test_everybody_can_have_a_picture_shown_in_the_log_and_the_log_checked(
    app: FastAPI, anyone: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    kept = (await anyone.get("/v1/log/head")).json()
    file = (await anyone.get((await image_of(client, seed=77))["webp_url"])).content
    sha256 = hashlib.sha256(file).hexdigest()
    head = (await anyone.get("/v1/log/head")).json()
    first, count = kept["head"]["count"], head["head"]["count"]
    assert count > first
    assert (await anyone.get("/v1/log/head")).json() == head, "not signed for each who asks"
    answers = {
        "entry": await anyone.get(f"/v1/log/entries/{sha256}?count={count}"),
        "link": await anyone.get(f"/v1/log/consistency?first={first}&count={count}"),
    }
    documents = {name: answer.json() for name, answer in answers.items()}
    documents |= {"kept": kept, "head": head}
    findings = audit(documents, {"file": sha256}, anchors_pem=roots(app))
    assert len(findings) == 5
    assert all(each.is_good for each in findings), findings
    for address, status in (
        (f"/v1/log/entries/{'0' * 64}", 404),
        ("/v1/log/entries/x", 404),
        (f"/v1/log/entries/{sha256}?count={first}", 422),
        (f"/v1/log/consistency?first={count + 1}", 422),
        ("/v1/log/consistency?first=-1", 422),
        ("/v1/log/consistency", 422),
        ("/v1/log/consistency?first=1&last=2", 422),
    ):
        refusal(await anyone.get(address), status)


async def test_hostile_files_get_an_answer_over_http(anyone: httpx.AsyncClient) -> None:
    for content in (b"x", b"\x89PNG\r\n\x1a\n" + bytes(500), b"GIF89a" + bytes(90), bytes(5000)):
        answer = await anyone.post("/v1/images/verify", content=content)
        assert answer.status_code == 200, answer.text
        assert answer.json()["verdict"] == "not_ours"
    refusal(await anyone.post("/v1/images/verify"), 422)
    huge = bytes(limits.PICTURE_BYTES_MAX + 1)
    refusal(await anyone.post("/v1/images/verify", content=huge), 413)


async def test_too_many_questions_at_one_time_are_put_off(
    app: FastAPI, anyone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VERIFIES_WAITING_MAX", 0)
    answer = await anyone.post("/v1/images/verify", content=b"x")
    problem(answer, 429)
    assert answer.headers["retry-after"]


async def test_files_that_are_still_being_sent_hold_up_nobody(
    anyone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VERIFIES_WAITING_MAX", 1)
    begun, may_go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x"
        begun.release()
        await may_go_on.wait()
        yield b"y"

    post = partial(anyone.post, "/v1/images/verify")
    sending = [asyncio.create_task(post(content=slowly())) for _ in range(20)]
    for _ in sending:
        await begun.acquire()
    assert (await post(content=b"x")).status_code == 200
    monkeypatch.setattr(limits, "VERIFIES_WAITING_MAX", 20)
    may_go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*sending)} == {200}


async def test_files_hold_so_much_memory_together_and_no_more(
    anyone: httpx.AsyncClient, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LARGE_BODIES_BYTES_MAX", 5_000)
    begun, may_go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield bytes(4_000)
        begun.set()
        await may_go_on.wait()

    post = partial(anyone.post, "/v1/images/verify")
    sending = asyncio.create_task(post(content=slowly()))
    await begun.wait()
    answer = await post(content=bytes(2_000))
    problem(answer, 429)
    assert answer.headers["retry-after"]
    assert (await post(content=bytes(900))).status_code == 200
    refusal(await client.post("/v1/jobs", json={"prompt": 7}), 422)  # others aren't held up
    may_go_on.set()
    assert (await sending).status_code == 200
    assert (await post(content=bytes(4_000))).status_code == 200, "what is over holds nothing"
