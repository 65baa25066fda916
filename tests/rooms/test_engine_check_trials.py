"""Checks on trial in the engine: told beside what is in force, and never in anybody's way."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calotype.core import frames, limits
from calotype.core.messages import LoadModel, RowDone, TrialSeen
from calotype.core.picture_checks import CheckUse, Trial
from calotype.engine.checks.running import Seen, load_check
from calotype.engine.checks.trials import Trials
from tests.rooms.engine_bench import Bench, run_row
from tests.rooms.test_engine_checks import CPU, pictures
from tests.rooms.tiny_checks import domain
from tests.rooms.tiny_checks import probe as made_probe

pytestmark = pytest.mark.usefixtures("one_thread")
LABELS = ("bad", "harmless")
[PICTURE] = pictures(1)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> CheckUse:
    return replace(made_probe(tmp_path_factory.mktemp("probe"), LABELS[::-1]), name="own")


def trial(use: CheckUse, share: float = 1.0, **changes: Any) -> Trial:
    said = {**vars(use), "share": share, **changes}
    return Trial(**said)


ASKED = Seen(builds={"own": "a" * 16})  # what the checks in force said; it is one of them


class Heard:
    """What trials say, and the trials."""

    def __init__(self, load: Any = load_check) -> None:
        self.said: list[TrialSeen] = []
        self.trials = Trials(CPU, self.said.append, load)  # type: ignore[arg-type]

    def offer(self, *rows: str, scores: dict[str, float] | None = None) -> list[TrialSeen]:
        for row in rows:
            self.trials.offer("model", row, replace(ASKED, scores=scores or {}), PICTURE)
        self.trials.settle()
        said, self.said[:] = [*self.said], []
        return said


def test_a_trial_is_told_beside_what_the_check_in_force_said(probe: CheckUse) -> None:
    heard = Heard()
    heard.trials.expect("model", [trial(probe, build="b" * 16)])
    [said] = heard.offer("job_1/1/0", scores={"own:bad": 0.2, "own:harmless": 0.8, "x:y": 1.0})
    assert (said.row, said.check, said.build) == ("job_1/1/0", "own", "b" * 16)
    assert said.current == {"bad": 0.2, "harmless": 0.8}
    assert set(said.scores) == set(LABELS)
    assert all(0.0 <= score <= 1.0 for score in said.scores.values())
    assert not said.failed
    [said] = heard.offer("job_1/1/1", scores={"own:bad": 0.2})
    assert said.current == {}  # half an answer is none
    assert list(heard.trials.tensors())
    heard.trials.offer("model", "job_1/1/1", Seen(), PICTURE)  # it wasn't asked
    heard.trials.offer("other", "job_1/1/1", ASKED, PICTURE)
    assert heard.said == []


def test_a_share_of_the_pictures_is_chosen_by_their_rows(probe: CheckUse) -> None:
    rows = [f"job_{at}/1/0" for at in range(200)]

    class Instant:
        def scores(self, given: Sequence[Any]) -> list[dict[str, float]]:
            return [dict.fromkeys(LABELS, 0.1) for _ in given]

    chosen = []
    for _ in range(2):
        heard = Heard(lambda use, device: Instant())
        heard.trials.expect("model", [trial(probe, 0.25)])
        chosen.append([said.row for row in rows for said in heard.offer(row)])
    assert chosen[0] == chosen[1]
    assert 30 < len(chosen[0]) < 70


@pytest.mark.parametrize("fault", ["raises", "nan", "half", "memory", "load"])
def test_what_goes_wrong_on_trial_is_counted_and_rests(
    probe: CheckUse, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Broken:
        def scores(self, given: Sequence[Any]) -> list[dict[str, float]]:
            calls.append(fault)
            match fault:
                case "nan":
                    return [{"bad": float("nan"), "harmless": 0.0}]
                case "half":
                    return [{"bad": 0.0}]
                case "memory":
                    raise torch.OutOfMemoryError("out of memory")
                case _:
                    raise RuntimeError("out of order")

    def load(use: CheckUse, device: torch.device) -> Broken:
        if fault == "load":
            calls.append(fault)
            raise OSError("gone")
        return Broken()

    heard = Heard(load)
    heard.trials.expect("model", [trial(probe)])
    said = heard.offer("job_1/1/0") + heard.offer("job_2/1/0")
    assert [each.scores for each in said] == [{}, {}]
    assert said[0].failed
    assert said[1].failed == f"it rests: {said[0].failed}"
    assert len(calls) == 1
    monkeypatch.setattr(limits, "TRIAL_REST_S", 0.0)
    heard.trials._rests.clear()
    heard.offer("job_3/1/0")
    assert len(calls) == 2


def test_one_that_hangs_holds_up_nobody(probe: CheckUse) -> None:
    go_on = threading.Event()

    class Hanging:
        def scores(self, given: Sequence[Any]) -> list[dict[str, float]]:
            go_on.wait(30)
            return [dict.fromkeys(LABELS, 0.1) for _ in given]

    heard = Heard(lambda use, device: Hanging())
    heard.trials.expect("model", [trial(probe)])
    count = limits.TRIALS_HELD_MAX + 6
    for at in range(count):
        heard.trials.offer("model", f"job_{at}/1/0", ASKED, PICTURE)
    assert 5 <= len(heard.said) <= 6  # one may have been taken out by then
    assert {each.failed for each in heard.said} == {"it is still at earlier pictures"}
    go_on.set()
    heard.trials.settle()
    assert len(heard.said) == count
    assert sum(not each.failed for each in heard.said) >= limits.TRIALS_HELD_MAX


def test_a_picture_s_answer_says_nothing_of_a_trial(tiny: Path, tmp_path: Path) -> None:
    use = domain(tmp_path)
    good, broken = trial(use), trial(use, path=str(tmp_path / "gone"), build="broken")
    bench = Bench(tiny)
    bench.engine._checks.expect("tiny", [use])
    answers = []
    for at, tried in enumerate(([], [good], [broken])):
        bench.engine._trials.expect("tiny", tried)
        bench.finish(run_row(f"job/{at}/0", steps=1))
        bench.engine._trials.settle()
        answers.append(bench.said(RowDone)[-1])
    assert answers[0].scores == answers[1].scores == answers[2].scores
    assert not any(each.unchecked for each in answers)
    [first, second] = bench.said(TrialSeen)
    assert first.scores == first.current == {"outside": answers[0].scores["domain:outside"]}
    assert (second.scores, second.current) == ({}, first.current)
    assert second.failed
    for message in (first, LoadModel("tiny", "/nowhere", "0", trials=(good,))):
        head = frames.encode(message)[frames.HEAD_BYTES : -frames.BLOB_HEAD_BYTES]
        assert frames.decode(head) == message
