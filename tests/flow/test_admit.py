"""From what was asked to a spec: nothing is corrected in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from sqlalchemy.exc import OperationalError

from calotype.core import limits
from calotype.core.errors import InvalidInput, ModelBroken, OperatorError, TooMany
from calotype.core.nouns import Ask, Job, Key, ModelInfo, Sampler
from calotype.core.states import JobState
from calotype.flow.admit import spec_of
from calotype.flow.platform import Platform
from calotype.jobs.store import JobStore
from calotype.pool.registry import ModelRegistry
from calotype.pool.shelf import Entry
from calotype.provenance.certificates import SigningIdentity
from calotype.settings import Settings
from tests.flow.dispatch_bench import StubFinisher, StubPool
from tests.laid import lay

MODEL = ModelInfo(
    name="tiny", family="sdxl", path="/nowhere", build="0" * 16, title="Tiny", licence="Apache-2.0",
    parameter_bytes=1, width=128, height=128, size_px_min=64, size_px_max=256, steps=20,
    guidance=3.0, sampler=Sampler.DPMPP_2M,
)  # fmt: skip


def test_what_is_left_open_is_the_models_default() -> None:
    spec = spec_of(Ask("a tent"), MODEL)
    assert (spec.width, spec.height, spec.steps, spec.guidance) == (128, 128, 20, 3.0)
    assert spec.sampler is Sampler.DPMPP_2M
    assert 0 <= spec.seed <= limits.SEED_MAX


def test_two_asks_without_a_seed_differ() -> None:
    assert len({spec_of(Ask("a tent"), MODEL).seed for _ in range(20)}) > 1


@given(some.text(max_size=2_100))
def test_a_prompt_is_taken_as_it_is_or_refused(prompt: str) -> None:
    try:
        taken = spec_of(Ask(prompt), MODEL).prompt
    except InvalidInput as error:
        taken = prompt if error.field == "prompt" else ""
    assert taken == prompt


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 56),
        ("width", 264),
        ("height", 130),
        ("steps", 0),
        ("steps", limits.STEPS_MAX + 1),
        ("guidance", -0.1),
        ("guidance", float("nan")),
        ("guidance", float("inf")),
        ("seed", -1),
        ("seed", 2**32),
        ("n", 0),
        ("n", limits.IMAGES_PER_JOB_MAX + 1),
        ("sampler", "plms"),
        ("prompt", "half a pair \ud83d"),
        ("negative_prompt", "bell \x07"),
    ],
)
def test_what_may_not_be_names_its_field_and_limit(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec_of(replace(Ask("a tent"), **{field: value}), MODEL)
    assert caught.value.field == field
    assert caught.value.limit is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 64), ("height", 256), ("steps", 1), ("guidance", 0.0), ("guidance", 20), ("n", 4)],
)
def test_the_limits_themselves_are_allowed(field: str, value: Any) -> None:
    assert getattr(spec_of(replace(Ask("a tent"), **{field: value}), MODEL), field) == value


# The platform, without engines: what it lets in, and what it answers.


@pytest.fixture
async def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Platform]:
    monkeypatch.setattr("calotype.flow.platform.Finisher", lambda *_: StubFinisher())
    monkeypatch.setattr("calotype.flow.platform.EnginePool", lambda **_: StubPool())
    registry = ModelRegistry([], tmp_path)
    served = replace(MODEL, domain="vignette-domain")  # whose pictures can be judged
    registry.shelf.put(Entry(MODEL.name, MODEL.build, served))
    settings = Settings(home=tmp_path, queued_jobs_max=8, queued_jobs_per_tenant_max=5)
    lay(tmp_path / "calotype.db")
    store = await JobStore.open(settings.database)
    identity = SigningIdentity("es256", "", "", "")
    made = Platform(settings, store, registry, identity)
    await made._dispatcher.start()
    yield made
    await made._dispatcher.stop()
    await store.close()


def key_of(tenant: str) -> Key:
    return Key("key", tenant, "key", "laptop", ("jobs",), datetime.now(UTC), None)


async def test_a_full_line_lets_in_no_more_than_its_limit_however_many_ask_at_once(
    platform: Platform,
) -> None:
    answers: list[Job | BaseException] = []
    for tenant in ("ada", "bob"):
        asks = [platform.admit(key_of(tenant), Ask("a tent")) for _ in range(20)]
        answers += await asyncio.gather(*asks, return_exceptions=True)
    taken = [answer for answer in answers if isinstance(answer, Job)]
    assert len(taken) == 8
    assert [job.tenant for job in taken].count("ada") == 5
    refused = [answer for answer in answers if not isinstance(answer, Job)]
    assert all(isinstance(answer, TooMany) for answer in refused)
    told = {(each.extra["bound"], each.limit) for each in refused if isinstance(each, TooMany)}
    assert told == {("tenant_queue", 5), ("queue", 8)}
    assert all(each.extra["retry_after_s"] >= 1 for each in refused if isinstance(each, TooMany))


async def test_two_who_cancel_at_once_are_both_told_that_it_is_cancelled(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = key_of("ada")
    job = await platform.admit(ada, Ask("a tent"))
    answers = await asyncio.gather(*(platform.cancel(ada, job.id) for _ in range(3)))
    assert [answer.state for answer in answers] == [JobState.CANCELLED] * 3


async def test_a_model_that_no_engine_could_load_is_refused_with_the_reason(
    platform: Platform,
) -> None:
    pool = platform._pool
    assert isinstance(pool, StubPool)
    pool.models_failed = {MODEL.name: "its files are damaged"}
    with pytest.raises(ModelBroken, match="damaged") as refused:
        await platform.admit(key_of("ada"), Ask("a tent"))
    assert refused.value.field == "model"
    pool.engines = []  # none has said anything yet: it may still be loaded
    assert (await platform.admit(key_of("ada"), Ask("a tent"))).state is JobState.QUEUED


async def test_a_dispatcher_that_broke_is_not_ready_and_takes_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STORE_RETRY_S", 0.001)
    pool = platform._pool
    assert isinstance(pool, StubPool)
    platform._dispatcher._turns.run(platform._dispatcher.warmth.came_up(), "harmless")
    await asyncio.sleep(0)
    assert platform.installation.readiness()["fault"] is None

    async def locked(*_: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("database is locked"))

    monkeypatch.setattr(platform._store, "lease", locked)
    await platform.admit(key_of("ada"), Ask("a tent"))
    await pool.warm()
    async with asyncio.timeout(60):
        assert "database is locked" in await platform.broken()
    assert platform.installation.readiness()["ready"] is False
    assert "database is locked" in platform.installation.readiness()["fault"]
    with pytest.raises(OperatorError):
        await platform.admit(key_of("ada"), Ask("a tent"))
