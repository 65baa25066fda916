"""A job that ends every engine it meets: given up, quarantined, and let go by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calotype.cli import app
from calotype.cli.home import with_store
from calotype.core import limits
from calotype.core.errors import PoisonJob, Quarantined
from calotype.core.nouns import Ask, Tier
from calotype.core.states import JobState
from calotype.flow.platform import Platform
from calotype.jobs.store import JobStore
from calotype.settings import Settings
from tests.flow.dispatch_bench import SPEC, WAIT, Bench, eventually

pytestmark = pytest.mark.usefixtures("short_times")

POISON = PoisonJob("the picture couldn't be made: the engine died (attempt 3 of 3)").problem()


async def test_a_job_that_ends_every_engine_fails_as_poison_and_is_quarantined(
    bench: Bench,
) -> None:
    job = await bench.queue(WAIT)
    for attempt in range(1, limits.ATTEMPTS_MAX + 1):
        await eventually(lambda: bench.pool.waiting)
        assert (await bench.store.get(job.id)).attempt == attempt
        bench.pool.waiting.clear()
        await bench.pool.lose()
        if attempt < limits.ATTEMPTS_MAX:
            await bench.pool.warm()
    ended = await bench.ended(job)
    assert ended.state is JobState.FAILED
    assert ended.error is not None
    assert ended.error["type"] == "urn:calotype:problem:poison-job"
    held = await bench.store.quarantine.find(WAIT)
    assert held is not None
    assert held.job_id == job.id
    assert held.reason == ended.error["detail"]
    assert await bench.store.quarantine.find(replace(WAIT, seed=8)) is None


async def test_a_job_that_fails_otherwise_is_not_quarantined(bench: Bench) -> None:
    bench.registry.models.clear()
    job = await bench.store.insert("ada", Tier.FAST, SPEC)
    await bench.store.fail(job.id, {"detail": "no"})
    assert await bench.store.quarantine.every() == []


async def test_the_same_job_is_refused_until_it_is_released(tmp_path: Path) -> None:
    home = tmp_path / "home"
    platform = await Platform.start(Settings(home=home))
    try:
        key = await platform.authenticate(str(platform.new_key))
        ask = Ask(prompt="a red tent", seed=7, steps=2, tier="fast")
        job = await platform.admit(key, ask)
        store = platform._store
        again = await store.insert("eve", Tier.FAST, job.spec)
        await store.fail(again.id, POISON, is_poison=True)
        with pytest.raises(Quarantined, match="attempt 3 of 3") as refused:
            await platform.admit(key, ask)
        assert (refused.value.status, refused.value.field) == (422, "body")
        assert again.id not in refused.value.detail, "it is another tenant's"
        await platform.admit(key, replace(ask, seed=8))
        await store.quarantine.release(again.id)
        await platform.admit(key, ask)
    finally:
        await platform.stop()


def test_the_operator_lists_and_releases_the_quarantined(tmp_path: Path) -> None:
    async def poison(store: JobStore) -> str:
        job = await store.insert("ada", Tier.FAST, SPEC)
        await store.fail(job.id, POISON, is_poison=True)
        return job.id

    job_id = with_store(tmp_path, poison)
    run, home = CliRunner().invoke, ["--home", str(tmp_path)]
    listed = run(app, ["jobs", "quarantined", *home])
    assert listed.exit_code == 0
    assert job_id in listed.output
    assert run(app, ["jobs", "release", job_id, *home]).exit_code == 0
    assert job_id not in run(app, ["jobs", "quarantined", *home]).output
    assert "isn't quarantined" in str(run(app, ["jobs", "release", job_id, *home]).exception)
