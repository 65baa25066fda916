"""Models that are loaded on demand: engines that are processes, with room for two of four.

They draw flat pictures and count bytes as they are told; the line, the pool and the store are real.
"""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from calotype.core.errors import NoRoom
from calotype.core.messages import MEMORY_VARIABLE
from calotype.core.nouns import AdapterInfo, AdapterKind, Component, Job, ModelInfo, Reserve
from calotype.core.states import AttemptState, EngineState, JobState
from calotype.flow.known import Known
from calotype.pool.loading import RESERVES
from calotype.pool.registry import embedded_folder
from calotype.pool.reports import EngineHealth, Measured, ModelWarm
from tests.flow.dispatch_bench import MODEL, SPEC, Bench, eventually
from tests.flow.engines_bench import EnginesBench, engines_bench

pytestmark = pytest.mark.usefixtures("short_times")

PART = 1_000_000  # bytes
BUDGET = int(2.1 * PART / (1 - sum(RESERVES.values())))
LOAD_S = 0.1


def model(name: str, *parts: tuple[str, int], path: Path | None = None) -> ModelInfo:
    components = tuple(Component(each, "denoiser", size) for each, size in parts)
    return replace(
        MODEL,
        name=name,
        path=str(path or embedded_folder()),
        build=name,
        components=components or (Component(name, "denoiser", PART),),
    )


TINY, A, B, C = (model(name) for name in (MODEL.name, "a", "b", "c"))


def with_room(
    folder: Path, *models: ModelInfo, engines: int = 1, load_s: float = LOAD_S
) -> AbstractAsyncContextManager[EnginesBench]:
    env = {MEMORY_VARIABLE: str(BUDGET), "CALOTYPE_FAKE_LOAD_S": str(load_s)}
    return engines_bench(folder, engines, models=[TINY, *models], env=env)


def of(model: ModelInfo, **more: Any) -> Any:
    return replace(SPEC, model=model.name, **more)


async def kinds(bench: EnginesBench, job: Job) -> list[str]:
    return [event.kind for event in await bench.store.events(job.id)]


async def test_a_model_that_isnt_there_is_loaded_while_others_are_made_and_its_job_told(
    tmp_path: Path,
) -> None:
    async with with_room(tmp_path, A, B, C, load_s=1.0) as bench:
        assert bench.engines["engine-0"].models == ("tiny", "a"), "those that fit, in their order"
        assert bench.dispatcher.warmth.where()["models"]["c"]["engines"] == {}
        long = await bench.queue(of(TINY, steps=400))
        await eventually(lambda: bench.events(long, "step"))
        job = await bench.queue(of(C))
        [loading] = await eventually(lambda: bench.events(job, "loading"))
        assert (loading.data["model"], loading.data["engine"]) == ("c", "engine-0")
        assert loading.data["left_s"] > 0
        where = bench.dispatcher.warmth.where
        loads = await eventually(lambda: where()["engines"][0]["loading"])
        assert loads["model"] == "c"
        await eventually(lambda: where()["models"]["c"]["engines"].get("engine-0") == "warm")
        done = await bench.delivered_once(job)
        assert done.attempt == 1
        assert (await bench.store.get(long.id)).state is JobState.RUNNING
        assert set(bench.engines["engine-0"].models) == {"tiny", "c"}, "the one that ran stayed"
        await bench.dispatcher.cancel(long.id, by="caller")
        counts = bench.dispatcher.warmth.counts
        assert (counts.loads, counts.evictions, counts.loads_failed) == (1, 1, 0)
        assert (counts.warm_hits, counts.warm_misses) == (1, 1)
        assert counts.load_s >= 1.0
        await bench.delivered_once(await bench.queue(of(C)))
        assert counts.loads == 1
        assert counts.warm_hits == 2


async def test_what_was_learnt_of_a_model_outlives_a_restart(tmp_path: Path) -> None:
    async with with_room(tmp_path, A, B) as bench:
        await bench.delivered_once(await bench.queue(of(B)))
        known = bench.dispatcher.warmth._known.of(B)
        assert LOAD_S <= known.load_s < 2.0
        await bench.delivered_once(await bench.queue(of(B)))
    async with with_room(tmp_path, A, B) as bench:
        assert bench.dispatcher.warmth._known.of(B).load_s == pytest.approx(known.load_s, rel=0.5)


