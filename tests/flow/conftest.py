"""What the tests of the dispatcher share: a bench that runs, and short pauses; and those of the
command line: a server that a command began."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from calotype.cli.client import Server
from calotype.cli.servers import own_server
from calotype.core import limits
from calotype.settings import Settings
from tests.flow.dispatch_bench import Bench, running_bench


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STORE_RETRY_S", 0.001)
    monkeypatch.setattr(limits, "SAFETY_RETRY_S", 0.02)
    monkeypatch.setattr(limits, "BREAKER_OPEN_S_MIN", 0.02)


@pytest.fixture
async def bench(tmp_path: Path, short_times: None) -> AsyncIterator[Bench]:
    async with running_bench(tmp_path) as running:
        yield running


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Settings]]:
    """A server that draws, begun as a command begins it, and what it was begun with."""
    settings = Settings(home=tmp_path_factory.mktemp("running"))
    with own_server(settings, port=0) as (server, _):
        yield server, settings
