"""What a verdict says, and what an operator's own lists may change."""

import time
from pathlib import Path

import pytest

from calotype.core.errors import OperatorError
from calotype.safety.prompts import PromptCheck

CHECK = PromptCheck.default()


def category(prompt: str) -> str | None:
    return CHECK.judge(prompt).category


def test_a_verdict_names_check_version_and_reason() -> None:
    verdict = CHECK.judge("nude", field="prompt")
    assert (verdict.check, verdict.version, verdict.score) == ("blocklist", CHECK.version, 1.0)
    assert verdict.detail == "The prompt asks for sexual content."
    assert "nude" not in verdict.detail  # a refusal is no lesson
    assert CHECK.judge("a cat").version == CHECK.version


def test_an_operators_file_adds_words(tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('[block]\nhate = ["Purple Unicorn"]\n[conjunction]\nsuggestive = ["zorp"]\n')
    check = PromptCheck.from_file(file)
    assert check.judge("a PURPLE un1c0rn").category == "hate"
    assert check.judge("zorp").category is None
    assert check.judge("child, zorp").category == "sexual_minors"
    assert check.judge("nude").category == "sexual"
    assert CHECK.judge("a purple unicorn").category is None
    assert check.version != CHECK.version
    assert check.version == PromptCheck.from_file(file).version


def test_an_operator_may_turn_categories_off_but_one(tmp_path: Path) -> None:
    file = tmp_path / "off.toml"
    file.write_text('off = ["sexual", "violence"]')
    check = PromptCheck.from_file(file)
    assert check.judge("nude, torturing").category is None
    assert check.judge("swastika").category == "hate"
    assert check.judge("child, nude").category == "sexual_minors"
    assert check.version != CHECK.version
    file.write_text('off = ["sexual_minors"]')
    with pytest.raises(OperatorError, match=r"off\.toml"):
        PromptCheck.from_file(file)


@pytest.mark.parametrize(
    "content",
    [
        b"[block",
        b"\xff\xfe",
        b'[block]\nsexy = ["x"]',
        b'benign = ["child"]',  # would be a way round the conjunction
        b"[block]\nhate = 3",
        b'[block]\nhate = ["..."]',
        b"[block]\nhate = [1]",
        b"block = 1",
        b'off = "hate"',
    ],
)
def test_a_file_with_something_unknown_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "words.toml"
    file.write_bytes(content)
    with pytest.raises(OperatorError, match=r"words\.toml"):
        PromptCheck.from_file(file)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"none\.toml"):
        PromptCheck.from_file(tmp_path / "none.toml")


def test_an_operators_words_are_not_guessed_at(tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('[block]\nhate = ["zorblax"]\nfigures = []\n'.replace("figures = []\n", ""))
    check = PromptCheck.from_file(file)
    assert check.judge("a z o r b l a x").category == "hate"
    assert check.judge("a zorb lax").category is None  # nobody looked which real words are near


def test_an_operators_names_are_protected_too(tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('figures = ["Zorp Blaxton"]')
    check = PromptCheck.from_file(file)
    assert check.judge("zorp blaxton in handcuffs").category == "harassment"
    assert check.judge("zorp blaxton at a lake").category is None


@pytest.mark.parametrize(
    "unit", ["n ", "é 🔥x ", "a1!b2@ ", "aaa1 ", "ß", "裸", "nude ", "a.", "\u0301", "!"]
)
def test_no_prompt_of_the_longest_length_takes_long(unit: str) -> None:
    start = time.process_time()
    CHECK.judge((unit * 2000)[:2000])
    assert time.process_time() - start < 2.0  # of a core; measured under 0.1
