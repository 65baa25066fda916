"""Thresholds of a text classifier, told from what harmless prompts score."""

from __future__ import annotations

import json
from itertools import islice, permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core.errors import InvalidInput
from calotype.safety.evaluate import interval
from calotype.safety.thresholds import allowed, check_target, thresholds
from tests.flow.command_line import here
from tests.rooms import tiny_checks

CHECK = """
[checks.words]
kind = "text"
path = "words"
[checks.words.categories]
fine = "harmless"
harm = "hate"
"""


@given(st.lists(st.floats(0.0, 1.0), min_size=20, max_size=200), st.floats(0.2, 0.9))
def test_a_threshold_is_the_lowest_that_shows_its_share(scores: list[float], target: float) -> None:
    [found] = thresholds([{"harm": each} for each in scores], ["harm"], target)
    of = len(scores)
    if found.score is None:
        top = [each for each in scores if each > 1.0 - 1e-6]
        assert interval(len(top), of)[1] >= target
        return
    assert found.refused == sum(each >= found.score for each in scores)
    assert found.high == interval(found.refused, of)[1] < target
    lower = sum(each >= found.score - 1.1e-6 for each in scores)
    assert found.score == 0.0 or interval(lower, of)[1] >= target, "or it could be lower"


@given(st.floats(0.001, 0.9))
def test_how_many_prompts_it_takes_is_said(target: float) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_target(1, 1e-4)
    assert refused.value.limit == 38_413
    try:
        check_target(1, target)
    except InvalidInput as error:
        needed = int(str(error.limit))
        check_target(needed, target)
        with pytest.raises(InvalidInput):
            check_target(needed - 1, target)


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_is_inside_its_bounds(target: float) -> None:
    with pytest.raises(InvalidInput):
        thresholds([{"harm": 0.5}] * 100, ["harm"], target)


def test_thresholds_of_a_configured_classifier_keep_to_their_share(tmp_path: Path) -> None:
    home, words = tmp_path / "home", tmp_path / "home" / "words"
    words.mkdir(parents=True)
    tiny_checks.text(words)
    (home / "safety.toml").write_text(CHECK)
    said = permutations(["Rate", "the", "image", "as", "or", "answer", "Safe", "Unsafe"], 4)
    lines = [" ".join(words) for words in islice(said, 100)]
    harmless = tmp_path / "harmless.txt"
    harmless.write_text("\n".join([*lines, "", lines[0]]))
    ask = ("safety", "thresholds", "words", "--harmless", str(harmless))
    answer = here(home, *ask, "--false-positives", "0.1", "--json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    [label] = told["labels"]
    assert (label["label"], label["of"]) == ("harm", 100)
    assert 0 < label["refused"] <= allowed(100, 0.1)
    assert label["high"] < 0.1
    assert told["categories"] == {"hate": label["score"]}
    assert told["refused"]["count"] == label["refused"]
    few = here(home, *ask)
    assert few.returncode != 0
    assert "381" in few.stderr, "prompts that a share of 1 % takes"


def test_only_a_text_classifier_has_thresholds_of_prompts(tmp_path: Path) -> None:
    answer = here(tmp_path, "safety", "thresholds", "words")
    assert answer.returncode != 0
    assert "no text classifier" in answer.stderr


def test_a_classifier_that_can_t_run_is_named(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.mkdir()
    (words / "config.json").write_text("{}")
    (tmp_path / "safety.toml").write_text(CHECK)
    answer = here(tmp_path, "safety", "thresholds", "words")
    assert answer.returncode != 0
    assert "words can't score prompts" in answer.stderr
    assert "safetensors" in answer.stderr
