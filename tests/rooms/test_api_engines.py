"""Notices over HTTP: for operators' keys, and refused where they make no sense."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from calotype.core.states import EngineState
from tests.flow.dispatch_bench import eventually
from tests.rooms.api import FAKE, app_in, caller, owner, problem, refusal


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[FastAPI]:
    async with app_in(tmp_path, FAKE) as made:
        await eventually(lambda: state(made) is EngineState.READY)
        yield made


def state(app: FastAPI) -> EngineState:
    [engine] = app.state.platform.installation.readiness()["engines"]
    return EngineState(engine["state"])


async def test_the_machines_own_key_gives_notice_and_the_engine_drains(app: FastAPI) -> None:
    answer = await owner(app).post("/v1/engines/engine-0/notice", json={"seconds": 60})
    assert (answer.status_code, answer.json()) == (202, {"engine": "engine-0", "seconds": 60.0})
    [engine] = app.state.platform.installation.readiness()["engines"]
    assert (engine["state"], engine["reason"]) == ("draining", "it is to be taken away in 60 s")
    again = await owner(app).post("/v1/engines/engine-0/notice", json={})
    assert "only one that is ready" in problem(again, 409)["detail"]


async def test_it_begins_anew_when_the_time_is_over(app: FastAPI) -> None:
    answer = await owner(app).post("/v1/engines/engine-0/notice", json={"seconds": 0.2})
    assert answer.status_code == 202
    await eventually(lambda: state(app) is not EngineState.DRAINING)
    await eventually(lambda: state(app) is EngineState.READY)


async def test_who_only_asks_for_pictures_may_not(app: FastAPI) -> None:
    _, secret = await app.state.platform.create_key(tenant="ada", name="hers")
    hers = caller(app, {"Authorization": f"Bearer {secret}"})
    answer = await hers.post("/v1/engines/engine-0/notice", json={"seconds": 60})
    assert refusal(answer, 403)["limit"] == "operator"


async def test_what_makes_no_sense_is_refused_with_field_and_limit(app: FastAPI) -> None:
    for name, body, status, field in (
        ("engine-7", {"seconds": 60}, 404, "engine"),
        ("engine-0", {"seconds": 0}, 422, "seconds"),
        ("engine-0", {"seconds": 1e9}, 422, "seconds"),
        ("engine-0", {"soon": True}, 422, "soon"),
    ):
        answer = await owner(app).post(f"/v1/engines/{name}/notice", json=body)
        assert refusal(answer, status)["field"] == field, (name, body)
