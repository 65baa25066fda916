"""Clients that send slowly, over real sockets: cut off in time, in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from calotype.core import limits
from tests.rooms.api import FAKE, app_in, on_a_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ("/v1/pictures", "/v1/images/verify", "/v1/jobs", "/v1/webhooks")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    async with app_in(tmp_path_factory.mktemp("home"), engine=FAKE) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(app: FastAPI) -> AsyncIterator[str]:
    async with on_a_port(app) as where:
        yield where


class Slow:
    """A client that has told of a body and sends it as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(cls, address: str, path: str, app: FastAPI, size: int = 50_000) -> Slow:
        host = urlsplit(address).netloc
        reader, writer = await asyncio.open_connection(*host.split(":"))
        kind = "image/png" if path in PATHS[:2] else "application/json"
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n"
            f"Authorization: Bearer {app.state.platform.new_key}\r\n"
            f"Content-Length: {size}\r\n\r\n".encode()
        )
        return cls(reader, writer)

    async def send(self, count: int) -> None:
        with contextlib.suppress(ConnectionError):  # it was cut off meanwhile
            self._writer.write(bytes(count))
            await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, object]]:
        """Status and body of what is answered before the body is whole."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        assert length is not None
        body = await self._reader.readexactly(int(length[1]))
        return int(head.split(" ")[1]), json.loads(body)

    async def is_cut_off(self) -> bool:
        """Wait for the connection's end."""
        return await self._reader.read() == b""


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_stops_coming_is_given_up(
    app: FastAPI, address: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_PART_S_MAX", 0.3)
    slow = await Slow.begin(address, path, app)
    await slow.send(100)
    status, body = await slow.answer()
    assert (status, body["type"]) == (408, "urn:calotype:problem:body-too-slow")
    assert body["limit"] == {"min_bytes": limits.BODY_PART_BYTES, "max_s": 0.3}
    assert await slow.is_cut_off()


@pytest.mark.parametrize("path", PATHS[:2])
async def test_a_body_that_comes_a_byte_at_a_time_is_given_up(
    app: FastAPI, address: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_PART_S_MAX", 0.3)
    slow = await Slow.begin(address, path, app)
    answer = asyncio.create_task(slow.answer())
    while not answer.done():
        await slow.send(1)
        await asyncio.sleep(0.02)
    assert (await answer)[0] == 408


async def test_a_body_has_its_time_in_all_whatever_its_pace(
    app: FastAPI, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_PART_BYTES", 1)
    monkeypatch.setattr(limits, "BODY_S_MAX", 0.5)
    slow = await Slow.begin(address, "/v1/pictures", app)
    answer = asyncio.create_task(slow.answer())
    while not answer.done():
        await slow.send(10)
        await asyncio.sleep(0.02)
    status, body = await answer
    assert (status, body["limit"]) == (408, {"max_s": 0.5})


async def test_many_slow_senders_hold_up_nobody_who_asks_where_a_picture_is_from(
    app: FastAPI, address: str
) -> None:
    slow = [await Slow.begin(address, "/v1/images/verify", app) for _ in range(30)]
    for each in slow:
        await each.send(10)
    async with httpx.AsyncClient(base_url=address, timeout=30) as client:
        answer = await client.post("/v1/images/verify", content=b"no picture")
    assert answer.json()["verdict"] == "not_ours"
    for each in slow:
        each._writer.close()
