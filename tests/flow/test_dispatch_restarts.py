"""What a start finds: jobs, models, and what everyone was charged."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core import limits
from calotype.core.nouns import Tier
from calotype.core.states import AttemptState, JobState
from calotype.flow import hopeless
from tests.flow.dispatch_bench import SPEC, WAIT, bench_in, eventually, running_bench, virtual_s

pytestmark = pytest.mark.usefixtures("short_times")


async def test_a_job_whose_model_no_engine_could_load_fails(tmp_path: Path) -> None:
    async with bench_in(tmp_path, engines=2) as bench:
        await bench.dispatcher.start()
        job = await bench.queue()
        bench.pool.models_failed = {SPEC.model: "its files are damaged"}
        await bench.pool.warm()
        ended = await bench.ended(job)
        assert ended.error is not None
        assert ended.error["field"] == "model"
        assert "damaged" in ended.error["detail"]
        assert bench.dispatcher.position(job.id) is None


async def test_a_job_whose_model_is_gone_after_a_restart_fails(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        job = await bench.queue()
    async with bench_in(tmp_path) as bench:
        bench.registry.models.clear()
        await bench.dispatcher.start()
        ended = await bench.ended(job)
        assert ended.error is not None
        assert ended.error["field"] == "model"


# Restarts.


async def test_a_job_that_takes_the_server_down_each_time_is_given_up(tmp_path: Path) -> None:
    starts = 0
    while True:
        async with running_bench(tmp_path) as bench:  # left in mid-run: as if it were killed
            if starts == 0:
                job = await bench.queue(WAIT)
            if (await bench.store.get(job.id)).state.is_final:
                break
            await eventually(lambda: bench.pool.waiting)
            starts += 1
            assert starts <= limits.ATTEMPTS_TOTAL_MAX
    async with bench_in(tmp_path) as bench:
        ended = await bench.store.get(job.id)
        assert ended.state is JobState.FAILED
        assert starts == limits.ATTEMPTS_TOTAL_MAX
        assert ended.error is not None
        assert "6 attempts were lost" in ended.error["detail"]


async def test_the_rebuilt_line_makes_the_decision_the_old_one_would_have(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        await bench.pool.warm(rows_max=1)
        for _ in range(3):  # ada has had her share
            await bench.ended(await bench.queue(tenant="ada"))
        running = await bench.queue(WAIT, tenant="ada")
        await eventually(lambda: bench.pool.waiting)
        first_come = await bench.queue(WAIT, tenant="ada")
        next_up = await bench.queue(WAIT, tenant="bob")
        await bench.dispatcher.cancel(running.id, by="caller")
        await bench.state(next_up, JobState.RUNNING)
        paid = [virtual_s(bench, tenant) for tenant in ("ada", "bob")]
        costs = bench.dispatcher._line.costs.kept()
        assert costs
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        assert [virtual_s(bench, tenant) for tenant in ("ada", "bob")] == paid
        assert bench.dispatcher._line.costs.kept() == costs
        await bench.pool.warm(rows_max=1)
        await bench.state(next_up, JobState.RUNNING)
        assert (await bench.store.get(first_come.id)).state is JobState.QUEUED


ASKED = [("ada", Tier.FAST)] * 3 + [("bob", Tier.FAST), ("eve", Tier.TURBO), ("ada", Tier.TURBO)]
ASKED += [("bob", Tier.RELAX), ("bob", Tier.FAST)]


async def starts(folder: Path, crash_at: int) -> list[str]:
    """Who is started in which order, one at a time; in mid-run of one the server is killed."""
    order: list[str] = []
    is_asked = False
    while len(order) < len(ASKED):
        async with bench_in(folder) as bench:
            await bench.dispatcher.start()
            if not is_asked:
                for at, (tenant, tier) in enumerate(ASKED):
                    await bench.queue(replace(WAIT, prompt=f"wait {at}"), tenant, tier)
            is_asked = True
            await bench.pool.warm(rows_max=1)
            while len(order) < len(ASKED):
                [(_, row)] = (await eventually(lambda: bench.pool.waiting)).values()
                if len(order) == crash_at:
                    crash_at = -1
                    break  # as if killed: nothing is written of it
                order.append(row.prompt)
                await bench.pool.finish_rows()
                await bench.ended(await bench.store.get(row.row.split("/")[0]))
    return order


async def test_killed_at_any_point_the_line_goes_on_in_the_order_it_had(tmp_path: Path) -> None:
    folders = [tmp_path / str(at) for at in range(-1, len(ASKED))]
    for folder in folders:
        folder.mkdir()
    undisturbed = await starts(folders[0], crash_at=-1)
    assert sorted(undisturbed) == sorted(f"wait {at}" for at in range(len(ASKED)))
    assert undisturbed != sorted(undisturbed), "fair order isn't that of arrival"
    for at, folder in enumerate(folders[1:]):
        assert await starts(folder, crash_at=at) == undisturbed, f"killed at {at}"


async def test_after_a_restart_a_job_still_goes_elsewhere_than_where_it_failed(
    tmp_path: Path,
) -> None:
    async with running_bench(tmp_path, engines=2) as bench:
        job = await bench.queue(WAIT)
        [(engine, _)] = (await eventually(lambda: bench.pool.waiting)).values()
        bench.pool.waiting.clear()
        await bench.pool.lose(engine)
        await eventually(lambda: bench.pool.waiting)  # on the other; then the server is killed
    async with bench_in(tmp_path, engines=2) as bench:
        await bench.dispatcher.start()
        other = next(name for name in bench.pool.engines if name != engine)
        await bench.queue(WAIT, tier=Tier.TURBO)
        await bench.pool.warm(engine=other, rows_max=1)
        await bench.pool.waits(1)
        await bench.pool.warm(engine=engine)
        await asyncio.sleep(0.05)
        assert (await bench.store.get(job.id)).state is JobState.QUEUED, "it waits for the other"
        await bench.pool.finish_rows()
        await bench.state(job, JobState.RUNNING)
        assert (await bench.events(job, "started"))[-1].data["engine"] == other
        [entry] = bench.dispatcher._line.policy.of("")._running.values()
        assert (entry.avoid, entry.deaths, entry.attempt) == ((engine,), 1, limits.ATTEMPTS_MAX)


async def test_what_a_server_lost_is_no_engines_doing() -> None:
    lost = [
        ("engine-0", AttemptState.LOST, "engine-0 is gone: killed"),
        ("engine-1", AttemptState.FAILED, "out of memory"),
        ("engine-2", AttemptState.LOST, hopeless.RESTARTED),
        ("engine-3", AttemptState.LOST, hopeless.LAPSED),
        ("engine-0", AttemptState.LOST, "engine-0 is gone: killed"),
    ]
    assert hopeless.blamed(lost) == (("engine-1", "engine-0"), 2)
