"""What tests of one room share.

The job store on each database that it speaks: its tests hold on both. The app over a real platform.
The engine on one thread, with a tiny model. What needs torch or the app is imported late, since
other rooms do without.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from calotype.jobs.store import JobStore
from tests.laid import lay, migrate
from tests.postgres import Postgres

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI

    from tests.rooms.engine_bench import Bench
    from tests.rooms.engine_studio import Studio


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database: empty, but with its tables where ``store`` is to open it."""
    is_laid = "store" in request.fixturenames
    if request.param == "sqlite":
        if is_laid:
            lay(tmp_path / "jobs.db")
        return f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database(like=request.getfixturevalue("laid") if is_laid else "")


@pytest.fixture(scope="session")
def laid(postgres: Postgres) -> str:
    """The address of a database with all tables, to be copied."""
    address = postgres.new_database()
    migrate(address)
    return address


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[JobStore]:
    """An open job store."""
    opened = await JobStore.open(database_url)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FastAPI]:
    """The app over a platform of the module's own; its engine is the fake one.

    A module with ``ENGINE`` has it begun by that command.
    """
    from tests.rooms.api import FAKE, app_in

    engine = getattr(request.module, "ENGINE", FAKE)
    async with app_in(tmp_path_factory.mktemp("home"), engine=engine) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Its owner: a client with the platform's first key."""
    from tests.rooms.api import owner

    async with owner(app) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def anyone(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A caller without a key."""
    from tests.rooms.api import caller

    async with caller(app, {}) as opened:
        yield opened


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of torch."""
    from tests.rooms.engine_bench import threads

    with threads(1):
        yield


@pytest.fixture(scope="module")
def kept_curves(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engine processes of the module time each size of picture once: seconds, at every start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALOTYPE_ENGINE_FOLDER", str(tmp_path_factory.mktemp("engine")))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random SDXL, to read only."""
    from tests.rooms.engine_bench import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Studio:
    """Tiny models of all families, each made when a test of the module first asks for it."""
    from tests.rooms.engine_studio import Studio

    return Studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="session")
def lora_files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """LoRAs for it, to read only, one of each of ``engine_loras.RANKS``."""
    from tests.rooms.engine_loras import save_some

    return save_some(tiny, tmp_path_factory.mktemp("loras"))


@pytest.fixture(scope="module")
def tiny_engine(tiny: Path, one_thread: None) -> Bench:
    """An engine with the tiny model, as the test before has left it: tests want ``bench``."""
    from tests.rooms.engine_bench import Bench

    return Bench(tiny)


@pytest.fixture
def bench(tiny_engine: Bench) -> Bench:
    """The module's engine with the tiny model: no rows, no LoRAs and all the room for them."""
    tiny_engine.rest()
    return tiny_engine
