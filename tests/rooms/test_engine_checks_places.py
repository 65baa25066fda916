"""A check at two places: the second answers where the first doesn't, and what is down is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calotype.core import limits
from calotype.core.picture_checks import CheckUse
from calotype.engine.checks.running import Checks, Seen, load_check
from tests.rooms.test_engine_checks import CPU, pictures
from tests.rooms.tiny_checks import classifier

pytestmark = pytest.mark.usefixtures("one_thread")
FIRST, SECOND = "first", "second"


@pytest.fixture
def twice(tmp_path: Path) -> CheckUse:
    """One classifier in two folders, with other weights in the second."""
    for name in (FIRST, SECOND):
        (tmp_path / name).mkdir()
    use = classifier(tmp_path / FIRST)
    other = classifier(tmp_path / SECOND)
    return replace(use, standby=other.path, standby_build="1")


def damage(folder: str) -> Callable[[], None]:
    """Cut a file of weights short; the answer mends it."""
    file = Path(folder) / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])

    def mend() -> None:
        file.write_bytes(whole)

    return mend


def expecting(use: CheckUse, load: Any = load_check) -> Checks:
    checks = Checks(CPU, load)
    checks.expect("model", [use])
    checks.settle()
    return checks


def one(checks: Checks) -> Seen:
    [seen] = checks.seen("model", pictures(1))
    return seen


def test_both_places_are_the_check_without_the_other(twice: CheckUse) -> None:
    first, second = twice.places
    assert (first.path, second.path) == (twice.path, twice.standby)
    assert first.places == (first,)
    assert second.build == "1"
    assert first.score_name("nsfw") == second.score_name("nsfw")


def test_while_all_is_well_the_first_answers(twice: CheckUse) -> None:
    seen = one(expecting(twice))
    assert seen.scores == one(expecting(twice.places[0])).scores
    assert not seen.failed
    assert not seen.degraded


def test_the_second_answers_for_a_first_that_cannot_be_loaded(twice: CheckUse) -> None:
    damage(twice.path)
    seen = one(expecting(twice))
    assert seen.scores == one(expecting(twice.places[1])).scores
    assert not seen.failed
    assert "SafetensorError" in seen.degraded[twice.name]


def test_without_an_answer_of_either_there_is_none(twice: CheckUse) -> None:
    damage(twice.path)
    damage(twice.standby)
    seen = one(expecting(twice))
    assert not seen.scores
    assert twice.name in seen.failed


def test_a_second_that_is_down_is_told_though_the_first_answers_until_it_is_mended(
    twice: CheckUse, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = damage(twice.standby)
    checks = expecting(twice)
    assert twice.name in one(checks).degraded
    mend()
    assert twice.name in one(checks).degraded, "it isn't tried again so soon"
    monkeypatch.setattr(limits, "BREAKER_OPEN_S_MIN", 0.0)
    one(checks)  # and with this one it is, beside
    asked = checks._places[twice.name]._places[1]._asked
    assert asked is not None
    asked.result(120)
    assert not one(checks).degraded


class Hanging:
    """A loaded check that waits for a word before it answers."""

    def __init__(self, check: Any, go_on: threading.Event) -> None:
        self._check, self._go_on = check, go_on
        self.asked = 0

    def scores(self, given: Sequence[Any]) -> Any:
        self.asked += 1
        self._go_on.wait(30)
        return self._check.scores(given)


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def hanging(go_on: threading.Event, folder: str, made: list[Hanging]) -> Any:
    def load(use: CheckUse, device: torch.device) -> Any:
        check = load_check(use, device)
        if use.path != folder:
            return check
        made.append(Hanging(check, go_on))
        return made[-1]

    return load


def test_the_second_answers_for_a_first_that_hangs_and_at_once_while_it_does(
    twice: CheckUse, go_on: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Hanging] = []
    checks = expecting(twice, hanging(go_on, twice.path, made))
    monkeypatch.setattr(limits, "CHECK_S_MAX", 2.0)
    seen = one(checks)
    assert "longer than" in seen.degraded[twice.name]
    monkeypatch.setattr(limits, "CHECK_S_MAX", 30.0)
    again = one(checks)
    assert again.scores == seen.scores
    assert made[0].asked == 1, "it isn't asked while it hangs"
    go_on.set()
    asked = checks._places[twice.name]._places[0]._asked
    assert asked is not None
    asked.result(120)
    assert not one(checks).degraded, "it is back"


class Failing:
    """A loaded check that fails until it is told not to."""

    def __init__(self, check: Any) -> None:
        self._check = check
        self.fails, self.asked = True, 0

    def scores(self, given: Sequence[Any]) -> Any:
        self.asked += 1
        if self.fails:
            raise RuntimeError("CUDA error")
        return self._check.scores(given)


def test_a_first_that_fails_again_and_again_rests(twice: CheckUse) -> None:
    made: list[Failing] = []

    def load(use: CheckUse, device: torch.device) -> Any:
        check = load_check(use, device)
        if use.path != twice.path:
            return check
        made.append(Failing(check))
        return made[-1]

    checks = expecting(twice, load)
    for _ in range(limits.BREAKER_FAILURES_MAX + 1):
        assert "CUDA error" in one(checks).degraded[twice.name]
    assert made[0].asked == limits.BREAKER_FAILURES_MAX
    made[0].fails = False
    places = checks._places[twice.name]
    places._breakers._breakers[places._keys[0]].until = 0.0  # its time has come
    assert not one(checks).degraded


def test_a_first_that_rests_is_asked_all_the_same_where_the_second_is_gone(
    twice: CheckUse,
) -> None:
    """When to try is the server's to say: two that rest would keep each other down."""
    made: list[Failing] = []

    def load(use: CheckUse, device: torch.device) -> Any:
        made.append(Failing(load_check(use, device)))
        return made[-1]

    checks = expecting(twice, load)
    for _ in range(limits.BREAKER_FAILURES_MAX + 1):
        assert not one(checks).scores
    for each in made:
        each.fails = False
    assert one(checks).scores
