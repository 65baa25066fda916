"""What holds for all tests: threads, chance, order; and a PostgreSQL server, if one is wanted.

``make test`` runs files of tests side by side, a process each core, so a file shares nothing with
another but what each process starts for itself; a few groups of files share more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadFileScheduling

from tests import s3 as moto
from tests.postgres import Postgres, running_postgres

# Before torch comes: its threads in one process would fight those of the other. Tests of threads
# say how many they want; engine processes take one a core, as anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# No example has a deadline, since the machine is busy, and none is kept: processes share no files.
hypothesis.settings.register_profile("suite", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("suite")

# What breaks is logged as by a server: with all that was in its frames it takes seconds of a core.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

# Run by one process, one after the other: they share what is dear to start. Each other file is a
# group of its own.
GROUPS = {
    "tests/web/": "the page",  # a server and a browser
    "tests/flow/test_cli_servers.py": "the command line",  # a server
    "tests/flow/test_cli_pictures.py": "the command line",
}
LONGEST = (  # begun first: of one that is begun last the other process would await the end
    "the page",
    "tests/flow/test_first_image.py",
    "tests/flow/test_safety_train.py",
    "tests/rooms/test_engine_mixed.py",
    "the command line",
    "tests/flow/test_warm_pool.py",
    "tests/flow/test_check_promotion.py",
    "tests/flow/test_bench_engine.py",
    "tests/rooms/test_engine_contract.py",
    "tests/sim/test_replay.py",
    "tests/rooms/test_engine_control.py",
    "tests/rooms/test_engine_lora_rows.py",
    "tests/rooms/test_engine_parity.py",
    "tests/rooms/test_engine_checkpoints.py",
    "tests/rooms/test_engine_lora.py",
    "tests/flow/test_idempotency.py",
    "tests/flow/test_store_away.py",
)


def group_of(test: str) -> str:
    """The group of a test, by its id."""
    file = test.partition("::")[0]
    return next((group for path, group in GROUPS.items() if file.startswith(path)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile``, but by groups."""
    if config.getvalue("dist") != "loadfile":
        return None
    scheduling = LoadFileScheduling(config, log)
    scheduling._split_scope = group_of
    return scheduling


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups in the order of their length; within a file as it is written."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(group_of(item.nodeid), len(places)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """No test runs beside a file that can't be read: pytest has it so, but not with processes."""
    if session.testsfailed and hasattr(session.config, "workerinput"):
        session.shouldstop = f"{session.testsfailed} of the files can't be read"
        pytest.exit(session.shouldstop, returncode=1)


@pytest.fixture(scope="session", autouse=True)
def shipped_synchronous() -> Iterator[str]:
    """What SQLite's commits wait for as it ships. Nobody cuts our power: here neither they nor
    files wait for the disk, each time for 4 to 40 ms (opening a store is a commit a migration)."""
    from calotype.jobs import sqlite

    shipped = sqlite.SYNCHRONOUS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "SYNCHRONOUS", "OFF")
        patch.setattr(os, "fsync", lambda _: None)
        yield shipped


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[moto.S3]:
    with moto.running(tmp_path_factory.mktemp("s3")) as server:
        yield server
