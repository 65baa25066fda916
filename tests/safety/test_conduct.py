"""What refusals add up to, as data; and pictures of which a check isn't sure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core.errors import OperatorError
from calotype.core.nouns import VerdictKind
from calotype.core.picture_checks import CheckKind, CheckUse
from calotype.safety.conduct import ORDINARY, SEVERE, Conduct
from calotype.safety.pictures import PictureCheck, Scored
from calotype.safety.policies import shipped
from calotype.safety.policies.policy import read
from calotype.safety.setup import ConfiguredCheck, SafetySetup
from tests.rooms.test_safety_pictures import canary

HERE = Path("safety.toml")
USE = CheckUse("looks", CheckKind.CLASSIFIER, "/nowhere", "0" * 16, ("blood", "normal"))
CHECK = ConfiguredCheck(USE, {"blood": "violence", "normal": "harmless"})


def test_the_shipped_rules_suspend_for_many_ordinary_refusals_and_one_severe() -> None:
    conduct = Conduct.shipped()
    ordinary, severe = conduct.rule("violence"), conduct.rule("sexual_minors")
    assert ordinary is not None
    assert severe is not None
    assert (ordinary.name, ordinary.strikes, ordinary.suspended_s) == (ORDINARY, 20, 86_400.0)
    assert (severe.name, severe.strikes, severe.suspended_s) == (SEVERE, 1, None)
    assert conduct.rule("outside") is None, "the model's own doing"
    assert conduct.rule(None) is None


names = st.lists(st.sampled_from(["sexual_minors", "known", "violence", "outside"]), unique=True)


@given(names, names, names)
def test_no_setting_makes_a_minor_with_anything_sexual_less_than_severe(
    severe: list[str], cases: list[str], uncounted: list[str]
) -> None:
    said = {"severe": severe, "cases": cases, "uncounted": uncounted}
    conduct = Conduct.read(said, HERE)
    assert conduct.is_severe("sexual_minors")
    assert conduct.is_case("sexual_minors")
    assert conduct.rule("sexual_minors") == conduct.severe_rule
    assert conduct.cases <= conduct.severe
    assert not conduct.uncounted & conduct.severe


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"ordinary": {"strikes": 0}}, "conduct.ordinary.strikes"),
        ({"ordinary": {"suspended_hours": float("inf")}}, "conduct.ordinary.suspended_hours"),
        ({"severe_rule": {"strike": 1}}, "conduct.severe_rule.strike"),
        ({"severe": ["Not A Name"]}, "conduct.severe.0"),
        ({"lenient": True}, "conduct.lenient"),
    ],
)
def test_a_rule_that_may_not_be_is_refused_by_name(said: dict[str, Any], place: str) -> None:
    with pytest.raises(OperatorError) as error:
        Conduct.read(said, HERE)
    assert error.value.field == place


def test_an_operators_file_changes_a_part_of_them(tmp_path: Path) -> None:
    file = tmp_path / "safety.toml"
    file.write_text('[conduct]\nsevere = ["gore"]\n[conduct.ordinary]\nstrikes = 3\n')
    conduct = SafetySetup.from_file(file).conduct
    assert conduct.ordinary == replace(Conduct.shipped().ordinary, strikes=3)
    assert conduct.severe == {"gore", "known", "sexual_minors"}, "cases are always severe"


# A score between where people look and where it blocks.


def judged(score: float, review: dict[str, float]) -> VerdictKind:
    raws = {"seen": {"pictures": {"violence": 0.6}, "review": review}}
    policy = read(raws, HERE)["seen"]
    check = PictureCheck(setup=SafetySetup(shipped() | {"seen": policy}, checks=(CHECK,)))
    scores = {"finite": 1.0, "looks:blood": score, "looks:normal": 1 - score}
    verdict = check.judge(canary(size=64), Scored(scores, (USE,)), policy)
    assert (verdict.category is None) is (verdict.kind is VerdictKind.ALLOW)
    return verdict.kind


@given(st.floats(0, 1), st.floats(0.01, 0.59))
def test_a_picture_is_allowed_seen_by_people_or_blocked_in_this_order(
    score: float, limit: float
) -> None:
    expected = VerdictKind.ALLOW
    if score >= limit:
        expected = VerdictKind.REVIEW
    if score >= 0.6:
        expected = VerdictKind.BLOCK
    assert judged(score, {"violence": limit}) is expected


def test_nobody_looks_at_anything_where_the_policy_does_not_say_so() -> None:
    assert judged(0.59, {}) is VerdictKind.ALLOW
    assert all(not policy.review for policy in shipped().values())


@pytest.mark.parametrize("review", [{"violence": 0.6}, {"gore": 0.1}, {"sexual_minors": 0.1}])
def test_a_review_that_would_never_come_is_refused(review: dict[str, float]) -> None:
    raws = {"seen": {"pictures": {"violence": 0.6}, "review": review}}
    with pytest.raises(OperatorError, match="seen"):
        read(raws, HERE)


def test_where_people_look_is_a_part_of_the_policys_version() -> None:
    raws: dict[str, Any] = {"seen": {"pictures": {"violence": 0.6}}}
    before = read(raws, HERE)["seen"].version
    raws["seen"]["review"] = {"violence": 0.3}
    assert read(raws, HERE)["seen"].version != before
