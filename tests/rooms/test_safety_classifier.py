"""The shipped classifier: what training computes is what runs, and damage is never "allow"."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from typer.testing import CliRunner

from calotype.cli import app
from calotype.core.errors import InvalidInput, OperatorError
from calotype.core.nouns import VerdictKind
from calotype.safety.attacks import splitting
from calotype.safety.classifier import CHAR_NGRAMS, LABELS, WORD_NGRAMS, TextClassifier
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.evaluate import SETS, attack, evaluate, interval, prompts, report
from calotype.safety.lists import ALWAYS, Lists
from calotype.safety.prompts import PromptCheck
from calotype.safety.views import views

CHECK = PromptCheck.default()
SMALL = Lists.shipped()


def small(**changes: object) -> TextClassifier:
    """A classifier of three features, made by hand."""
    given: dict[str, object] = {
        "weights": np.zeros((len(LABELS), 3), np.float32),
        "bias": np.full(len(LABELS), -3, np.float32),
        "idf": np.ones(3, np.float32),
        "thresholds": dict.fromkeys(LABELS, 0.5),
    }
    return TextClassifier(["ab", " a"], ["lake"], **(given | changes))  # type: ignore[arg-type]


def test_scores_are_those_of_scikit_learns_vectorizers() -> None:
    texts = ["a lake at dawn", "a lake a lake by the dawn", "ab", "zzz", "a castle", "裸体 lake"]
    chars = TfidfVectorizer(analyzer="char_wb", ngram_range=CHAR_NGRAMS, sublinear_tf=True)
    words = TfidfVectorizer(token_pattern=r"\S+", ngram_range=WORD_NGRAMS, sublinear_tf=True)
    blocks = [each.fit_transform(texts).toarray() for each in (chars, words)]
    features = np.concatenate(blocks, axis=1)
    weights = np.random.default_rng(5).normal(0, 1, (len(LABELS), features.shape[1]))
    ours = TextClassifier(
        list(chars.get_feature_names_out()),
        list(words.get_feature_names_out()),
        weights=weights.astype(np.float32),
        bias=np.zeros(len(LABELS), np.float32),
        idf=np.concatenate([chars.idf_, words.idf_]).astype(np.float32),
        thresholds=dict.fromkeys(LABELS, 0.5),
    )
    for text, row in zip(texts, features, strict=True):
        expected = 1 / (1 + np.exp(-(weights @ row)))
        assert np.allclose(list(ours.scores(views(text)).values()), expected, atol=1e-4), text


def test_a_short_harmful_part_of_a_long_prompt_still_counts() -> None:
    padding = "a quiet harbour at dawn, oil on canvas, " * 10
    parts = [part for each in prompts()["reworded"].values() for part in each]
    refused = sum(CHECK.judge(f"{padding}{part}, {padding}").category is not None for part in parts)
    assert refused >= 0.65 * len(parts)  # measured 0.77


@pytest.mark.parametrize(
    ("text", "label"), [("fake plastic trees", "illegal"), ("lovers", "sexual")]
)
def test_what_rests_on_a_single_word_is_not_enough(text: str, label: str) -> None:
    assert CHECK.classifier.scores(views(text))[label] >= CHECK.classifier.thresholds[label]
    assert CHECK.judge(text).category is None


def test_with_a_minor_a_single_word_is_enough() -> None:
    assert CHECK.judge_fields({"prompt": "lovers", "loras": "child"}).category == ALWAYS


@pytest.mark.parametrize("category", LABELS)
def test_most_wishes_in_other_words_are_refused(category: str) -> None:
    texts = prompts()["reworded"][category]
    refused = sum(CHECK.judge(text).kind is VerdictKind.BLOCK for text in texts)
    assert refused >= 0.6 * len(texts)  # measured more: docs/safety.md


@pytest.mark.parametrize(
    "change",
    [
        {"weights": np.full((len(LABELS), 3), np.nan, np.float32)},
        {"weights": np.zeros((len(LABELS) - 1, 3), np.float32)},
        {"bias": np.full(len(LABELS), np.inf, np.float32)},
        {"idf": np.ones(4, np.float32)},
        {"thresholds": {"sexual": 0.5}},
        {"thresholds": dict.fromkeys(LABELS, float("nan"))},
        {"thresholds": dict.fromkeys(LABELS, 1.0)},
    ],
    ids=["NaN", "label count", "infinite", "size", "one threshold", "NaN threshold", "never"],
)
def test_a_damaged_classifier_judges_nothing(change: dict[str, object]) -> None:
    with pytest.raises(SafetyUnavailable):
        small(**change)


def test_a_number_lost_while_judging_is_no_pass() -> None:
    huge = small(
        weights=np.full((len(LABELS), 3), 3e38, np.float32), idf=np.full(3, 3e38, np.float32)
    )
    with pytest.raises(SafetyUnavailable), np.errstate(all="ignore"):
        PromptCheck(SMALL, huge).judge("a lake, ab ab ab")


class Failing(TextClassifier):
    """The shipped one, but that its judgement ends in an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.version = "failing"
        self.thresholds = dict.fromkeys(LABELS, 0.5)

    def scores(self, seen: object) -> dict[str, float]:
        raise self.error


