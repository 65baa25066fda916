"""Pictures over HTTP: forms, sizes, caching, parts, deletion; from a folder and from a bucket.

The platform is real, with the real processes that sign; its engine is the fake one, which gives a
row's source back as its picture.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from PIL import Image

from calotype.core import limits
from calotype.delivery.formats import FORMS
from calotype.flow.sweep import sweep_apart
from calotype.provenance import receipts
from calotype.provenance.verification import verify
from tests.rooms.api import FAKE, HEIGHT, WIDTH, app_in, caller, image_of, problem, refusal, roots
from tests.s3 import KEYS, S3

pytestmark = pytest.mark.asyncio(loop_scope="module")


APART = """adults = ["acme/ada"]
[tenants]
acme = "grown"
[policies.grown]
extends = "mature"
[pools.mature]
engines = 1
store = "PLACE"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["folder", "bucket"])
async def app(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FastAPI]:
    home, place, more = tmp_path_factory.mktemp("home"), "apart", dict[str, Any](engines=2)
    buckets: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "bucket":
            s3: S3 = request.getfixturevalue("s3")
            buckets = {whose: s3.new_bucket() for whose in ("all", "withdrawn", "pool")}
            place = f"s3://{buckets['pool']}/curtain"
            more |= {"store_url": f"s3://{buckets['all']}/house", "s3_endpoint": s3.endpoint}
            more |= {"quarantine_url": f"s3://{buckets['withdrawn']}"}
            for name, value in KEYS.items():
                patch.setenv(name, value)
        (home / "safety.toml").write_text(APART.replace("PLACE", place))
        async with app_in(home, engine=FAKE, **more) as opened:
            opened.state.buckets = buckets
            yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def image(client: httpx.AsyncClient) -> dict[str, Any]:
    return await image_of(client)


def opened(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    drawn = Image.open(io.BytesIO(answer.content))
    drawn.load()
    return drawn


# Forms and sizes.


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_is_served_as_it_was_signed(
    app: FastAPI, anyone: httpx.AsyncClient, image: dict[str, Any], form: str
) -> None:
    answer = await anyone.get(image["urls"][form])
    assert answer.headers["content-type"] == f"image/{form}"
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()[:32]}"'
    assert (opened(answer).format, opened(answer).size) == (form.upper(), (WIDTH, HEIGHT))
    report = verify(answer.content, anchors_pem=roots(app))
    assert (report.state, report.codes) == ("trusted", ())
    assert report.manifest is not None
    assert report.manifest["image"] == image["id"]
    assert len(report.ingredients) == 1, "the picture that its job began from"
    assert (await anyone.get(image["urls"][form])).content == answer.content


async def test_a_smaller_size_is_of_the_same_shape_and_signed_itself(
    app: FastAPI, anyone: httpx.AsyncClient, image: dict[str, Any]
) -> None:
    assert list(image["sizes"]) == ["64", "128"]  # none larger than the picture
    answer = await anyone.get(image["sizes"]["128"], headers={"Accept": "image/png"})
    assert opened(answer).size == (128, 96)
    report = verify(answer.content, anchors_pem=roots(app))
    assert report.state == "trusted"
    whole = verify((await anyone.get(image["url"])).content, anchors_pem=roots(app))
    assert report.mark == whole.mark
    assert report.ingredients == whole.ingredients


async def test_the_accept_header_chooses_where_the_address_leaves_it_open(
    anyone: httpx.AsyncClient, image: dict[str, Any]
) -> None:
    address = image["sizes"]["64"]
    for accept, form in (("*/*", "webp"), ("image/avif", "avif"), ("image/jpeg", "jpeg")):
        answer = await anyone.get(address, headers={"Accept": accept})
        assert answer.headers["content-type"] == f"image/{form}"
        assert answer.headers["vary"] == "Accept"
        assert f'.{form}"' in answer.headers["content-disposition"]
    refused = refusal(await anyone.get(address, headers={"Accept": "text/html"}), 406)
    assert "image/webp" in refused["limit"]
    assert "vary" not in (await anyone.get(image["url"])).headers


