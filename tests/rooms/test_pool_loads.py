"""What an engine is told to load: at its start what fits, later what is asked; real processes."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calotype.core.messages import (
    MEMORY_VARIABLE,
    STAGING_VARIABLE,
    ModelUnloaded,
    RowDone,
    StepDone,
)
from calotype.core.nouns import Component, ModelInfo
from calotype.core.picture_checks import CheckUse
from calotype.pool.loading import RESERVES, Loading, Order, reserves_of
from calotype.pool.pool import EnginePool
from calotype.pool.reports import EngineDown, EngineLost, EngineWarm, ModelNotLoaded, ModelWarm
from tests.flow.dispatch_bench import eventually
from tests.rooms.test_pool import model, pool_of, row, take

PART = 1_000_000  # bytes
BUDGET = int(2.1 * PART / (1 - sum(RESERVES.values())))


def sized(name: str, count: int = PART, path: Path | None = None) -> ModelInfo:
    part = Component(f"all of {name}", "denoiser", count)
    return replace(model(name, path), build=name, components=(part,))


A, B, C = (sized(name) for name in "abc")


def loaded(loading: Loading, now: float = 0.0) -> list[str]:
    """Load all that is to be loaded now; the names, in order."""
    names = []
    while order := loading.next(now):
        names.append(order.model.name)
        loading.loaded(order.model.name)
    return names


def test_it_begins_with_what_fits_together_the_pinned_first() -> None:
    for pinned, names in (((), ["a", "b"]), (("c",), ["c", "a"])):
        loading = Loading("engine-0", [A, B, C], pinned)
        loading.begin()
        assert loading.planned == tuple(dict.fromkeys([*pinned, "a", "b", "c"]))
        loading.plan(BUDGET)
        assert loading.planned == tuple(names)
        assert loaded(loading) == names
        assert loading.is_over
        loading.begin()
        loading.plan(0)
        assert len(loaded(loading)) == 3, "an engine that names no memory loads them all"


def test_what_a_load_shows_of_a_pass_leaves_out_what_no_longer_fits() -> None:
    loading = Loading("engine-0", [A, B])
    loading.begin()
    loading.plan(BUDGET)
    order = loading.next(0.0)
    assert order is not None
    loading.loaded(order.model.name, room_bytes=PART)
    assert loading.next(0.0) is None
    assert loading.is_over
    loading.begin()
    loading.plan(BUDGET)
    assert loading.planned == ("a",), "which is known from now on"


def test_small_ones_fit_beside_what_has_no_room_itself() -> None:
    loading = Loading("engine-0", [sized("whale", 3 * PART), A, B])
    loading.begin()
    loading.plan(BUDGET)
    assert loading.planned == ("a", "b")


def test_what_only_has_no_room_has_not_failed_and_waits_until_it_is_asked_for() -> None:
    loading = Loading("engine-0", [A, B])
    loading.begin()
    loading.plan(BUDGET)
    for name in ("a", "b"):
        order = loading.next(0.0)
        assert order is not None
        assert order.model.name == name
        assert loading.refused(name, "full", 0.0, is_full=True) == order
    assert loading.is_over
    assert loading.failed == {}
    assert loading.next(1.0, again=True) is None
    loading.ask(Order(B, ("a",), is_asked=True))
    assert loading.next(2.0) == Order(B, ("a",), is_asked=True)


def test_what_has_no_room_where_no_rows_are_rests_after_some_tries() -> None:
    loading = Loading("engine-0", [A])
    loading.begin()
    loaded(loading)
    for at in range(6):
        assert not loading.has_given_up("b")
        loading.ask(Order(B, is_asked=True))
        assert loading.next(float(at)) is not None
        rows = {"long"} if at < 3 else ()
        loading.refused("b", "9 bytes are needed", float(at), is_full=True, rows=rows)
    assert loading.has_given_up("b")
    assert loading.resting(6.0) == {"b"}
    assert "9 bytes are needed" in loading.failing(6.0)["b"]


def test_rows_that_come_and_go_all_the_time_are_no_excuse_for_ever() -> None:
    loading = Loading("engine-0", [A])
    loading.begin()
    loaded(loading)
    for at, rows in enumerate(["ab", "b", "c", "d", "e"]):  # a letter each
        assert not loading.has_given_up("b"), "what was there before may hold the room"
        loading.ask(Order(B, is_asked=True))
        assert loading.next(float(at)) is not None
        loading.refused("b", "9 bytes are needed", float(at), is_full=True, rows=[*rows])
    assert loading.has_given_up("b")


def test_an_engine_that_is_told_to_end_in_a_load_has_found_nothing_wrong_with_the_model() -> None:
    loading = Loading("engine-0", [A])
    for _ in range(5):
        loading.begin()
        loaded(loading)
        loading.ask(Order(B, is_asked=True))
        assert loading.next(0.0) is not None
        assert loading.died("it is begun anew", 0.0, is_told=True) is None
        assert loading.current is None
    assert not loading.has_given_up("b")
    assert loading.failed == {}


def test_what_made_room_is_not_loaded_again_by_itself() -> None:
    loading = Loading("engine-0", [A, B, C])
    loading.begin()
    loading.plan(BUDGET)
    loaded(loading)
    loading.ask(Order(C, ("a",), is_asked=True))
    order = loading.next(0.0)
    assert order is not None
    loading.leaves("a")
    assert loading.unloaded("a"), "as it was told"
    assert loading.loaded("c") == order
    assert loading.warm == ["b", "c"]
    assert loading.next(1.0, again=True) is None
    assert loading.next(1.0) is None


def test_what_is_there_as_it_is_asked_for_is_answered_at_once() -> None:
    loading = Loading("engine-0", [A, B])
    loading.begin()
    loaded(loading)
    changed = replace(B, build="another")
    answers = []
    for wanted in (B, changed):
        order = Order(wanted, ("a",), is_asked=True)
        loading.ask(order)
        assert loading.next(0.0) == order
        answers.append(loading.is_there(order))
    assert answers == [True, False]
    assert loading.loaded("b") is not None
    assert not loading.unloaded("b"), "nobody told it to"
    assert loading.warm == ["a"]
    order = Order(changed, is_asked=True)
    loading.ask(order)
    assert loading.next(1.0) == order
    assert not loading.is_there(order)


def test_reserves_are_shares_of_the_budget() -> None:
    assert {one.name: one.bytes for one in reserves_of(1000)} == {
        name: int(1000 * share) for name, share in RESERVES.items()
    }
    assert reserves_of(0) == ()


def pool_with_room(*models: ModelInfo, load_s: float = 0.2, **options: Any) -> Any:
    env = {MEMORY_VARIABLE: str(BUDGET), "CALOTYPE_FAKE_LOAD_S": str(load_s)}
    return pool_of(models=models, env=env, **options)


async def started(pool: EnginePool) -> Any:
    reports = pool.reports()
    warm = (await take(reports, EngineWarm))[-1].message
    assert isinstance(warm, EngineWarm)
    assert warm.models == ("a", "b")
    assert (warm.budget_bytes, warm.reserves) == (BUDGET, reserves_of(BUDGET))
    return reports


async def test_a_model_is_loaded_on_demand_while_rows_go_on() -> None:
    async with pool_with_room(A, B, C) as pool:
        reports = await started(pool)
        await pool.send("engine-0", replace(row(steps=100_000), model="b"))
        await take(reports, StepDone)
        await pool.load("engine-0", C, evict=["a"])
        (health,) = pool.health()
        assert health.loading is not None
        assert health.loading.model == "c"
        assert health.models == ("b",)
        *meanwhile, warm = await take(reports, ModelWarm)
        assert len(meanwhile) > 10, "steps"
        assert isinstance(warm.message, ModelWarm)
        assert (warm.message.model, warm.message.is_asked) == ("c", True)
        assert warm.message.measured is not None
        assert warm.message.measured.bytes == PART
        (health,) = pool.health()
        assert (health.models, health.loading) == (("b", "c"), None)
        await pool.send("engine-0", replace(row(name="job/2/0"), model="c"))
        done = await take(reports, RowDone)
        assert done[-1].message.row == "job/2/0"  # type: ignore[union-attr]


async def test_a_load_without_room_or_files_is_told_and_the_engine_goes_on(
    tmp_path: Path,
) -> None:
    async with pool_with_room(A, B) as pool:
        reports = await started(pool)
        await pool.load("engine-0", C)
        await pool.load("engine-0", sized("gone", 1, tmp_path))
        failed = [(await take(reports, ModelNotLoaded))[-1].message for _ in range(2)]
        assert [(it.model, it.is_full) for it in failed if isinstance(it, ModelNotLoaded)] == [
            ("c", True),
            ("gone", False),
        ]
        (health,) = pool.health()
        assert health.models == ("a", "b")
        assert health.models_failed == {}, "it may be tried again"
        await pool.send("engine-0", replace(row(), model="a"))
        await take(reports, RowDone)


def test_what_is_warm_is_there_though_other_versions_of_its_checks_are_in_force() -> None:
    loading, check = Loading("engine-0", [A]), CheckUse("own", "classifier", "/new", "1", ("bad",))
    loading.begin()
    loaded(loading)
    assert loading.is_there(Order(replace(A, checks=(check,)), is_asked=True))
    assert not loading.is_there(Order(replace(A, build="another"), is_asked=True))


async def test_what_is_warm_already_is_told_so_and_not_loaded_again() -> None:
    async with pool_with_room(A, B) as pool:
        reports = await started(pool)
        await pool.load("engine-0", B, evict=["a"])
        (health,) = pool.health()
        assert (health.models, health.loading) == (("b",), None)
        warm = (await take(reports, ModelWarm))[-1].message
        assert isinstance(warm, ModelWarm)
        assert (warm.model, warm.is_asked, warm.measured) == ("b", True, None)
        await pool.load("engine-0", C)
        assert (await take(reports, ModelWarm))[-1].message.model == "c"  # type: ignore[union-attr]


async def test_a_copy_that_could_not_be_kept_is_told_and_one_that_was_is_known() -> None:
    env = {MEMORY_VARIABLE: str(BUDGET), STAGING_VARIABLE: str(PART)}
    async with pool_of(models=(A, B, C), env=env) as pool:
        reports = await started(pool)
        await pool.load("engine-0", C, evict=["a", "b"], stage=["a", "b"])
        *_, lost, warm = await take(reports, ModelWarm)
        assert isinstance(lost.message, ModelUnloaded)
        assert (lost.message.name, lost.message.is_staged) == ("b", False)
        assert lost.message.why_not
        (health,) = pool.health()
        assert (health.models_staged, health.staging_bytes) == (("a",), PART)
        await pool.load("engine-0", A)
        warm = (await take(reports, ModelWarm))[-1]
        assert isinstance(warm.message, ModelWarm)
        assert warm.message.measured is not None
        assert warm.message.measured.staged == PART
        assert pool.health()[0].models_staged == ()
        await pool.load("engine-0", B, evict=["c"], stage=["c"], unstage=["a"])
        await take(reports, ModelWarm)
        assert pool.health()[0].models_staged == ("c",)
        await pool.drop_copies("c")
        assert pool.health()[0].models_staged == ()


async def test_an_engine_that_is_killed_in_a_load_answers_it_and_begins_as_at_first() -> None:
    async with pool_with_room(A, B, C, load_s=1.0) as pool:
        reports = await started(pool)
        await pool.load("engine-0", C, evict=["a"])
        (health,) = pool.health()
        assert health.pid is not None
        os.kill(health.pid, signal.SIGKILL)
        *_, failed, lost = await take(reports, EngineLost)
        assert isinstance(failed.message, ModelNotLoaded)
        assert failed.message.model == "c"
        assert isinstance(lost.message, EngineLost)
        with pytest.raises(EngineDown):
            await pool.load("engine-0", C)
        again = (await take(reports, EngineWarm))[-1].message
        assert isinstance(again, EngineWarm)
        assert again.models == ("a", "b")


async def test_an_engine_that_is_drained_in_a_load_says_nothing_against_the_model() -> None:
    async with pool_with_room(A, B, C, load_s=1.0) as pool:
        reports = await started(pool)
        await pool.load("engine-0", C, evict=["a"])
        assert pool.drain("engine-0", "it is slow")
        pool.restart("engine-0")
        said = await take(reports, EngineLost)
        assert not [it for it in said if isinstance(it.message, ModelNotLoaded)]
        await take(reports, EngineWarm)
        assert pool.health()[0].models_failed == {}
        await pool.load("engine-0", C, evict=["a"])
        assert (await take(reports, ModelWarm))[-1].message.model == "c"  # type: ignore[union-attr]


async def test_what_an_engine_holds_is_told_with_its_heartbeats() -> None:
    async with pool_with_room(A, B, load_s=0.0) as pool:
        await started(pool)
        await eventually(lambda: pool.health()[0].bytes == {"weights": 2 * PART})
