"""What tests of one room share.

The job store on each database that it speaks: its tests hold on both. The engine on one thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from calotype.jobs.store import JobStore
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new, empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[JobStore]:
    """An open job store."""
    opened = await JobStore.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of torch; late imports, since other rooms do without it."""
    from tests.rooms.engine_bench import threads

    with threads(1):
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random SDXL."""
    from tests.rooms.engine_bench import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny"))