async def test_a_form_is_made_once_however_many_ask_for_it(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await image_of(client, seed=2)
    finisher, rendered = app.state.platform._finisher, []
    real = finisher.render

    async def render(rendition: Any) -> bytes:
        rendered.append(rendition.form)
        return bytes(await real(rendition))

    monkeypatch.setattr(finisher, "render", render)
    answers = await asyncio.gather(*(client.get(image["urls"]["jpeg"]) for _ in range(5)))
    assert len({answer.content for answer in answers}) == 1
    assert rendered == ["jpeg"]


async def test_too_many_forms_at_one_time_are_put_off(
    client: httpx.AsyncClient, image: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = await image_of(client, seed=3)
    monkeypatch.setattr(limits, "RENDITIONS_WAITING_MAX", 0)
    answer = await client.get(fresh["urls"]["avif"])
    problem(answer, 429)
    assert answer.headers["retry-after"] == "1"
    assert (await client.get(fresh["url"])).status_code == 200  # what is there is served


async def test_a_form_whose_picture_was_taken_away_meanwhile_is_not_kept(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, gallery = await image_of(client, seed=8), app.state.platform.gallery
    real = gallery.pictures.put

    async def put(name: str, data: bytes) -> None:
        await real(name, data)
        await gallery.removals.delete(image["id"], by="another")

    monkeypatch.setattr(gallery.pictures, "put", put)
    problem(await client.get(image["urls"]["jpeg"]), 404)
    names = [name async for page in gallery.pictures.names() for name in page]
    assert not [name for name in names if image["id"] in name]


async def test_only_listed_sizes_and_forms_can_be_asked_for(
    anyone: httpx.AsyncClient, image: dict[str, Any]
) -> None:
    query = image["url"].partition("?")[2]
    for name in ("-100.png", ".gif", "-64.gif", ".png.webp", "-64-64.png", ""):
        answer = await anyone.get(f"/v1/images/{image['id']}{name}?{query}")
        problem(answer, 401 if name == "" else 404)


async def test_an_address_shows_one_form_in_one_size(
    anyone: httpx.AsyncClient, image: dict[str, Any]
) -> None:
    path, _, query = image["url"].partition("?")
    for other in (path.replace(".png", ".webp"), path.replace(".png", "-64.png")):
        problem(await anyone.get(f"{other}?{query}"), 401)
    no_such = re.sub("img_.{26}", "img_01ARZ3NDEKTSV4RRFFQ69G5FAV", image["url"])
    problem(await anyone.get(no_such), 401)  # as if the signature were wrong: nothing is told
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await anyone.request(method, image["url"])).status_code in (401, 404, 405), method
    assert (await anyone.get(image["url"])).status_code == 200


# Caching and parts.


async def test_what_a_browser_has_is_not_sent_again(
    anyone: httpx.AsyncClient, image: dict[str, Any]
) -> None:
    whole = await anyone.get(image["url"])
    control = whole.headers["cache-control"]
    assert re.fullmatch(r"private, max-age=\d+, immutable", control)
    etag = whole.headers["etag"]
    for same in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        answer = await anyone.get(image["url"], headers={"If-None-Match": same})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
        assert "content-length" not in answer.headers
    other = await anyone.get(image["url"], headers={"If-None-Match": '"other"'})
    assert other.content == whole.content
    head = await anyone.head(image["url"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-9", 0, 10), ("bytes=10-", 10, None), ("bytes=-5", -5, None),
     ("bytes=0-999999999", 0, None)],
)  # fmt: skip
async def test_a_part_can_be_asked_for(
    anyone: httpx.AsyncClient, image: dict[str, Any], asked: str, start: int, end: int | None
) -> None:
    whole = (await anyone.get(image["url"])).content
    part = await anyone.get(image["url"], headers={"Range": asked})
    assert (part.status_code, part.content) == (206, whole[start:end])
    first = start % len(whole)
    last = first + len(part.content) - 1
    assert part.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"


@pytest.mark.parametrize("asked", ["bytes=9-3", "bytes=-", "lines=1-2", "bytes=0-1,5-6", "bytes=x"])
async def test_what_is_no_single_range_gives_the_whole(
    anyone: httpx.AsyncClient, image: dict[str, Any], asked: str
) -> None:
    answer = await anyone.get(image["url"], headers={"Range": asked})
    assert answer.status_code == 200


async def test_a_part_that_is_not_there_is_refused_and_an_old_one_gives_the_whole(
    anyone: httpx.AsyncClient, image: dict[str, Any]
) -> None:
    refusal(await anyone.get(image["url"], headers={"Range": "bytes=99999999-"}), 416)
    old = {"Range": "bytes=0-9", "If-Range": '"another"'}
    assert (await anyone.get(image["url"], headers=old)).status_code == 200
    etag = (await anyone.head(image["url"])).headers["etag"]
    fresh = {"Range": "bytes=0-9", "If-Range": etag}
    assert (await anyone.get(image["url"], headers=fresh)).status_code == 206


async def test_shared_caches_are_told_so_and_by_what_to_forget(
    app: FastAPI,
    anyone: httpx.AsyncClient,
    image: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app.state.platform.gallery, "is_shared", True)
    answer = await anyone.get(image["url"])
    assert answer.headers["cache-control"].startswith("public, ")
    assert answer.headers["cache-tag"] == answer.headers["surrogate-key"] == image["id"]


# The store.


async def test_a_file_that_was_changed_in_the_store_is_not_served(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    image = await image_of(client, seed=4)
    gallery = app.state.platform.gallery
    found = await gallery.delivery.find(image["id"])
    name = found.file("png", 0).name
    data = bytearray(await gallery.pictures.get(name))
    data[-1] ^= 1
    await gallery.pictures._of(name)._write(name, bytes(data))
    answer = await client.get(image["url"])
    assert answer.status_code == 500
    assert b"\x89PNG" not in answer.content  # an id of a request may have the letters


async def test_a_redirect_leads_to_the_bucket_itself(
    app: FastAPI, anyone: httpx.AsyncClient, image: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = app.state.platform.gallery
    monkeypatch.setattr(gallery.showing, "_redirect_s", 60)
    answer = await anyone.get(image["url"])
    if not app.state.platform._settings.store_url:
        assert answer.status_code == 200  # a folder has no addresses
        return
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    async with httpx.AsyncClient() as outside:
        direct = await outside.get(answer.headers["location"])
    assert hashlib.sha256(direct.content).hexdigest() == image["sha256"]
    problem(await anyone.get(image["url"].replace("signature=", "signature=x")), 401)


# Taking away.


async def test_a_deleted_picture_is_gone_for_good_with_a_receipt(
    app: FastAPI, client: httpx.AsyncClient, anyone: httpx.AsyncClient
) -> None:
    image = await image_of(client, seed=5)
    path, gallery = f"/v1/images/{image['id']}", app.state.platform.gallery
    hashes = {
        hashlib.sha256((await anyone.get(address)).content).hexdigest()
        for address in (image["urls"]["png"], image["urls"]["webp"], image["urls"]["avif"])
    }
    refusal(await client.get(f"{path}/receipt"), 404)
    answer = await client.delete(f"{path}?reason=asked+for")
    body = receipts.check(answer.json(), anchors_pem=roots(app))
    assert (body["image"], body["kind"], body["reason"]) == (image["id"], "deleted", "asked for")
    assert {file["sha256"] for file in body["files"]} == hashes
    for address in (image["url"], image["webp_url"], image["urls"]["jpeg"]):
        problem(await anyone.get(address), 404)
    names = [name async for page in gallery.pictures.names() for name in page]
    assert not [name for name in names if image["id"] in name]
    assert (await client.delete(path)).json() == answer.json()
    assert (await client.get(f"{path}/receipt")).json() == answer.json()
    forged = answer.json() | {"receipt": body | {"reason": "another"}}
    with pytest.raises(Exception, match="changed"):
        receipts.check(forged, anchors_pem=roots(app))


async def test_a_picture_is_deleted_by_its_tenant_only(
    app: FastAPI, client: httpx.AsyncClient, anyone: httpx.AsyncClient, image: dict[str, Any]
) -> None:
    _, secret = await app.state.platform.create_key(tenant="others", name="theirs")
    async with caller(app, {"Authorization": f"Bearer {secret}"}) as stranger:
        refusal(await stranger.delete(f"/v1/images/{image['id']}"), 404)
        refusal(await stranger.get(f"/v1/images/{image['id']}/receipt"), 404)
    problem(await anyone.delete(f"/v1/images/{image['id']}"), 401)
    assert (await anyone.get(image["url"])).status_code == 200


async def test_a_withdrawn_picture_lies_apart_until_it_is_released(
    app: FastAPI, client: httpx.AsyncClient, anyone: httpx.AsyncClient
) -> None:
    image, gallery = await image_of(client, seed=6), app.state.platform.gallery
    before = (await anyone.get(image["url"])).content
    await gallery.removals.withdraw(image["id"], by="operator", reason="looked at")
    problem(await anyone.get(image["url"]), 404)
    apart = [name async for page in gallery._apart.names() for name in page]
    assert sorted(name.rpartition(".")[2] for name in apart) == ["png", "webp"]
    store = app.state.platform._store
    assert await sweep_apart(store, gallery.pictures, gallery._apart) == 0
    await gallery.removals.release(image["id"])
    assert (await anyone.get(image["url"])).content == before
    for name in apart:  # as a release leaves them that was killed before its end
        await gallery._apart.put(name, await gallery.pictures.get(name))
    assert await sweep_apart(store, gallery.pictures, gallery._apart) == 2
    assert (await anyone.get(image["url"])).content == before
    assert not [name async for page in gallery._apart.names() for name in page]


async def test_a_tenants_links_can_be_revoked(
    app: FastAPI, client: httpx.AsyncClient, anyone: httpx.AsyncClient
) -> None:
    image, platform = await image_of(client, seed=7), app.state.platform
    assert (await anyone.get(image["url"])).status_code == 200
    await platform._store.files.revoke_links("default")
    await platform.gallery.addresses.load()
    problem(await anyone.get(image["url"]), 401)
    job = (await client.get("/v1/jobs?limit=1")).json()["jobs"][0]
    assert (await anyone.get(job["images"][0]["url"])).status_code == 200


# A pool of its own.


async def test_what_a_pool_makes_lies_in_its_bucket_alone_and_is_shown_by_this_server(
    app: FastAPI, anyone: httpx.AsyncClient, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not app.state.buckets:
        return  # in folders: tests/flow/test_pools.py
    platform = app.state.platform
    monkeypatch.setattr(platform.gallery.showing, "_redirect_s", 60)  # as store_redirects has it
    _, secret = await platform.create_key(tenant="acme", name="hers", user="ada")
    async with caller(app, {"Authorization": f"Bearer {secret}"}) as ada:
        image = await image_of(ada, seed=8)

    def new() -> list[str]:
        """What lies in the pool's bucket; the others have nothing of it."""
        found = {whose: s3.keys(bucket) for whose, bucket in app.state.buckets.items()}
        others = found["all"] + found["withdrawn"]
        assert not [name for name in others if image["id"] in name or "mature" in name]
        return found["pool"]

    addresses = [*image["urls"].values(), *image["sizes"].values()]
    for address in addresses:
        answer = await anyone.get(address)
        assert answer.status_code == 200, "it is never a redirect"
        assert answer.headers["cache-control"] == "private, no-store"
        problem(await anyone.get(address.replace("signature=", "signature=x")), 401)
    assert len(new()) == len(addresses)
    assert all("curtain/pictures/mature/" in name and image["id"] in name for name in new())
    await platform.gallery.removals.withdraw(image["id"], by="operator", reason="looked at")
    problem(await anyone.get(image["url"]), 404)
    assert len(new()) == len(addresses)
    assert all("curtain/quarantine/mature/" in name for name in new())
    await platform.gallery.removals.delete(image["id"], by="operator")
    assert new() == []
