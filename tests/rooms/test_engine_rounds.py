"""An engine treated badly for some rounds; ``python -m benchmarks.warm_rounds`` does a thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.warm_rounds import Rounds

pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDS = 30


def test_the_ledger_is_what_is_alive_whatever_happens_and_no_picture_is_lost(
    tmp_path: Path,
) -> None:
    tally = Rounds(tmp_path, seed=3).run(ROUNDS)
    assert tally.done == tally.asked > ROUNDS // 4
    assert tally.checks > ROUNDS
    assert tally.short > 0
    assert tally.copies >= tally.copied > 0
    assert tally.most <= tally.budget
    assert 0 < tally.most_staged <= tally.staging
