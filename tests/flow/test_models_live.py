"""Models that come to a running server: named by jobs, tried out, promoted, without a restart.

The platform and its HTTP are real; its engine is the fake one, which loads whatever it is told to.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from calotype.core import limits
from calotype.core.references import versioned
from calotype.pool.aliases import changing
from calotype.pool.catalogue import Catalogue
from calotype.pool.intake import Wish, take_in
from calotype.pool.kinds import ModelKind
from calotype.provenance.verification import verify
from tests.flow.dispatch_bench import eventually
from tests.pictures import file_of, picture
from tests.rooms.api import FAKE, app_in, owner, refusal
from tests.tensors import lora, make_base, tensors

LOOK_S = 0.02


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest_asyncio.fixture
async def client(home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setattr(limits, "REGISTRY_LOOK_S", LOOK_S)
    async with app_in(home, engine=FAKE, engine_memory_bytes=10**9) as app, owner(app) as opened:
        yield opened


def add(home: Path, path: Path, name: str) -> str:
    """What ``calotype models add`` does, in another process than the server's."""
    catalogue = Catalogue(home / "models", home, is_quick=True)
    catalogue.scan()
    return take_in(
        catalogue.versions, path, Wish(name=name), taken=catalogue.taken()
    ).record.version


def base(folder: Path, fill: bytes = b"\0") -> Path:
    """A model of the embedded one's domain: its pictures can be judged."""
    make_base(folder, fill=fill)
    (folder / "calotype.json").write_text(json.dumps({"domain": "vignette-domain"}))
    return folder


async def until(client: httpx.AsyncClient, name: str, build: str) -> None:
    """Wait until the server says that this is what the name stands for."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        told = (await client.get("/v1/models")).json()
        found = {it["name"]: it["build"] for kind in ("models", "loras") for it in told[kind]}
        if found.get(name) == build:
            aliases = {it["name"]: it["aliases"] for it in told["models"]}
            assert aliases["vignette"] == {}
            assert aliases.get(name, {"stable": build}) == {"stable": build}
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError(f"{name} isn't {build}: {found}")


async def drawn(client: httpx.AsyncClient, **asked: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job of these fields once it is over, and its first picture's manifest.

    It begins from a picture, which the fake engine gives back: flat ones aren't delivered.
    """
    ask = {"prompt": "a red tent", "width": 512, "height": 512, "steps": 2, **asked}
    if "parent" not in ask:
        data = file_of(picture())
        sent = await client.post(
            "/v1/pictures", content=data, headers={"Content-Type": "image/png"}
        )
        ask["source"] = sent.json()["id"]
    job = (await client.post("/v1/jobs", json=ask)).json()
    deadline = time.monotonic() + 60
    while job["status"] not in ("succeeded", "failed") and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_S)
        job = (await client.get(job["urls"]["self"])).json()
    assert job["status"] == "succeeded", job["error"] or job
    file = (await client.get(job["images"][0]["url"])).content
    manifest = verify(file, "png", anchors_pem=None).manifest
    assert manifest is not None
    return job, manifest


async def test_a_running_server_draws_with_what_was_added_and_goes_back_when_told(
    home: Path, tmp_path: Path, client: httpx.AsyncClient
) -> None:
    nothing = await client.post("/v1/jobs", json={"prompt": "a tent", "model": "dream"})
    assert refusal(nothing, 422)["field"] == "model"
    one = add(home, base(tmp_path / "one"), "dream")
    await until(client, "dream", one)
    job, manifest = await drawn(client, model="dream")
    for told in (job, manifest):
        assert (told["model"], told["model_asked"], told["is_canary"]) == (
            versioned("dream", one),
            "dream",
            False,
        )
    assert manifest["build"] == one

    two = add(home, base(tmp_path / "two", b"\1"), "dream")
    root = home / "models" / ".registry"
    with changing(root) as state:
        state.try_out(ModelKind.BASE, "dream", "stable", two, 1.0)
    await until_latest(client, two)
    job, manifest = await drawn(client, model="dream@stable")
    for told in (job, manifest):
        assert (told["model"], told["model_asked"], told["is_canary"]) == (
            versioned("dream", two),
            "dream@stable",
            True,
        )
    exact, _ = await drawn(client, model=f"dream@{one[:6]}")
    assert (exact["model"], exact["is_canary"]) == (versioned("dream", one), False)
    with changing(root) as state:
        state.point(ModelKind.BASE, "dream", "stable", two, "promoted")
    await until(client, "dream", two)
    with changing(root) as state:
        state.roll_back(ModelKind.BASE, "dream", "stable")
    await until(client, "dream", one)
    image = job["images"][0]["id"]
    varied, _ = await drawn(client, kind="vary_subtle", parent=image, n=1, prompt=None, steps=None)
    assert varied["model"] == versioned("dream", two), "a variation is of its parent's version"


async def test_what_is_pinned_is_loaded_and_kept_though_nobody_asks(
    home: Path, tmp_path: Path, client: httpx.AsyncClient
) -> None:
    version = add(home, base(tmp_path / "one"), "dream")
    root, name = home / "models" / ".registry", versioned("dream", version)
    pool = client._transport.app.state.platform._pool  # type: ignore[attr-defined]

    async def is_warm() -> bool:
        models = (await client.get("/v1/models/where")).json()["models"]
        return name in models and models[name]["engines"] == {"engine-0": "warm"}

    with changing(root) as state:
        state.pinned = [f"base/{name}"]
    await eventually(is_warm)
    assert pool.health()[0].pinned == (name,)
    with changing(root) as state:
        state.pinned = []
    await eventually(lambda: pool.health()[0].pinned == ())


async def until_latest(client: httpx.AsyncClient, version: str) -> None:
    """Wait until the server knows a version that no name alone stands for."""
    deadline = time.monotonic() + 30
    ask = {"prompt": "a tent", "model": f"dream@{version}", "steps": 0}
    while time.monotonic() < deadline:
        if refusal(await client.post("/v1/jobs", json=ask), 422)["field"] == "steps":
            return
        await asyncio.sleep(LOOK_S)
    raise AssertionError(f"{version} isn't known")


async def test_a_lora_has_versions_too(
    home: Path, tmp_path: Path, client: httpx.AsyncClient
) -> None:
    model = add(home, base(tmp_path / "dream"), "dream")
    file = tmp_path / "ink.safetensors"
    file.write_bytes(tensors(lora()))
    ink = add(home, file, "ink")
    await until(client, "dream", model)
    await until(client, "ink", ink)
    job, manifest = await drawn(client, model="dream", loras=[{"name": "ink", "weight": 0.5}])
    assert job["loras"] == [{"name": versioned("ink", ink), "weight": 0.5}]
    assert manifest["loras"] == [{"name": versioned("ink", ink), "build": ink, "weight": 0.5}]
    twice = [{"name": "ink"}, {"name": "ink@stable"}]
    ask = {"prompt": "a tent", "model": "dream", "loras": twice}
    assert refusal(await client.post("/v1/jobs", json=ask), 422)["field"] == "loras[1].name"
    foreign = {"prompt": "a tent", "model": "vignette", "loras": [{"name": "ink"}]}
    answer = refusal(await client.post("/v1/jobs", json=foreign), 422)
    assert answer["detail"] == f"ink@{ink} was made for dream, not for vignette"
