"""What checks on trial said: for which category each would block, counts, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core import limits
from calotype.flow.trials import TrialRecord
from calotype.safety.policies import shipped
from calotype.safety.trials import TrialVerdict, category, report

PG13 = shipped()["pg13"]
MEANINGS = {"fine": "harmless", "nsfw": "sexual", "fight": "violence", "young": "minor"}
ONE = TrialVerdict(
    check="own",
    current="a" * 16,
    build="b" * 16,
    model="vignette",
    job="job_1",
    image=0,
    policy=PG13.version,
    now="",
    then="",
    scores={"nsfw": 0.1},
    failed="",
    took_s=0.5,
    at="2026-11-26T00:00:00+00:00",
)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({}, None),
        ({"fine": 1.0, "nsfw": 0.29, "fight": 0.49, "young": 0.9}, ""),
        ({"nsfw": 0.3}, "sexual"),
        ({"nsfw": 0.3, "fight": 0.9}, "violence"),  # further past its threshold
        ({"unheard of": 1.0}, ""),
    ],
)
def test_a_check_blocks_for_what_is_furthest_past_its_threshold(
    scores: dict[str, float], expected: str | None
) -> None:
    assert category(scores, MEANINGS, PG13) == expected


def test_the_report_counts_agreement_and_never_takes_a_failure_for_an_answer() -> None:
    some = [
        *[ONE] * 6,
        *[replace(ONE, now="sexual", then="sexual")] * 2,
        *[replace(ONE, then="violence", job=f"job_{at}") for at in range(3)],
        replace(ONE, now="sexual"),
        *[replace(ONE, then=None, scores={}, failed="out of memory")] * 4,
        replace(ONE, now=None),
        replace(ONE, build="c" * 16),
    ]
    [pair, other] = report(some)
    assert (pair["candidate"], other["candidate"]) == ("b" * 16, "c" * 16)
    assert (pair["pictures"], pair["compared"], other["pictures"]) == (17, 12, 1)
    assert (pair["failed"]["count"], pair["failed"]["of"]) == (4, 17)
    assert pair["failed"]["low"] < 4 / 17 < pair["failed"]["high"]
    assert (pair["agree"]["count"], pair["agree"]["of"]) == (8, 12)
    assert (pair["both block"], pair["neither blocks"]) == (2, 6)
    assert (pair["only the current blocks"], pair["only the candidate blocks"]) == (1, 3)
    assert (pair["current blocks"]["count"], pair["candidate blocks"]["count"]) == (3, 5)
    assert pair["unanswered by the current"] == 1
    assert [each["job"] for each in pair["disagreements"]] == ["job_1", "job_2", "job_1", "job_0"]
    assert pair["failures"] == ["out of memory"]


def test_nothing_compared_is_said_to_be_nothing() -> None:
    [pair] = report([replace(ONE, then=None, failed="broken")])
    assert (pair["compared"], pair["agree"]["of"], pair["agree"]["high"]) == (0, 0, 1.0)
    assert report([]) == []


def test_the_record_is_bounded_and_the_oldest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TRIAL_VERDICTS_KEPT_MAX", 20)
    record = TrialRecord(tmp_path / "trials")
    assert list(record.read()) == []
    for at in range(50):
        record.write("own", [replace(ONE, image=at)])
        kept = [each.image for each in record.read("own")]
        assert len(kept) <= 20
        assert kept == list(range(at + 1))[-len(kept) :]
        assert len(kept) >= min(at + 1, 10)
    record.write("other", [replace(ONE, check="other")])
    assert {each.check for each in record.read()} == {"own", "other"}
    assert {each.check for each in record.read("other")} == {"other"}


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    record = TrialRecord(tmp_path)
    record.write("own", [ONE, replace(ONE, image=1)])
    file = tmp_path / "own.jsonl"
    file.write_text(file.read_text()[:-40])
    assert [each.image for each in record.read()] == [0]