async def test_a_load_that_fails_again_and_again_is_told_and_given_up_and_nothing_else_is(
    tmp_path: Path,
) -> None:
    gone = model("gone", path=tmp_path)
    async with with_room(tmp_path, A, B, gone) as bench:
        job = await bench.ended(await bench.queue(of(gone)))
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert "model_index.json" in job.error["detail"]
        assert "not tried again for a while" in job.error["detail"]
        told = await bench.events(job, "load_failed")
        assert len(told) == 3
        assert job.attempt == 0, "it was never begun"
        assert "model_index.json" in told[-1].data["reason"]
        await bench.delivered_once(await bench.queue(of(B)))
        assert bench.dispatcher.fault is None


async def test_a_model_that_finds_no_room_once_it_is_read_is_given_up_and_told_why(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "greedy"
    folder.mkdir()
    (folder / "model_index.json").touch()
    (folder / "full").touch()
    greedy = model("greedy", path=folder)
    async with with_room(tmp_path, A, B, greedy) as bench:
        job = await bench.ended(await bench.queue(of(greedy)))
        assert job.state is JobState.FAILED
        assert "bytes are needed" in (job.error or {})["detail"]
        assert "not tried again for a while" in (job.error or {})["detail"]
        assert len(await bench.events(job, "load_failed")) == 3
        await bench.delivered_once(await bench.queue(of(B)))


async def test_an_engine_that_dies_of_a_load_is_begun_anew_and_others_go_on(
    tmp_path: Path,
) -> None:
    killer = tmp_path / "killer"
    killer.mkdir()
    (killer / "model_index.json").touch()
    (killer / "crash").touch()
    async with with_room(tmp_path, A, B, model("killer", path=killer)) as bench:
        job = await bench.queue(of(model("killer", path=killer)))
        ended = await bench.ended(job)
        assert ended.state is JobState.FAILED
        assert "the engine ended" in (ended.error or {})["detail"]
        assert ended.attempt == 0, "it was never begun"
        await bench.is_in("engine-0", EngineState.READY)
        await bench.delivered_once(await bench.queue(of(B)))


async def test_a_model_that_an_engine_has_lost_by_itself_is_loaded_again(tmp_path: Path) -> None:
    async with with_room(tmp_path, A) as bench:
        await bench.delivered_once(await bench.queue(of(A, prompt="drop")))
        assert bench.engines["engine-0"].models == ("tiny",)
        job = await bench.queue(of(A))
        assert (await bench.delivered_once(job)).attempt == 1
        assert "loading" in await kinds(bench, job)


async def test_models_that_share_components_take_room_once(tmp_path: Path) -> None:
    shared = ("encoders", PART)
    one, two = (model(name, shared, (f"denoiser of {name}", PART // 2)) for name in ("one", "two"))
    async with with_room(tmp_path, one, two) as bench:
        assert bench.engines["engine-0"].models == ("tiny",)
        await bench.delivered_once(await bench.queue(of(one)))
        await bench.delivered_once(await bench.queue(of(two)))
        assert set(bench.engines["engine-0"].models) == {"one", "two"}


async def test_no_job_is_lost_while_models_come_and_go_and_engines_are_killed(
    tmp_path: Path,
) -> None:
    chance = random.Random(5)
    async with with_room(tmp_path, A, B, C, engines=2) as bench:
        jobs = []
        for at in range(24):
            jobs.append(await bench.queue(of(chance.choice((TINY, A, B, C)), steps=3)))
            await asyncio.sleep(0.02)
            if at % 8 == 7:
                name = chance.choice([*bench.engines])
                await bench.is_in(name, EngineState.READY)
                bench.signal(name, signal.SIGKILL)
        for job in jobs:
            await bench.delivered_once(job)
        assert bench.dispatcher.fault is None
        counts = bench.dispatcher.warmth.counts
        # Each load evicts one; a kill leaves a load that failed, in its midst or before it.
        assert counts.loads + counts.loads_failed >= counts.evictions >= 1
        for engine in bench.engines.values():
            assert len(engine.models) <= 2


async def test_a_model_that_fits_nowhere_fails_its_waiting_job_with_the_arithmetic(
    tmp_path: Path,
) -> None:
    whale = model("whale", ("whale", 3 * PART))
    async with with_room(tmp_path, whale) as bench:
        with pytest.raises(NoRoom) as refused:
            bench.dispatcher.warmth.check(whale)
        assert refused.value.limit["bytes"]["base"] == 3 * PART
        assert refused.value.limit["max_bytes"] == BUDGET
        assert f"{3 * PART:,}" in refused.value.detail
        bench.signal("engine-0", signal.SIGSTOP)
        job = await bench.queue(of(whale))
        ended = await bench.ended(job)
        assert ended.state is JobState.FAILED
        assert (ended.error or {})["type"].endswith(":no-room")


def test_what_is_known_is_told_once_and_again_when_it_is_known_better() -> None:
    known = Known()
    assert [one.model for one in known.news([A, B])] == ["a", "b"]
    assert known.news([A, B]) == []
    known.learn(A, Measured("a", 3.0, PART, 500))
    (news,) = known.news([A, B])
    assert (news.load_s, news.room_bytes) == (3.0, 500)
    again = Known(known.kept())
    assert again.of(A) == news
    assert again.of(replace(A, build="other")).room_bytes == 0, "another build is another model"


def health(budget: int, *pinned: str, device: str = "cpu") -> EngineHealth:
    """A ready engine with such a budget, a tenth of it kept free for adapters and rows."""
    reserves = (Reserve("controls", budget // 20), Reserve("rows", budget // 20))
    return EngineHealth(
        *("engine-0", EngineState.READY, datetime.now(UTC), 1, device, "none", ()),
        budget_bytes=budget,
        reserves=reserves,
        pinned=pinned,
    )


def adapter(kind: AdapterKind, name: str, parameters: int) -> AdapterInfo:
    return AdapterInfo(kind, name, "/nowhere", "0" * 16, name, "CC0-1.0", (), 1,
                       parameters=parameters)  # fmt: skip


def test_what_is_pinned_counts_against_a_model_as_it_does_in_the_line() -> None:
    known, budget = Known(), 20 * PART
    small, large = model("small", ("s", 6 * PART)), model("large", ("l", 13 * PART))
    known.news([small, large])
    known.check(large, [health(budget)])
    with pytest.raises(NoRoom) as refused:
        known.check(large, [health(budget, "small")])
    assert refused.value.limit["bytes"]["base"] == 19 * PART
    known.check(small, [health(budget, "small")])


async def test_a_job_ends_with_the_reason_once_its_model_is_known_to_fit_nowhere(
    bench: Bench,
) -> None:
    """Another one that is pinned turns out to need more than was known."""
    bench.pool.budget, bench.pool.pinned = 20 * PART, (MODEL.name,)
    large = bench.registry.models["large"] = model("large", ("l", 10 * PART))
    job = await bench.queue(of(large))
    measured = Measured(MODEL.name, 1.0, PART, room_bytes=15 * PART)
    await bench.pool.say(ModelWarm(MODEL.name, None, measured))
    ended = await bench.ended(job)
    assert ended.state is JobState.FAILED
    assert (ended.error or {})["type"].endswith(":no-room")
    assert "large fits on no engine" in (ended.error or {})["detail"]


def test_a_composition_that_fits_nowhere_is_refused_with_the_arithmetic() -> None:
    known, base = Known(), model("base", ("b", 10 * PART))
    controls = [adapter(AdapterKind.CONTROL, f"control-{at}", PART) for at in range(3)]
    lora = adapter(AdapterKind.LORA, "style", PART // 10)
    small, large = health(20 * PART), health(40 * PART)
    known.check(base, [small], controls[:1])
    with pytest.raises(NoRoom) as refused:
        known.check(base, [small], [*controls, lora])
    lines = refused.value.limit["bytes"]
    assert (lines["controls"], lines["loras"]) == (3 * PART * 4, PART // 10 * 4), "float32 on a CPU"
    assert "base with control-0 with control-1 with control-2 with style" in refused.value.detail
    known.check(base, [small, large], [*controls, lora])
    known.check(base, [health(20 * PART, device="cuda:0")], [*controls, lora])


def test_an_engine_that_names_no_memory_may_hold_anything() -> None:
    known, whale = Known(), model("whale", ("whale", 10**15))
    known.check(whale, [])


async def test_a_refusal_for_room_costs_no_attempt_and_an_idle_model_makes_room(
    tmp_path: Path,
) -> None:
    async with with_room(tmp_path, A, B) as bench:
        job = await bench.queue(of(TINY, prompt="something bulky"))
        done = await bench.delivered_once(job)
        tries = await bench.store.attempts(done.id)
        assert tries == {AttemptState.HANDED_BACK: 1, AttemptState.DONE: 1}
        [told] = await bench.events(job, "handed_back")
        assert "lack a byte" in told.data["reason"]
        assert await bench.events(job, "loading") == []
        assert bench.engines["engine-0"].models == ("tiny",)
        counts = bench.dispatcher.warmth.counts
        assert (counts.loads, counts.evictions, counts.loads_failed) == (0, 1, 0)
