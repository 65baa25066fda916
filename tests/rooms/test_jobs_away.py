"""A PostgreSQL that is stopped and started under a store, and the lock that goes with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from calotype.core import limits
from calotype.core.errors import OperatorError, StoreAway
from calotype.core.nouns import Tier
from calotype.jobs import alone
from calotype.jobs.patience import patiently
from calotype.jobs.store import JobStore
from tests.postgres import Postgres, running_postgres
from tests.rooms.test_jobs import SPEC


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One of its own: it is stopped under whoever uses it."""
    with running_postgres() as running:
        yield running


@pytest.fixture
async def serving(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[JobStore]:
    """A store that a server works with."""
    monkeypatch.setattr(alone, "SERVER_WAIT_S", 0.1)
    store = await JobStore.open(server.new_database())
    await store.serve_alone()
    yield store
    await store.close()


def url_of(store: JobStore) -> str:
    return store._database._engine.url.render_as_string(hide_password=False)


async def add(store: JobStore) -> str:
    return (await store.insert("ada", Tier.FAST, SPEC)).id


async def restart(server: Postgres) -> None:
    await asyncio.to_thread(server.shut)
    await asyncio.to_thread(server.start)


async def test_while_it_is_away_callers_are_told_when_to_ask_again(
    server: Postgres, serving: JobStore
) -> None:
    job_id = await add(serving)
    keeping = asyncio.create_task(serving.stay_alone())
    await asyncio.to_thread(server.shut)
    for ask in (lambda: serving.get(job_id), serving.count_queued, lambda: add(serving)):
        with pytest.raises(StoreAway) as told:
            await ask()
        assert told.value.problem() == {
            "type": "urn:calotype:problem:store-away",
            "title": "The job database can't be reached",
            "status": 503,
            "detail": "the job database can't be reached now; try again in 2 seconds",
            "retry_after_s": limits.STORE_AWAY_RETRY_S,
        }
    assert serving.is_away
    waiting = asyncio.create_task(patiently(lambda: add(serving)))
    await asyncio.to_thread(server.start)
    assert await waiting, "who has patience is served as soon as it is back"
    assert not serving.is_away
    assert await serving.count_queued() == 2
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_who_is_patient_gives_up_in_the_end(
    server: Postgres, serving: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STORE_AWAY_S_MAX", 0.05)
    monkeypatch.setattr(limits, "STORE_RETRY_S", 0.01)
    await asyncio.to_thread(server.shut)
    with pytest.raises(StoreAway):
        await patiently(lambda: add(serving))
    await asyncio.to_thread(server.start)


async def test_after_a_restart_the_lock_is_taken_again(server: Postgres, serving: JobStore) -> None:
    keeping = asyncio.create_task(serving.stay_alone())
    await restart(server)
    await patiently(lambda: add(serving))
    other = await JobStore.open(url_of(serving))
    with pytest.raises(OperatorError, match="another Calotype server works on"):
        await other.serve_alone()
    assert not keeping.done()
    keeping.cancel()
    await asyncio.wait([keeping])


@pytest.mark.parametrize("stays", [True, False], ids=["has it", "had it"])
async def test_a_server_that_another_has_followed_ends_and_writes_nothing_more(
    server: Postgres, serving: JobStore, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    await restart(server)  # and nobody keeps the lock of ``serving`` meanwhile
    other = await JobStore.open(url_of(serving))
    await other.serve_alone()
    await add(other)
    if not stays:
        monkeypatch.setattr(alone, "SERVER_WAIT_S", 60.0)  # PostgreSQL has yet to notice
        await other.close()
    with pytest.raises(StoreAway):
        await add(serving)
    assert await serving.count_queued() == 1, "it may look"
    said = "works on the job database" if stays else "has worked on the job database"
    with pytest.raises(OperatorError, match=said):
        await asyncio.wait_for(serving.stay_alone(), 120)
    with pytest.raises(StoreAway):
        await add(serving)
    if stays:
        await other.close()


async def test_a_connection_that_dies_without_a_word_is_found(
    serving: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "SERVER_WAIT_S", 20.0)
    monkeypatch.setattr(alone, "LOOK_S", 0.1)
    held = serving._database._alone
    assert held is not None
    assert held._connection is not None
    raw = (await held._connection.get_raw_connection()).driver_connection
    assert raw is not None
    keeping = asyncio.create_task(serving.stay_alone())
    pid = raw.get_server_pid()
    os.kill(pid, signal.SIGSTOP)  # the part of the server that has the lock
    async with asyncio.timeout(60):
        while not serving.is_away:  # noqa: ASYNC110 - nobody rings for it
            await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGCONT)
    await patiently(lambda: add(serving))
    assert not keeping.done()
    keeping.cancel()
    await asyncio.wait([keeping])
