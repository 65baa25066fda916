"""Bounds of tenants, in the turn that writes the job; budgets are settled and outlive a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from calotype.core.errors import InvalidInput, TooMany
from calotype.core.nouns import Budget, Job, Tier, WhenSpent
from calotype.core.states import JobState
from calotype.flow.gate import balances, in_words
from calotype.jobs.store import JobStore
from calotype.policy.admit import AdmitRules, TierLimits
from tests.flow.dispatch_bench import DEVICE_S, SPEC, WAIT, Bench, bench_in, eventually

pytestmark = pytest.mark.usefixtures("short_times")

PLENTY = Budget(1_000.0)


@asynccontextmanager
async def running(folder: Path, rules: AdmitRules | None = None) -> AsyncIterator[Bench]:
    """A bench with these rules, on a warm engine; another on the same folder is a restart."""
    async with bench_in(folder, rules=rules) as bench:
        await bench.dispatcher.start()
        await bench.pool.warm()
        yield bench


async def used_s(bench: Bench, tenant: str = "ada") -> float:
    """As the store has it, which is what a restart would find."""
    return (await balances(bench.store))[tenant][1].used_s


async def test_a_budget_is_charged_the_prediction_and_settled_with_the_measured(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as bench:
        await bench.store.budgets.put("ada", PLENTY)
        job = await bench.queue(WAIT)
        assert job.charged_s == bench.gate.let[job.id] > 0
        assert await used_s(bench) == job.charged_s
        await eventually(lambda: bench.pool.waiting)
        await bench.pool.finish_rows()
        assert (await bench.ended(job)).state is JobState.SUCCEEDED
        assert await used_s(bench) == pytest.approx(DEVICE_S)


async def test_a_job_that_never_began_gives_everything_back(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:  # no engine is warm
        await bench.store.budgets.put("ada", PLENTY)
        await bench.dispatcher.start()
        job = await bench.queue()
        assert await used_s(bench) > 0
        await bench.dispatcher.cancel(job.id, by="caller")
        assert await used_s(bench) == 0.0


async def test_a_job_cancelled_in_mid_run_gives_back_what_was_not_used(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.store.budgets.put("ada", PLENTY)
        job = await bench.queue(WAIT)
        await eventually(lambda: bench.dispatcher.progress(job.id))
        progress = bench.dispatcher.progress(job.id)
        await bench.dispatcher.cancel(job.id, by="caller")
        assert job.charged_s is not None
        assert await used_s(bench) == pytest.approx(job.charged_s * progress)
        assert 0 < progress < 1


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_crash_right_after_a_cancel_keeps_what_was_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_running: bool
) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.store.budgets.put("ada", PLENTY)
        await bench.dispatcher.start()
        if is_running:
            await bench.pool.warm()
        job = await bench.queue(WAIT)
        if is_running:
            await eventually(lambda: bench.dispatcher.progress(job.id))
        made = bench.dispatcher.progress(job.id)
        cancel = bench.store.cancel

        async def cancel_and_crash(job_id: str, *, by: str) -> Job:
            await cancel(job_id, by=by)
            raise RuntimeError("killed")

        monkeypatch.setattr(bench.store, "cancel", cancel_and_crash)
        with pytest.raises(RuntimeError, match="killed"):
            await bench.dispatcher.cancel(job.id, by="caller")
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        assert (await bench.store.get(job.id)).state is JobState.CANCELLED
        assert job.charged_s is not None
        assert await used_s(bench) == pytest.approx(job.charged_s * made)
        charged = bench.dispatcher._line.policy.standing()["tiers"]["fast"]["tenants"]
        assert charged.get("ada", [0])[0] == pytest.approx(job.charged_s * made * 1e6, abs=1)


async def test_a_job_that_failed_gives_everything_back(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.store.budgets.put("ada", PLENTY)
        await bench.dispatcher.start()
        job = await bench.queue()
        assert await used_s(bench) > 0
        bench.pool.models_failed = {SPEC.model: "its files are damaged"}
        await bench.pool.warm()
        assert (await bench.ended(job)).state is JobState.FAILED
        assert await used_s(bench) == 0.0


async def test_a_job_that_could_not_be_written_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = AdmitRules(tiers={Tier.FAST: TierLimits(unfinished_max=1)})
    async with running(tmp_path, rules) as bench:
        await bench.store.budgets.put("ada", PLENTY)

        async def broken(*_: object, **__: object) -> None:
            raise InvalidInput("no such job")

        with monkeypatch.context() as patched:
            patched.setattr(bench.store, "insert", broken)
            with pytest.raises(InvalidInput):
                await bench.queue()
        job = await bench.queue()
        await bench.ended(job)
        assert await used_s(bench) == pytest.approx(DEVICE_S)


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_restart_keeps_balances_and_settles_what_was_begun_before(
    tmp_path: Path, is_running: bool
) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.store.budgets.put("ada", PLENTY)
        await bench.dispatcher.start()
        if is_running:
            await bench.pool.warm()
        job = await bench.queue(WAIT)
        if is_running:
            await eventually(lambda: bench.pool.waiting)
        before = await used_s(bench)
        assert before == job.charged_s
    async with running(tmp_path) as bench:
        assert await used_s(bench) == before
        await eventually(lambda: bench.pool.waiting)
        await bench.pool.finish_rows()
        assert (await bench.ended(job)).state is JobState.SUCCEEDED
        assert await used_s(bench) == pytest.approx(DEVICE_S)


async def test_a_restart_keeps_rates_and_counts_what_is_unfinished(tmp_path: Path) -> None:
    rules = AdmitRules(
        tiers={
            Tier.FAST: TierLimits(jobs_per_minute=1),
            Tier.TURBO: TierLimits(unfinished_max=1),
        }
    )
    async with bench_in(tmp_path, rules=rules) as bench:
        await bench.dispatcher.start()
        await bench.queue()
        await bench.queue(tier=Tier.TURBO)
    async with bench_in(tmp_path, rules=rules) as bench:
        await bench.dispatcher.start()
        with pytest.raises(TooMany, match="1 jobs a minute in fast; try again in") as by_rate:
            await bench.queue()
        with pytest.raises(TooMany, match="turbo aren't over yet") as by_concurrency:
            await bench.queue(tier=Tier.TURBO)
    assert by_rate.value.field == by_concurrency.value.field == "tier"
    assert 1 <= by_rate.value.extra["retry_after_s"] <= 60


async def test_of_many_at_once_no_more_are_let_in_than_the_budget_and_one(tmp_path: Path) -> None:
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        first = await bench.queue(tenant="bob")
        cost_s = bench.gate.let[first.id]
        await bench.store.budgets.put("ada", Budget(cost_s * 2.5))
        answers = await asyncio.gather(*(bench.queue() for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(answer, TooMany) for answer in answers) == 7
        assert isinstance((await bench.queue(tenant="bob")).id, str), "another's is untouched"


async def test_a_spent_budget_falls_to_relax_and_the_job_says_from_where(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.store.budgets.put("ada", Budget(0.0, WhenSpent.RELAX))
        job = await bench.queue(tier=Tier.TURBO)
        assert (job.tier, job.fell_from, job.charged_s) == (Tier.RELAX, Tier.TURBO, None)
        [queued] = await bench.events(job, "queued")
        assert (queued.data["tier"], queued.data["fell_from"]) == ("relax", "turbo")
        asked = await bench.queue(tier=Tier.RELAX)
        assert asked.fell_from is None
        await bench.store.budgets.put("ada", PLENTY)
        assert (await bench.queue(tier=Tier.TURBO)).tier is Tier.TURBO, "without a restart"


async def test_the_line_knows_who_of_the_tenant_asked_also_after_a_restart(tmp_path: Path) -> None:
    """One with many jobs waits behind the first of another of the same tenant."""
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        for _ in range(4):
            await bench.dispatcher.queue("ada", Tier.FAST, SPEC, user="ann")
        late = await bench.dispatcher.queue("ada", Tier.FAST, replace(SPEC, seed=8), user="bob")
        assert bench.dispatcher.position(late.id) == 2
    async with bench_in(tmp_path) as bench:
        await bench.dispatcher.start()
        assert bench.dispatcher.position(late.id) == 2


async def test_what_a_budget_may_not_be_names_its_field_and_limit(tmp_path: Path) -> None:
    store = await JobStore.open(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")
    for tenant, seconds, field in (
        ("ada", -1.0, "fast_seconds_per_month"),
        ("ada", float("nan"), "fast_seconds_per_month"),
        ("", 1.0, "tenant"),
        ("x" * 101, 1.0, "tenant"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await store.budgets.put(tenant, Budget(seconds))
        assert refused.value.field == field
        assert refused.value.limit is not None
    await store.budgets.put("ada", PLENTY)
    assert await store.budgets.of("ada") == PLENTY
    await store.budgets.put("ada", None)
    assert await store.budgets.every() == {}
    await store.close()


@given(some.integers(1, 10**7))
def test_a_wait_in_words_is_never_shorter_than_it_is(seconds: int) -> None:
    number, unit = in_words(seconds).split()
    unit_s = {"second": 1, "seconds": 1, "minutes": 60, "hours": 3_600, "days": 86_400}[unit]
    assert seconds <= int(number) * unit_s <= 1.5 * seconds
