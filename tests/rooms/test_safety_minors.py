"""A minor and sexual content together: refused in any field, whatever an operator sets.

Only single words of the two lists: no sentence of the kind.
"""

import dataclasses
from pathlib import Path

import pytest

from calotype.core.errors import OperatorError
from calotype.core.nouns import VerdictKind
from calotype.safety.attacks import DISGUISES
from calotype.safety.lists import ALWAYS, CATEGORIES
from calotype.safety.prompts import PromptCheck

CHECK = PromptCheck.default()


def category(prompt: str, field: str = "prompt") -> str | None:
    return CHECK.judge(prompt, field=field).category


@pytest.mark.parametrize(
    "minor",
    ["child", "KIDS", "teenager", "school girl", "ch1ld", "c.h.i.l.d", "12 year old", "12-year-old",
     "seven years old", "aged 15", "16yo", "９ ｙｅａｒ ｏｌｄ", "t\u200bee\u200bn",
     "under-age", "kiiiid"],
)  # fmt: skip
@pytest.mark.parametrize("sexual", ["nude", "n u d e", "sexy", "erotic", "s3xual"])
def test_a_minor_and_sexual_content_are_never_together(minor: str, sexual: str) -> None:
    for prompt in (f"{minor}, {sexual}", f"{sexual} | much else in between, oil | {minor}"):
        verdict = CHECK.judge(prompt)
        assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "sexual_minors")


@pytest.mark.parametrize("disguise", sorted(DISGUISES.keys() - {"upside down", "attached"}))
def test_a_term_of_the_rules_own_list_is_found_disguised(disguise: str) -> None:
    """Those in letters. Of the two left out, and of Chinese and Japanese ones, a few pass."""
    terms = [it for it in CHECK.lists.block[ALWAYS] if max(map(ord, it)) < 0x2E80]
    assert len(terms) > 40
    hidden = [f"a portrait, {DISGUISES[disguise](term)} figure" for term in terms]
    assert [it for it in hidden if category(it) is None] == []


@pytest.mark.parametrize("age", ["18 year old", "thirty years old", "aged 45"])
def test_an_adults_age_is_no_minors(age: str) -> None:
    assert category(f"{age}, sexy") is None


def test_it_is_the_same_in_the_negative_prompt() -> None:
    assert category("child, nude", "negative_prompt") == "sexual_minors"
    assert category("loli", "negative_prompt") == "sexual_minors"


def test_a_negative_prompt_may_steer_away_but_not_undress() -> None:
    assert category("nsfw, nude, gore, mutilated hands", "negative_prompt") is None
    assert category("clothes", "negative_prompt") == "sexual"
    assert category("c l o t h e s, blurry", "negative_prompt") == "sexual"
    assert category("a shelf of clothes") is None


@pytest.mark.parametrize(
    ("minor", "sexual"),
    [
        ("third grader", "nude"), ("grade school", "sexy"), ("6th grade", "erotic"),
        ("fourteen yrs old", "nude"),
        ("kleines Mädchen", "nackt"), ("12 Jahre alt", "erotisch"), ("dreizehn jährige", "nackt"),
        ("petite fille", "nue"), ("douze ans", "érotique"), ("una niña", "desnuda"),
        ("quince años", "sensual"),
        ("menina", "nua"), ("bambina", "nuda"), ("tredici anni", "erotica"), ("девочка", "голая"),
        ("12 лет", "эротично"), ("小女孩", "裸体"), ("十二岁", "性感"), ("12歳", "全裸"),
        ("幼女", "エロい"),
        ("Kind, 9jährige", "nude"), ("girl of eleven, age 11", "nude"),
    ],
)  # fmt: skip
def test_ages_grades_and_words_of_every_language_count(minor: str, sexual: str) -> None:
    assert category(f"{minor}, {sexual}") == ALWAYS
    assert category(minor) is None


@pytest.mark.parametrize("adult", ["二十一岁", "21歳", "35岁", "21 лет", "25 ans", "21 Jahre alt"])
def test_a_part_of_an_adults_age_is_no_minors(adult: str) -> None:
    assert category(f"{adult}, 性感") is None


def test_a_minor_in_one_field_and_sexual_content_in_another_are_together() -> None:
    for fields in (
        {"prompt": "a child", "lora style": "nude"},
        {"prompt": "nude", "lora style": "schoolgirl"},
        {"prompt": "a child", "negative_prompt": "clothes"},
        {"lora style": "teen", "prompt": "a lake", "lora other": "erotic"},
    ):
        assert CHECK.judge_fields(fields).category == ALWAYS, fields


def test_words_of_sex_in_a_negative_prompt_steer_away_from_them() -> None:
    fields = {"prompt": "a child with a kite", "negative_prompt": "nsfw, nude"}
    assert CHECK.judge_fields(fields).kind is VerdictKind.ALLOW


def test_no_setting_turns_it_off(tmp_path: Path) -> None:
    file = tmp_path / "off.toml"
    file.write_text(f"off = {list(CATEGORIES[1:])}".replace("'", '"'))
    check = PromptCheck.from_file(file)
    assert check.judge("nude").category is None
    assert check.judge("child, nude").category == ALWAYS
    file.write_text(f'off = ["{ALWAYS}"]')
    with pytest.raises(OperatorError, match=r"off\.toml"):
        PromptCheck.from_file(file)
    lists = dataclasses.replace(CHECK.lists, off=frozenset({ALWAYS, "sexual"}))
    assert PromptCheck(lists, CHECK.classifier).judge("child, nude").category == ALWAYS
