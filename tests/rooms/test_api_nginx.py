"""nginx in front of a real server, with the set-ups of docs/delivery.md."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from tests import nginx
from tests.rooms.api import FAKE, app_in, job_of, on_a_port

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        nginx.find() is None, reason="no nginx: `python -m tests.nginx` installs it"
    ),
]

DOCS = Path(__file__).parents[2] / "docs" / "delivery.md"


def of_docs(word: str) -> str:
    """The block of the documentation that has this word."""
    blocks: list[str] = re.findall(r"```\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return next(block for block in blocks if word in block)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    home = tmp_path_factory.mktemp("home")
    async with app_in(home, engine=FAKE, shared_caches=True) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin(app: FastAPI) -> AsyncIterator[str]:
    """The app on a port of its own."""
    async with on_a_port(app) as where:
        yield where


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["plain", "cached"])
async def front(
    request: pytest.FixtureRequest, origin: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """nginx's address."""
    folder = tmp_path_factory.mktemp("nginx")
    proxied = re.search(r"location / \{.*\}", of_docs("listen 443 ssl"))
    assert proxied is not None
    server, http = proxied[0], ""
    if request.param == "cached":
        cache, _, location = of_docs("proxy_cache_path").partition(";\n")
        http = cache.replace("/var/cache/nginx/pictures", str(folder / "cache")) + ";"
        server += location.replace(
            "proxy_cache pictures;",
            "proxy_cache pictures; add_header X-Kept $upstream_cache_status;",
        )
    with nginx.running(folder, server.replace("http://127.0.0.1:8000", origin), http) as address:
        yield address


@pytest_asyncio.fixture(loop_scope="module")
async def client(app: FastAPI, front: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {app.state.platform.new_key}"}
    async with httpx.AsyncClient(base_url=front, headers=headers, timeout=60) as opened:
        yield opened


async def image_of(client: httpx.AsyncClient) -> dict[str, Any]:
    image: dict[str, Any] = (await job_of(client))["images"][0]
    return image


async def test_pictures_come_through_nginx_as_they_are(
    client: httpx.AsyncClient, origin: str, front: str
) -> None:
    image = await image_of(client)
    async with httpx.AsyncClient() as anyone:
        direct = await anyone.get(origin + image["webp_url"])
        through = await anyone.get(front + image["webp_url"])
        assert through.content == direct.content
        for name in ("etag", "content-type", "cache-tag", "content-disposition"):
            assert through.headers[name] == direct.headers[name]
        assert through.headers["cache-control"].startswith("public, max-age=")
        same = {"If-None-Match": direct.headers["etag"]}
        assert (await anyone.get(front + image["webp_url"], headers=same)).status_code == 304
        part = await anyone.get(front + image["url"], headers={"Range": "bytes=5-9"})
        whole = await anyone.get(front + image["url"])
        assert (part.status_code, part.content) == (206, whole.content[5:10])
        head = await anyone.head(front + image["url"])
        assert (head.status_code, head.content) == (200, b"")
        assert (await anyone.get(front + image["url"] + "x")).status_code == 401
        if "x-kept" in through.headers:
            again = await anyone.get(front + image["webp_url"])
            assert again.headers["x-kept"] == "HIT"
            assert again.content == direct.content


async def test_the_accept_header_goes_through(client: httpx.AsyncClient, front: str) -> None:
    image = await image_of(client)
    async with httpx.AsyncClient() as anyone:
        for accept, kind in (("image/avif", "image/avif"), ("*/*", "image/webp")):
            answer = await anyone.get(front + image["sizes"]["64"], headers={"Accept": accept})
            assert answer.headers["content-type"] == kind
