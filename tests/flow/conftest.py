"""What the tests of the dispatcher share: a bench that runs, and short pauses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from calotype.core import limits
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
