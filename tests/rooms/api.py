"""What tests of the HTTP room share: an app over a real platform, callers, and problems."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from httpx_sse import aconnect_sse

from calotype.api.app import create_app
from calotype.flow.platform import Platform
from calotype.provenance.certificates import CHAIN_FILE
from calotype.settings import Settings
from tests.pictures import file_of, picture

WIDTH, HEIGHT = 192, 144  # of pictures that tests have made
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
FAKE = (sys.executable, "-m", "calotype.pool.testing")  # engines without torch


@asynccontextmanager
async def app_in(
    home: Path, engine: Sequence[str] | None = None, **more: Any
) -> AsyncIterator[FastAPI]:
    """The app over a platform of its own, with a real engine that gets warm meanwhile.

    With another ``engine`` that is the command its engines are begun by; ``more`` are settings.
    """
    settings = Settings(home=home, **more)
    with pytest.MonkeyPatch.context() as patch:
        if engine:
            patch.setattr("calotype.pool.pool.ENGINE_COMMAND", engine)
        platform = await Platform.start(settings)
    try:
        yield create_app(platform)
    finally:
        await platform.stop()


def owner(app: FastAPI) -> httpx.AsyncClient:
    """A client with the platform's first key."""
    return caller(app, {"Authorization": f"Bearer {app.state.platform.new_key}"})


def roots(app: FastAPI) -> str:
    """The root certificates below which its platform signs, PEM."""
    settings: Settings = app.state.platform._settings
    return (settings.secrets_folder / "certificates" / CHAIN_FILE).read_text()


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"].startswith("urn:calotype:problem:")
    assert body["title"]
    assert body["detail"]
    if status < 500 and status != 429:  # too much at once is no field's fault
        assert body["field"]
    return body


def refusal(answer: httpx.Response, status: int) -> dict[str, Any]:
    """A problem of the request itself: it names the field, and what may be there."""
    body = problem(answer, status)
    assert "limit" in body
    return body


def caller(app: FastAPI, headers: dict[str, str]) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers, timeout=240
    )


async def source_of(client: httpx.AsyncClient, seed: int = 1) -> dict[str, Any]:
    """What a job of a fake engine asks for to succeed: its images are this picture, and no flat
    one, which can't be marked."""
    file = file_of(picture(WIDTH, HEIGHT, seed))
    sent = await client.post("/v1/pictures", content=file, headers={"Content-Type": "image/png"})
    return {"source": sent.json()["id"], "strength": 0.5}


async def job_of(client: httpx.AsyncClient, seed: int = 1) -> dict[str, Any]:
    """A job that succeeded, of a fake engine: one image of WIDTH x HEIGHT pixels."""
    ask = {"prompt": "a tent", "seed": seed} | await source_of(client, seed)
    job: dict[str, Any] = (await client.post("/v1/jobs", json=ask)).json()
    async with aconnect_sse(client, "GET", job["urls"]["events"]) as source:
        async for _ in source.aiter_sse():
            pass
    job = (await client.get(job["urls"]["self"])).json()
    assert job["status"] == "succeeded", job
    return job


async def image_of(client: httpx.AsyncClient, seed: int = 1) -> dict[str, Any]:
    """A delivered image, of a job of its own."""
    image: dict[str, Any] = (await job_of(client, seed))["images"][0]
    return image


@asynccontextmanager
async def on_a_port(app: FastAPI) -> AsyncIterator[str]:
    """The app behind a real socket; its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, lifespan="off", access_log=False)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        app.state.streams.stopping.set()
        server.should_exit = True
        await serving
