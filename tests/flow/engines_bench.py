"""A dispatcher on engine processes: the real pool, store and turns; engines draw flat pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from calotype.core.nouns import Event, Job, ModelInfo
from calotype.core.states import EngineState, JobState
from calotype.delivery.store import PictureStore
from calotype.pool.launch import Pace
from calotype.pool.pool import EnginePool
from calotype.pool.registry import embedded_folder
from calotype.pool.reports import EngineHealth
from tests.flow.dispatch_bench import MODEL, SPEC, Bench, StubPool, eventually
from tests.laid import opened_in

FAKE = (sys.executable, "-m", "calotype.pool.testing")
QUICK = Pace(start_s_max=20.0, heartbeat_s=0.4, stop_s_max=2.0, backoff_s_min=0.01)
STEP_S = 0.02
LONG = replace(SPEC, steps=60)  # 1.2 s: not over before a test on a busy machine sees it run


class EnginesBench(Bench):
    """Its ``pool`` is a real one, of fake engines that are processes."""

    @property
    def engines(self) -> dict[str, EngineHealth]:
        return {health.name: health for health in cast("EnginePool", self.pool).health()}

    def signal(self, engine: str, number: int) -> int:
        """Send the engine's process a signal; its process id."""
        pid = self.engines[engine].pid
        assert pid is not None
        os.kill(pid, number)
        return pid

    async def is_in(self, engine: str, state: EngineState) -> None:
        await eventually(lambda: self.engines[engine].state is state)

    async def engine_of(self, job: Job) -> str:
        """Where it runs, once its first step is in its log."""
        await eventually(lambda: self.events(job, "step"))
        return str((await self.events(job, "started"))[-1].data["engine"])

    async def delivered_once(self, job: Job) -> Job:
        """The job succeeded, with one picture in two formats, and by a legal path."""
        job = await self.ended(job)
        assert job.state is JobState.SUCCEEDED
        names = sorted(
            name for image in job.images for name in (f"{image.id}.png", f"{image.id}.webp")
        )
        assert [name for name in self.files() if name.split(".")[0] in str(job.images)] == names
        await eventually(lambda: job.id in dict(self.gate.ends))  # told after the store
        assert [ended for ended, _ in self.gate.ends].count(job.id) == 1
        assert_legal(await self.store.events(job.id))
        return job


_NEXT = {
    "queued": {"started", "promoted", "loading", "load_failed"},  # of a load that was under way
    "promoted": {"started", "loading", "load_failed"},
    "loading": {"started", "promoted", "loading", "load_failed", "failed"},
    "load_failed": {"started", "promoted", "loading", "failed"},
    "started": {"step", "image_finished", "attempt_failed", "handed_back", "succeeded"},
    "step": {"step", "image_finished", "attempt_failed", "handed_back"},
    "image_finished": {"step", "image_finished", "attempt_failed", "handed_back", "succeeded"},
    "handed_back": {"queued"},
    "attempt_failed": {"queued", "failed"},
    "succeeded": set(),
}


def assert_legal(events: list[Event]) -> None:
    """The log has no gap, each event may follow the one before, and the last is an end."""
    kinds = [event.kind for event in events]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert kinds[0] == "queued"
    assert kinds[-1] == "succeeded"
    for before, after in pairwise(kinds):
        assert after in _NEXT[before], kinds


@asynccontextmanager
async def engines_bench(
    folder: Path,
    engines: int = 2,
    pace: Pace = QUICK,
    models: Sequence[ModelInfo] = (),
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = FAKE,
    **options: Any,
) -> AsyncIterator[EnginesBench]:
    """A bench that dispatches, on engines that are warm; ``models`` in place of the one.

    ``command`` begins an engine, if it isn't the fake one.
    """
    store = await opened_in(folder)
    pictures = PictureStore.local(folder / "pictures")
    models = models or [replace(MODEL, path=str(embedded_folder()))]
    pool = EnginePool(
        engines=engines,
        models=models,
        env={"CALOTYPE_FAKE_STEP_S": str(STEP_S), **(env or {})},
        command=command,
        pace=pace,
        **options,
    )
    bench = EnginesBench(folder, store, pictures, cast("StubPool", pool))
    bench.registry.models = {one.name: one for one in models}
    await pool.start()
    await bench.dispatcher.start()
    try:
        for name in bench.engines:
            await bench.is_in(name, EngineState.READY)
        yield bench
    finally:
        await bench.dispatcher.stop()
        await pool.stop()
        await store.close()
