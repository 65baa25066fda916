"""HTTP for jobs that begin from pictures: sending one, asking for a job, and what is refused.

The platform is real, with the real processes that judge and sign; its engine is the fake one, which
gives a row's source back as its picture.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx_sse import aconnect_sse
from PIL import Image

from calotype.core import limits
from calotype.provenance.verification import verify
from calotype.safety.pdq import pdq, to_hex
from tests.adapters import make_control, make_lora
from tests.pictures import file_of, mask, picture, png_header
from tests.rooms.api import FAKE, ULID, app_in, caller, problem, refusal
from tests.tensors import lora, tensors

pytestmark = pytest.mark.asyncio(loop_scope="module")

PNG = {"Content-Type": "image/png"}
SIZE = {"width": 96, "height": 64}
BLOCKED = picture(seed=99)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    home = tmp_path_factory.mktemp("home")
    make_lora(home, "ink", title="In ink", bases=["vignette"], triggers=["ink wash", "zwx"])
    taught = make_lora(home, "taught", bases=["vignette"]) / "lora.safetensors"
    taught.write_bytes(tensors(lora(), told={"ss_tag_frequency": '{"10_zwx": {"nude": 9}}'}))
    make_lora(home, "quick", bases=["sdxl"], steps=4, guidance=1.0, sampler="lcm")
    make_lora(home, "foreign", bases=["other"])
    make_control(home, "edges", bases=["vignette"], control="canny")
    async with app_in(home, engine=FAKE, blocked_pictures=bank_in(home)) as opened:
        yield opened


def bank_in(home: Path) -> Path:
    """A list of blocked pictures that has one."""
    (home / "list.pdq").write_text(f"{to_hex(pdq(np.asarray(BLOCKED)).positions[0])} a picture\n")
    return home / "list.pdq"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stranger(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    _, secret = await app.state.platform.create_key(tenant="others", name="theirs")
    async with caller(app, {"Authorization": f"Bearer {secret}"}) as opened:
        yield opened


async def send(client: httpx.AsyncClient, image: Image.Image) -> dict[str, Any]:
    answer = await client.post("/v1/pictures", content=file_of(image), headers=PNG)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def made(client: httpx.AsyncClient, **ask: Any) -> dict[str, Any]:
    """The job once it is over."""
    answer = await client.post("/v1/jobs", json=ask)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    async with aconnect_sse(client, "GET", job["urls"]["events"]) as source:
        async for _ in source.aiter_sse():
            pass
    job = (await client.get(job["urls"]["self"])).json()
    assert job["status"] == "succeeded", job
    return job


async def pixels(client: httpx.AsyncClient, url: str) -> Any:
    return np.asarray(Image.open(io.BytesIO((await client.get(url)).content)).convert("RGB"))


# Sending pictures.


async def test_a_picture_that_is_sent_can_be_seen_and_is_the_same_when_sent_again(
    client: httpx.AsyncClient,
) -> None:
    body = await send(client, picture())
    assert body["id"].startswith("pic_")
    assert (body["width"], body["height"]) == (96, 64)
    assert body["sha256"] == hashlib.sha256(picture().tobytes()).hexdigest()
    assert (await pixels(client, body["url"]) == np.asarray(picture())).all()
    jpeg = {"Content-Type": "image/webp"}
    again = await client.post(
        "/v1/pictures", content=file_of(picture(), "webp", lossless=True), headers=jpeg
    )
    assert again.json()["id"] == body["id"]
    assert again.headers["location"] == f"/v1/pictures/{body['id']}"
    assert (await client.get(again.headers["location"])).json()["id"] == body["id"]


async def test_another_tenants_picture_looks_like_none(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    mine, theirs = await send(client, picture()), await send(stranger, picture())
    assert mine["id"] != theirs["id"]
    refusal(await stranger.get(f"/v1/pictures/{mine['id']}"), 404)
    ask = {"prompt": "a tent", "source": mine["id"]}
    assert refusal(await stranger.post("/v1/jobs", json=ask), 422)["field"] == "source"


@pytest.mark.parametrize("content", [b"", b"no picture", png_header(20_000, 20_000)])
async def test_what_is_no_picture_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.post("/v1/pictures", content=content, headers=PNG)
    assert refusal(answer, 422)["field"] == "picture"


async def test_another_media_type_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/pictures", content=b"GIF89a", headers={"Content-Type": "image/gif"}
    )
    assert refusal(answer, 415)["field"] == "Content-Type"


async def test_a_file_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    content = bytes(limits.PICTURE_BYTES_MAX + 1)
    answer = await client.post("/v1/pictures", content=content, headers=PNG)
    assert refusal(answer, 413)["limit"] == limits.PICTURE_BYTES_MAX


async def test_no_other_address_takes_so_much(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/jobs", content=bytes(limits.BODY_BYTES_MAX + 1))
    assert refusal(answer, 413)["limit"] == limits.BODY_BYTES_MAX


async def test_a_picture_known_to_be_blocked_is_refused_and_not_kept(app: FastAPI) -> None:
    folder = app.state.platform._settings.inputs_folder
    before = sorted(folder.rglob("*.png"))
    _, secret = await app.state.platform.create_key(tenant="sender", name="suspended by this")
    sender = caller(app, {"Authorization": f"Bearer {secret}"})
    for image in (BLOCKED, BLOCKED.transpose(Image.Transpose.ROTATE_90)):
        answer = await sender.post("/v1/pictures", content=file_of(image), headers=PNG)
        body = problem(answer, 422)
        assert (body["type"].rpartition(":")[2], body["category"]) == ("refused", "known")
    assert sorted(folder.rglob("*.png")) == before


async def test_a_tenant_has_room_for_so_many(
    stranger: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, app: FastAPI
) -> None:
    kept = await send(stranger, picture(seed=5))
    monkeypatch.setattr(limits, "PICTURES_PER_TENANT_MAX", 1)
    answer = await stranger.post("/v1/pictures", content=file_of(picture(seed=6)), headers=PNG)
    assert problem(answer, 429)["limit"] == 1
    assert (await send(stranger, picture(seed=5)))["id"] == kept["id"]  # no other: the same


# Jobs from them.


async def test_a_source_is_brought_to_the_jobs_size_and_named_in_the_manifest(
    client: httpx.AsyncClient,
) -> None:
    source = await send(client, picture(192, 128))
    job = await made(client, prompt="a tent", source=source["id"], strength=0.5, **SIZE)
    assert (job["kind"], job["source"], job["strength"]) == ("image", source["id"], 0.5)
    drawn = (await pixels(client, job["images"][0]["url"])).astype(int)
    assert np.abs(drawn - np.asarray(picture()).astype(int)).mean() < 3
    manifest = verify(
        (await client.get(job["images"][0]["url"])).content, anchors_pem=None
    ).manifest
    assert manifest is not None
    assert (manifest["version"], manifest["kind"], manifest["strength"]) == (2, "image", 0.5)
    assert manifest["source_sha256"] == source["sha256"]
    assert (manifest["loras"], manifest["mask_sha256"]) == ([], None)


async def test_left_open_the_size_is_of_the_sources_shape(client: httpx.AsyncClient) -> None:
    source = await send(client, picture(600, 300))
    job = await made(client, prompt="a tent", source=source["id"])
    assert (job["width"], job["height"]) == (184, 88)  # about 128 x 128 in all
    fits = await send(client, picture(128, 96))
    job = await made(client, prompt="a tent", source=fits["id"])
    assert (job["width"], job["height"]) == (128, 96)


async def test_progress_is_of_the_steps_that_the_engine_makes(client: httpx.AsyncClient) -> None:
    source = await send(client, picture())
    job = await made(client, prompt="a tent", source=source["id"], steps=10, strength=0.5)
    async with aconnect_sse(client, "GET", job["urls"]["events"]) as events:
        told = [event.json() async for event in events.aiter_sse() if event.event == "step"]
    assert [(each["step"], each["steps"]) for each in told] == [(at, 5) for at in range(1, 6)]


async def test_a_mask_makes_it_inpainting(client: httpx.AsyncClient) -> None:
    source, where = await send(client, picture()), await send(client, mask())
    job = await made(client, prompt="a tent", source=source["id"], mask=where["id"], **SIZE)
    assert (job["kind"], job["mask"]) == ("inpaint", where["id"])
    manifest = verify(
        (await client.get(job["images"][0]["url"])).content, anchors_pem=None
    ).manifest
    assert manifest is not None
    assert manifest["mask_sha256"] == where["sha256"]


async def test_adapters_are_listed_and_told_of(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert {"ink", "quick", "foreign"} <= {each["name"] for each in listed["loras"]}
    assert "edges" in {each["name"] for each in listed["controls"]}
    [model] = [each for each in listed["models"] if each["name"] == "vignette"]
    assert "flow_euler" not in model["samplers"]
    guide = await send(client, picture(seed=3))
    source = await send(client, picture())
    job = await made(
        client,
        prompt="a tent",
        source=source["id"],
        loras=[{"name": "ink", "weight": -1}],
        controls=[{"name": "edges", "picture": guide["id"], "end": 0.5}],
        **SIZE,
    )
    assert job["loras"] == [{"name": "ink", "weight": -1.0}]
    control = {"name": "edges", "picture": guide["id"], "weight": 1.0, "start": 0.0, "end": 0.5}
    assert job["controls"] == [{**control, "canny": True}]  # as it was trained
    manifest = verify(
        (await client.get(job["images"][0]["url"])).content, anchors_pem=None
    ).manifest
    assert manifest is not None
    [told] = manifest["controls"]
    assert told["picture_sha256"] == guide["sha256"]
    [lora] = manifest["loras"]
    assert (lora["name"], lora["weight"], len(lora["build"])) == ("ink", -1.0, 16)


async def test_the_words_of_a_lora_are_listed_and_read_with_the_prompt(
    client: httpx.AsyncClient,
) -> None:
    listed = (await client.get("/v1/models")).json()["loras"]
    words = {each["name"]: each["triggers"] for each in listed}
    assert (words["ink"], words["quick"]) == (["ink wash", "zwx"], [])
    assert words["taught"] == ["zwx", "nude"]
    answer = await client.post("/v1/jobs", json={"prompt": "a tent", "loras": [{"name": "taught"}]})
    told = problem(answer, 422)
    assert (told["field"], told["category"]) == ("loras[0].name", "sexual")
    assert told["detail"] == "The trigger words of the LoRA taught ask for sexual content."


async def test_a_lora_fills_in_what_the_caller_leaves_open(client: httpx.AsyncClient) -> None:
    ask = {"prompt": "a tent", "loras": [{"name": "quick"}]}
    job = (await client.post("/v1/jobs", json=ask)).json()
    assert (job["steps"], job["guidance"], job["sampler"]) == (4, 1.0, "lcm")
    job = (await client.post("/v1/jobs", json={**ask, "steps": 6, "sampler": "euler"})).json()
    assert (job["steps"], job["guidance"], job["sampler"]) == (6, 1.0, "euler")


async def parent_of(client: httpx.AsyncClient) -> tuple[dict[str, Any], dict[str, Any]]:
    source = await send(client, picture())
    ask = {"prompt": "a tent", "negative_prompt": "rain", "steps": 12, "seed": 7}
    loras = [{"name": "ink", "weight": 0.5}]
    job = await made(client, **ask, source=source["id"], loras=loras, **SIZE)
    return job, job["images"][0]


async def test_a_variation_takes_over_its_parents_recipe(client: httpx.AsyncClient) -> None:
    parent, image = await parent_of(client)
    job = await made(client, kind="vary_subtle", parent=image["id"])
    same = ("prompt", "negative_prompt", "model", "width", "height", "steps", "loras")
    assert [job[name] for name in same] == [parent[name] for name in same]
    assert (job["n"], job["strength"], job["source"]) == (4, 0.5, image["id"])
    assert len(job["images"]) == 4
    assert job["seed"] != parent["seed"]
    other = {"prompt": "a boat", "negative_prompt": "", "n": 1, "loras": []}
    job = await made(client, kind="vary_strong", parent=image["id"], **other)
    assert {name: job[name] for name in other} == other
    assert job["strength"] == 0.85


@pytest.mark.parametrize(("kind", "factor"), [("upscale_2x", 2), ("upscale_4x", 4)])
async def test_an_upscale_is_as_much_larger_though_the_model_draws_no_such_size(
    client: httpx.AsyncClient, kind: str, factor: int
) -> None:
    _, image = await parent_of(client)
    job = await made(client, kind=kind, parent=image["id"])
    assert (job["images"][0]["width"], job["images"][0]["height"]) == (96 * factor, 64 * factor)
    assert (job["n"], job["steps"], job["seed"]) == (1, limits.UPSCALE_STEPS_MIN, image["seed"])
    drawn = await pixels(client, job["images"][0]["url"])
    assert drawn.shape == (64 * factor, 96 * factor, 3)


async def test_a_finished_image_can_be_a_source(client: httpx.AsyncClient) -> None:
    _, image = await parent_of(client)
    job = await made(client, prompt="a boat", source=image["id"])
    assert (job["source"], job["parent"]) == (image["id"], None)
    seen = (await client.get(f"/v1/pictures/{image['id']}")).json()
    assert (await pixels(client, seen["url"])).shape == (64, 96, 3)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"strength": 0.5}, "strength"),
    ({"source": f"pic_{ULID}"}, "source"),
    ({"source": "../key"}, "source"),
    ({"source": "SOURCE", "strength": 0.0}, "strength"),
    ({"source": "SOURCE", "strength": 1.01}, "strength"),
    ({"source": "SOURCE", "strength": 0.05, "steps": 10}, "strength"),
    ({"source": "SOURCE", "steps": 1}, "steps"),
    ({"source": "SOURCE", "kind": "text"}, "source"),
    ({"kind": "image"}, "source"),
    ({"kind": "collage"}, "kind"),
    ({"kind": "inpaint", "source": "SOURCE"}, "mask"),
    ({"source": "SOURCE", "mask": "SMALL"}, "mask"),
    ({"parent": "SOURCE"}, "kind"),
    ({"parent": "SOURCE", "kind": "vary_subtle"}, "parent"),
    ({"parent": "IMAGE", "kind": "vary_subtle", "source": "SOURCE"}, "source"),
    ({"parent": "IMAGE", "kind": "upscale_2x", "width": 128}, "width"),
    ({"parent": f"img_{ULID}", "kind": "upscale_2x"}, "parent"),
    ({"loras": [{"name": "nope"}]}, "loras[0].name"),
    ({"loras": [{"name": "ink"}, {"name": "foreign"}]}, "loras[1].name"),
    ({"loras": [{"name": "ink"}, {"name": "ink"}]}, "loras[1].name"),
    ({"loras": [{"name": "ink", "weight": 4.1}]}, "loras[0].weight"),
    ({"loras": [{"name": "ink", "weight": "1"}]}, "loras[0].weight"),
    ({"loras": [{"name": "ink", "wight": 1}]}, "loras[0]"),
    ({"loras": [{"name": "ink"}] * 6}, "loras"),
    ({"loras": "ink"}, "loras"),
    ({"controls": [{"name": "edges"}]}, "controls[0].picture"),
    ({"controls": [{"name": "nope", "picture": "SOURCE"}]}, "controls[0].name"),
    ({"controls": [{"name": "edges", "picture": "pic_"}]}, "controls[0].picture"),
    ({"controls": [{"name": "edges", "picture": "SOURCE", "weight": -1}]}, "controls[0].weight"),
    (
        {"controls": [{"name": "edges", "picture": "SOURCE", "start": 0.5, "end": 0.5}]},
        "controls[0].end",
    ),
    ({"controls": [{"name": "edges", "picture": "SOURCE"}] * 4}, "controls"),
    ({"sampler": "flow_euler"}, "sampler"),
]


@pytest.mark.parametrize(("ask", "field"), BAD)
async def test_what_may_not_be_names_its_field_and_limit(
    client: httpx.AsyncClient, ask: dict[str, Any], field: str
) -> None:
    names = {"SOURCE": (await send(client, picture()))["id"]}
    names["SMALL"] = (await send(client, mask(48, 64)))["id"]
    if "IMAGE" in ask.values():
        names["IMAGE"] = (await parent_of(client))[1]["id"]
    body = {"prompt": "a tent", **ask}
    for at, value in body.items():
        if isinstance(value, str):
            body[at] = names.get(value, value)
    if isinstance(body.get("controls"), list):
        body["controls"] = [
            {**each, **({"picture": names["SOURCE"]} if each.get("picture") == "SOURCE" else {})}
            for each in body["controls"]
        ]
    assert refusal(await client.post("/v1/jobs", json=body), 422)["field"] == field


async def test_an_upscale_past_its_limit_is_refused(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, image = await parent_of(client)
    monkeypatch.setattr(limits, "UPSCALE_PX_MAX", 300)
    ask = {"kind": "upscale_4x", "parent": image["id"]}
    assert refusal(await client.post("/v1/jobs", json=ask), 422)["limit"] == {"max_px": 300}


async def test_pictures_that_no_message_could_carry_are_refused(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, guide = await send(client, picture()), await send(client, picture(seed=3))
    controls = [{"name": "edges", "picture": guide["id"]}]
    monkeypatch.setattr(limits, "ENGINE_MESSAGE_BYTES_MAX", 96 * 64 * 5)
    ask = {"prompt": "a tent", "source": source["id"], "controls": controls, **SIZE}
    assert refusal(await client.post("/v1/jobs", json=ask), 422)["field"] == "controls"
