"""Lists of known pictures that are swapped while a server runs: the next look finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.core.nouns import VerdictKind
from calotype.safety.current import CurrentCheck
from calotype.safety.hash_lists import added
from calotype.safety.pdq import pdq, to_hex
from tests.rooms.test_safety_pictures import FINE, SETUP, canary


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def hashes(folder: Path, *seeds: int) -> Path:
    file = folder / "new"
    file.write_text("".join(f"{to_hex(pdq(canary(seed)).positions[0])}\n" for seed in seeds))
    return file


def test_a_list_that_is_swapped_or_taken_away_is_noticed(tmp_path: Path) -> None:
    lists, clock = tmp_path / "hashes", Clock()
    lists.mkdir()
    check = CurrentCheck([lists], SETUP, clock)
    assert check.judge(canary(), FINE).kind is VerdictKind.ALLOW
    added(hashes(tmp_path, 1), lists, "one")
    assert check.judge(canary(), FINE).kind is VerdictKind.ALLOW, "it doesn't look at once"
    clock.now += limits.LISTS_LOOKED_AT_S
    before = check.judge(canary(), FINE)
    assert (before.category, before.check) == ("known", "known:one")
    assert check.judge_input(canary()).category == "known"
    added(hashes(tmp_path, 1, 2), lists, "one")
    clock.now += limits.LISTS_LOOKED_AT_S
    after = check.judge(canary(2), FINE)
    assert after.category == "known"
    assert after.version != before.version
    (lists / "one.pdq").unlink()
    clock.now += limits.LISTS_LOOKED_AT_S
    assert check.judge(canary(), FINE).kind is VerdictKind.ALLOW


def test_a_list_that_cannot_be_read_leaves_those_that_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists, clock = tmp_path / "hashes", Clock()
    added(hashes(tmp_path, 1), lists, "one")
    check = CurrentCheck([lists], SETUP, clock)
    (lists / "one.pdq").write_text("no hash\n")
    clock.now += limits.LISTS_LOOKED_AT_S
    assert check.judge(canary(), FINE).category == "known"
    assert "one.pdq, line 1" in capsys.readouterr().err
    with pytest.raises(OperatorError):
        CurrentCheck([lists], SETUP, clock)
