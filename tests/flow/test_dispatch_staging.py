"""Copies in host memory, torn memory, models that are gone: line, pool and engines together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from calotype.core.messages import ARENA_VARIABLE, MEMORY_VARIABLE, STAGING_VARIABLE
from calotype.flow.known import NOTE
from calotype.pool.launch import Pace
from calotype.pool.pool import ENGINE_COMMAND
from tests.flow.dispatch_bench import eventually
from tests.flow.engines_bench import EnginesBench, engines_bench
from tests.flow.test_dispatch_loads import BUDGET, LOAD_S, PART, TINY, A, B, C, model, of

pytestmark = pytest.mark.usefixtures("short_times")


def with_copies(folder: Path, staging: int, load_s: float = LOAD_S, **more: Any) -> Any:
    env = {
        MEMORY_VARIABLE: str(BUDGET),
        STAGING_VARIABLE: str(staging),
        "CALOTYPE_FAKE_LOAD_S": str(load_s),
    }
    return engines_bench(folder, 1, models=[TINY, A, B, C], env=env, **more)


def places(bench: EnginesBench) -> dict[str, str]:
    told = bench.dispatcher.warmth.where()["models"]
    return {name: it["engines"].get("engine-0", "") for name, it in told.items()}


async def test_what_makes_room_leaves_a_copy_and_comes_back_from_it_quickly(
    tmp_path: Path,
) -> None:
    async with with_copies(tmp_path, 2 * PART, load_s=1.0) as bench:
        assert places(bench) == {"tiny": "warm", "a": "warm", "b": "", "c": ""}
        await bench.delivered_once(await bench.queue(of(B)))
        [left] = [name for name, place in places(bench).items() if place == "staged"]
        assert bench.dispatcher.warmth.counts.staged == 1
        job = await bench.queue(of({"tiny": TINY, "a": A}[left]))
        await bench.delivered_once(job)
        counts, known = bench.dispatcher.warmth.counts, bench.dispatcher.warmth._known
        assert (counts.loads, counts.loads_staged) == (2, 1)
        back = known.of({"tiny": TINY, "a": A}[left])
        assert back.staged_load_s is not None
        assert back.staged_load_s < 0.5 < known.of(B).load_s
        assert places(bench)[left] == "warm", "and its copy is gone"
        assert len(bench.engines["engine-0"].models_staged) == 1
        assert bench.engines["engine-0"].staging_bytes == 2 * PART
        await eventually(lambda: bench.engines["engine-0"].staged_bytes == PART)


async def test_copies_are_kept_by_worth_and_never_past_their_budget(tmp_path: Path) -> None:
    async with with_copies(tmp_path, PART) as bench:
        for one in (B, C, A, TINY, B, C):
            await bench.delivered_once(await bench.queue(of(one)))
            staged = [name for name, place in places(bench).items() if place == "staged"]
            assert len(staged) <= 1
            line = bench.dispatcher._line.policy.of("").devices()[0]
            assert [*line.staged] == staged, "the line knows"


async def test_a_model_that_is_gone_is_forgotten_once_no_job_wants_it(tmp_path: Path) -> None:
    async with with_copies(tmp_path, 2 * PART) as bench:
        await bench.delivered_once(await bench.queue(of(B)))
        [left] = [name for name, place in places(bench).items() if place == "staged"]
        long = await bench.queue(of(B, steps=400))
        await eventually(lambda: bench.events(long, "step"))
        for name in (left, "b"):
            del bench.registry.models[name]
        await bench.dispatcher.models_seen()
        warmth, policy = bench.dispatcher.warmth, bench.dispatcher._line.policy.of("")
        assert warmth.removed == ["b"], "a job runs with it"
        assert policy.devices()[0].staged == ()
        assert bench.engines["engine-0"].models_staged == ()
        await bench.dispatcher.cancel(long.id, by="caller")
        await bench.dispatcher.models_seen()
        assert warmth.removed == []
        assert "b" in bench.engines["engine-0"].models, "it stays until something needs its room"
        await bench.delivered_once(await bench.queue(of(C)))
        assert {left, "b"}.isdisjoint(await bench.store.note(NOTE) or {})


@pytest.mark.timeout(900)
async def test_a_torn_device_is_mended_by_a_real_engine_and_copies_make_that_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three models lie side by side; the first leaves for one that fits no gap."""
    monkeypatch.setattr("tests.flow.dispatch_bench.DEADLINE_S", 300.0)  # for torch to come
    from tests.rooms.engine_blocks import heavy_model, working_bytes

    words = {"a": 60_000, "b": 60_000, "c": 60_000, "large": 75_000}
    loads = {name: heavy_model(tmp_path / name, count) for name, count in words.items()}
    sizes = {name: load.components[0].bytes for name, load in loads.items()}
    models = [model(name, (name, sizes[name]), path=tmp_path / name) for name in words]
    work = working_bytes(loads["large"])
    budget = int((3.4 * sizes["a"] + work) / 0.85)
    env = {
        MEMORY_VARIABLE: str(budget),
        STAGING_VARIABLE: str(4 * sizes["a"]),
        ARENA_VARIABLE: "1",
        "CALOTYPE_ENGINE_THREADS": "1",
    }
    pace = Pace(heartbeat_s=1.0)
    with capture_logs() as logs:
        async with engines_bench(
            tmp_path, 1, pace=pace, models=models, env=env, command=ENGINE_COMMAND
        ) as bench:
            assert bench.engines["engine-0"].models == ("a", "b", "c")
            job = await bench.queue(of(models[-1], width=64, height=64, steps=2))
            await bench.delivered_once(job)
            counts = bench.dispatcher.warmth.counts
            await eventually(lambda: counts.loads == 3)
            assert places(bench) == {"a": "staged", "b": "warm", "c": "warm", "large": "warm"}
            assert (counts.laid_anew, counts.loads_failed, counts.evictions) == (1, 1, 1)
            assert counts.loads_staged == 2
            where = bench.dispatcher.warmth.where
            await eventually(lambda: where()["engines"][0]["memory"]["fragmentation"] == 0.0)
    (laid,) = [it for it in logs if it["event"] == "laid_anew"]
    assert (laid["model"], laid["evict"]) == ("large", ("b", "c"))
    (failed,) = [it for it in logs if it["event"] == "load_failed"]
    assert "largest block" in failed["reason"]
