"""What holds for all tests: threads, chance, order; and a PostgreSQL server, if one is wanted.

``make test`` runs files of tests side by side, a process each core, so a file shares nothing with
another but what each process starts for itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests import s3 as moto
from tests.postgres import Postgres, running_postgres

# Before torch comes: its threads in one process would fight those of the other. Tests of threads
# say how many they want; engine processes take one a core, as anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# No example has a deadline, since the machine is busy, and none is kept: processes share no files.
hypothesis.settings.register_profile("suite", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("suite")

LONGEST = (  # begun first: one of these begun last would have the other process wait for it
    "tests/flow/test_first_image.py",
    "tests/web/test_from_pictures.py",
    "tests/flow/test_safety_train.py",
    "tests/rooms/test_engine_mixed.py",
    "tests/flow/test_cli_servers.py",
    "tests/flow/test_idempotency.py",
    "tests/flow/test_warm_pool.py",
    "tests/rooms/test_api_eta.py",
    "tests/flow/test_bench_engine.py",
    "tests/rooms/test_engine_contract.py",
    "tests/sim/test_replay.py",
    "tests/web/test_page.py",
    "tests/rooms/test_engine_control.py",
    "tests/flow/test_store_away.py",
    "tests/rooms/test_engine_lora_rows.py",
    "tests/web/test_eta.py",
    "tests/rooms/test_engine_parity.py",
    "tests/rooms/test_engine_checkpoints.py",
    "tests/rooms/test_engine_lora.py",
    "tests/flow/test_cli.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of their length; within a file as it is written."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """No test runs beside a file that can't be read: pytest has it so, but not with processes."""
    if session.testsfailed and hasattr(session.config, "workerinput"):
        session.shouldstop = f"{session.testsfailed} of the files can't be read"
        pytest.exit(session.shouldstop, returncode=1)


@pytest.fixture(scope="session", autouse=True)
def shipped_synchronous() -> Iterator[str]:
    """What SQLite's commits wait for where it ships. Here no power is cut, and they don't wait for
    the disk: each for 4 to 40 ms, and opening a store is a commit for each migration."""
    from calotype.jobs import sqlite

    shipped, sqlite.SYNCHRONOUS = sqlite.SYNCHRONOUS, "OFF"
    yield shipped
    sqlite.SYNCHRONOUS = shipped


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[moto.S3]:
    with moto.running(tmp_path_factory.mktemp("s3")) as server:
        yield server
