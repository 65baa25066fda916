"""Three kills of a real server under load: ``pytest -m soak``; 200 are the benchmark's."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak.__main__ import PROMISES, soak


@pytest.mark.soak
@pytest.mark.timeout(1_500)
def test_three_kills_break_no_promise(tmp_path: Path) -> None:
    report = soak(kills=3, seed=3, home=tmp_path, tenants=2)
    assert {promise: report[promise] for promise in PROMISES} == {it: [] for it in PROMISES}
    assert report["server_kills"] + report["engine_kills"] == 3
    assert report["jobs"] == report["keys"] > 0
    assert report["states"]["succeeded"] > 0