@pytest.mark.parametrize(
    "error", [MemoryError(), ValueError("x"), KeyError("x"), OSError(), TimeoutError()], ids=repr
)
def test_whatever_goes_wrong_in_a_check_is_a_refusal(error: Exception) -> None:
    check = PromptCheck(SMALL, Failing(error))
    with pytest.raises(SafetyUnavailable) as caught:
        check.judge("a cat")
    assert caught.value.__cause__ is error


def test_a_half_answer_is_no_pass() -> None:
    class Half(Failing):
        def scores(self, seen: object) -> dict[str, float]:
            return {"sexual": 0.0}

    with pytest.raises(SafetyUnavailable):
        PromptCheck(SMALL, Half(ValueError())).judge("a cat")


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_that_is_no_classifier_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(content)
    with pytest.raises(OperatorError, match=r"weights\.safetensors"):
        TextClassifier.from_file(file)
    save_file({"grams": np.zeros(3, np.uint8)}, file, metadata={"classifier": json.dumps({})})
    with pytest.raises(OperatorError, match=r"weights\.safetensors"):
        TextClassifier.from_file(file)


def test_turned_off_categories_arent_scored_either() -> None:
    lists = dataclasses.replace(SMALL, off=frozenset({"gore"}))
    part = prompts()["reworded"]["gore"][2]
    assert PromptCheck(lists, CHECK.classifier).judge(part).category != "gore"


# The evaluation and the attacks


def test_an_interval_holds_the_share() -> None:
    low, high = interval(3, 100)
    assert 0.009 < low < 0.03 < high < 0.09
    assert interval(0, 0) == (0.0, 1.0)
    assert interval(0, 300)[1] == pytest.approx(0.0126, abs=1e-3)


def test_every_listed_prompt_of_the_evaluation_is_refused_for_its_category() -> None:
    for each in prompts()["listed"]:
        assert each["word"] in each["prompt"]
        assert CHECK.judge(each["prompt"]).category == each["category"]
    measured = evaluate(CHECK)
    assert all(row["count"] == row["of"] for row in measured["listed"].values())


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_prompts_is_whole_and_says_nothing_that_another_says(name: str) -> None:
    asked = prompts(name)
    assert all(each["word"] in each["prompt"] for each in asked["listed"])
    assert set(asked["reworded"]) == set(LABELS)
    others = {text for other in SETS if other != name for text in _texts(prompts(other))}
    assert not others & _texts(asked)


def _texts(asked: dict[str, Any]) -> set[str]:
    reworded = {text for texts in asked["reworded"].values() for text in texts}
    listed = {each["prompt"] for each in asked["listed"]}
    return reworded | listed | set(asked["harmless"]["looks_bad"])


def test_a_set_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="fourth"):
        prompts("fourth")


def test_a_search_finds_its_way_past_a_check_that_only_knows_the_word() -> None:
    import random

    passed = splitting("a nude x", "nude", lambda text: "nude" not in text, random.Random(1))
    assert passed[1]
    assert passed[0].startswith("a n")
    last, has_passed = splitting("a nude x", "nude", lambda text: False, random.Random(1))
    assert not has_passed
    assert last != "a nude x"


def test_no_disguise_passes_and_the_report_is_the_same_again() -> None:
    found = attack(CHECK, seed=3)
    assert found == attack(CHECK, seed=3)
    rows = report(found)
    assert sum(found["splitting"].passes) == rows["splitting"]["count"]
    for name in ("fullwidth", "Cyrillic", "zero-width space", "spaced", "leet", "emoji-split"):
        assert rows[name]["count"] == 0, rows[name]["passed"]
    assert rows["splitting"]["of"] == len(prompts()["listed"])


def test_the_command_line_explains_a_verdict(tmp_path: Path) -> None:
    asked = ["safety", "explain", "a n u d e woman", "--home", str(tmp_path), "--json"]
    told = json.loads(CliRunner().invoke(app, asked).stdout)
    assert (told["verdict"], told["category"]) == ("block", "sexual")
    assert told["checks"][0]["found"][0] == {
        "list": "sexual", "term": "nude", "view": "letters set apart"
    }  # fmt: skip
    assert set(told["scores"]["prompt"]) == set(LABELS)
