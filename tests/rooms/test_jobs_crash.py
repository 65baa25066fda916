"""A crash at any point: what was committed is there, whole, and nothing else is.

SQLite's crash is a write-ahead log that was cut anywhere; PostgreSQL's is a killed server whose
commits had to wait for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import SQLAlchemyError

from calotype.core.errors import IllegalMove, LeaseLost, StoreAway
from calotype.core.nouns import IdempotencyKey, Job, Lease, Tier
from calotype.jobs.patience import patiently
from calotype.jobs.store import JobStore
from tests.postgres import Postgres, running_postgres
from tests.rooms.test_jobs import CHANGES, SPEC, check_log

JOBS = 3
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
Look = dict[str, Any]
STEP = {"image": 0, "step": 1, "steps": 4}
ACTS = st.tuples(st.integers(0, JOBS - 1), st.sampled_from(["insert", "append", *CHANGES]))


class History:
    """Does things to a few jobs, one transaction each, and remembers how the store then looked."""

    def __init__(self, store: JobStore, name: str = "job") -> None:
        self.store = store
        self.leases = [Lease(f"{name}_{number}", 0, 0, "none") for number in range(JOBS)]
        self.known: set[int] = set()
        self.clock = 0

    async def act(self, number: int, name: str) -> None:
        """One thing done or refused; a note goes with each change, as the line's standing does."""
        self.clock += 1
        clock = self.clock
        self.store.keep("line", lambda: {"clock": clock})
        if name == "insert" and number not in self.known:
            await insert(self.store, self.leases[number].job_id)
            self.known.add(number)
        elif name != "insert" and number in self.known:
            with contextlib.suppress(IllegalMove, LeaseLost):
                await self._change(number, name)

    async def _change(self, number: int, name: str) -> None:
        lease = self.leases[number]
        if name == "append":
            await self.store.append(lease, "step", STEP)
            return
        outcome = await CHANGES[name][1](self.store, lease)
        if isinstance(outcome, Lease):
            self.leases[number] = outcome


async def insert(store: JobStore, job_id: str) -> Job:
    """A job and its request's key, in one transaction."""
    key = IdempotencyKey(f"key of {job_id}", "0" * 64, LONG_AGO)
    return await store.insert("ada", Tier.FAST, SPEC, job_id=job_id, once=key)


async def look(store: JobStore) -> Look:
    """All that a restart builds on: the unfinished jobs in order, logs, notes, keys."""
    jobs = await store.list_jobs("ada", limit=100, before=None)
    for job in jobs:
        await check_log(store, job)
        used = await store.idempotency_keys.find("ada", f"key of {job.id}", after=LONG_AGO)
        assert used is not None
        assert used.job_id == job.id
    return {
        "jobs": jobs,
        "unfinished": await store.unfinished(),
        "logs": {job.id: await store.events(job.id) for job in jobs},
        "note": await store.note("line"),
    }


@settings(max_examples=15, deadline=None)
@given(acts=st.lists(ACTS, min_size=1, max_size=12), cut=st.floats(0, 1))
def test_a_log_that_is_cut_anywhere_leaves_what_was_committed_up_to_there(
    acts: list[tuple[int, str]], cut: float
) -> None:
    asyncio.run(_cut_and_look([(0, "insert"), *acts], cut))


def wal_of(file: Path) -> Path:
    return Path(f"{file}-wal")


def wal_bytes(file: Path) -> int:
    return wal_of(file).stat().st_size


def copy_cut(file: Path, copy: Path, began: int, cut: float) -> None:
    """Copy a database with its log up to this share of what came after byte ``began``."""
    shutil.copy(file, copy)
    log = wal_of(file).read_bytes()
    wal_of(copy).write_bytes(log[: began + round((len(log) - began) * cut)])


async def _cut_and_look(acts: list[tuple[int, str]], cut: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, copy = Path(folder) / "jobs.db", Path(folder) / "crashed.db"
        store = await JobStore.open(f"sqlite+aiosqlite:///{file}")
        history = History(store)
        looks = [await look(store)]
        began = wal_bytes(file)
        for number, name in acts:
            await history.act(number, name)
            looks.append(await look(store))
        copy_cut(file, copy, began, cut)
        await store.close()
        crashed = await JobStore.open(f"sqlite+aiosqlite:///{copy}")
        found = await look(crashed)
        assert found in looks
        if cut == 1.0:
            assert found == looks[-1]
        await crashed.close()


# PostgreSQL.


@pytest.fixture(scope="module")
def durable() -> Iterator[Postgres]:
    with running_postgres(is_durable=True) as server:
        yield server


async def test_a_killed_postgresql_keeps_all_that_it_said_was_done(durable: Postgres) -> None:
    url, noise = durable.new_database(), random.Random(7)
    for life in range(2):
        store = await JobStore.open(url)
        looks: list[Look] = []
        working = asyncio.create_task(_work_until_it_fails(store, f"life{life}", noise, looks))
        killed_at = noise.randint(2, 12)
        while len(looks) < killed_at:  # noqa: ASYNC110 - nobody rings for it
            await asyncio.sleep(0.001)
        await asyncio.to_thread(durable.kill)
        with pytest.raises((SQLAlchemyError, StoreAway)):
            await asyncio.wait_for(working, 60)
        await asyncio.to_thread(durable.start)
        found = await patiently(partial(look, store))  # the same store connects anew
        told, kept = looks[-1]["logs"], found["logs"]
        assert all(kept[job_id][: len(log)] == log for job_id, log in told.items())
        # What it did last may have been committed though nobody heard of it: one change, no more.
        unheard = {job_id: kept[job_id][len(told.get(job_id, [])) :] for job_id in kept}
        assert sum(1 for log in unheard.values() if log) <= 1
        assert found["note"]["clock"] - looks[-1]["note"]["clock"] in (0, 1)
        await store.close()


async def _work_until_it_fails(
    store: JobStore, name: str, noise: random.Random, looks: list[Look]
) -> None:
    history, number = History(store, name), -1
    while True:
        number = (number + 1) % JOBS
        await history.act(number, "insert")
        looks.append(await look(store))
        await history.act(number, noise.choice(["append", *CHANGES]))
        looks.append(await look(store))
        if len(history.known) == JOBS and not looks[-1]["unfinished"]:
            history = History(store, f"{name}-{len(looks)}")
