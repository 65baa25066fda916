"""In part down is stricter, never laxer; what reads prompts is judged by a policy too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.core.errors import OperatorError
from calotype.core.nouns import Verdict, VerdictKind
from calotype.core.picture_checks import CheckKind, CheckUse
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.pictures import ALWAYS_FROM, STRICT, STRICT_SHARE, PictureCheck, Scored
from calotype.safety.policies import shipped
from calotype.safety.setup import ConfiguredCheck, SafetySetup
from tests.rooms.test_safety_pictures import LABELS, USE, canary
from tests.rooms.test_safety_policies import CHECK, setup

READS = CheckUse("reads", CheckKind.TEXT.value, "/nowhere", "0", ("harm", "young", "ok"))
MEANINGS = {"harm": "sexual", "young": "minor", "ok": "harmless"}
SETUP = SafetySetup(
    shipped(), checks=(ConfiguredCheck(USE, LABELS), ConfiguredCheck(READS, MEANINGS))
)
JUDGE = PictureCheck(setup=SETUP)
PIXELS = canary(size=64)
NAMES = [use.score_name(label) for use in (USE, READS) for label in use.labels]
SCORES = st.fixed_dictionaries({name: st.floats(0.0, 1.0) for name in NAMES})


def judged(
    scores: Mapping[str, float], policy: str = "pg13", *, is_degraded: bool = False
) -> Verdict:
    every = {"finite": 1.0} | dict(scores)
    scored = Scored(every, (USE, READS), {}, is_degraded=is_degraded)
    return JUDGE.judge(PIXELS, scored, SETUP.policies[policy])


def is_allowed(scores: Mapping[str, float], policy: str, *, is_degraded: bool) -> bool:
    try:
        return judged(scores, policy, is_degraded=is_degraded).kind is VerdictKind.ALLOW
    except SafetyUnavailable:
        return False


@given(
    scores=SCORES,
    policy=st.sampled_from(sorted(SETUP.policies)),
    silent=st.sets(st.sampled_from(NAMES)),
    is_degraded=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_what_passes_in_any_state_of_the_checks_passes_when_all_is_well(
    scores: dict[str, float], policy: str, silent: set[str], *, is_degraded: bool
) -> None:
    """A state: which scores are missing, and whether a place or a breaker isn't as it should be."""
    left = {name: score for name, score in scores.items() if name not in silent}
    if is_allowed(left, policy, is_degraded=is_degraded):
        assert not silent
        assert is_allowed(scores, policy, is_degraded=False)


def fine(**scores: float) -> dict[str, float]:
    return dict.fromkeys(NAMES, 0.0) | {f"looks:{name}": score for name, score in scores.items()}


def test_in_part_down_a_threshold_is_half_of_itself_and_the_verdict_says_so() -> None:
    limit = shipped()["pg13"].pictures["sexual"]
    scores = fine(nsfw=limit * STRICT_SHARE)
    assert judged(scores).kind is VerdictKind.ALLOW
    strict = judged(scores, is_degraded=True)
    assert (strict.kind, strict.category) == (VerdictKind.BLOCK, "sexual")
    assert strict.version == f"{JUDGE.version}-{USE.build}{STRICT}", "and the check's own"
    assert judged(scores).version == f"{JUDGE.version}-{USE.build}"
    assert judged(fine(), is_degraded=True).kind is VerdictKind.ALLOW


def test_the_rule_that_no_policy_reaches_is_stricter_too() -> None:
    both = fine(nsfw=ALWAYS_FROM * STRICT_SHARE, child=ALWAYS_FROM * STRICT_SHARE)
    assert judged(both, "mature").kind is VerdictKind.ALLOW
    assert judged(both, "mature", is_degraded=True).category == "sexual_minors"


# Checks that read.


def test_what_is_read_is_judged_and_a_policy_may_have_thresholds_of_its_own_for_it() -> None:
    scores = dict.fromkeys(NAMES, 0.0) | {"reads:harm": 0.4}
    verdict = judged(scores)
    assert (verdict.category, verdict.check) == ("sexual", "reads")
    assert "asked for" in verdict.detail
    laxer = replace(SETUP.policies["pg13"], texts={"sexual": 0.9})
    assert laxer.version != SETUP.policies["pg13"].version
    scored = Scored({"finite": 1.0} | scores, (USE, READS))
    assert JUDGE.judge(PIXELS, scored, laxer).kind is VerdictKind.ALLOW
    looked = Scored({"finite": 1.0} | scores | {"looks:nsfw": 0.4}, (USE, READS))
    assert JUDGE.judge(PIXELS, looked, laxer).check == "looks", "pictures keep theirs"


def test_a_minor_that_is_read_and_what_is_seen_belong_together() -> None:
    both = fine(nsfw=ALWAYS_FROM) | {"reads:young": ALWAYS_FROM}
    assert judged(both, "mature").category == "sexual_minors"


def test_to_read_alone_is_not_to_look() -> None:
    scored = Scored({"finite": 1.0} | fine(), (READS,))
    with pytest.raises(SafetyUnavailable, match="no check looks"):
        JUDGE.judge(PIXELS, scored)


TEXTS = CHECK.replace("looks", "words").replace('"classifier"', '"text"')


def with_words(folder: Path, text: str) -> SafetySetup:
    for name in ("words", "words-2"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text("{}")
    return setup(folder, text)


def test_a_model_that_draws_anything_is_not_served_for_a_check_that_reads(tmp_path: Path) -> None:
    found = with_words(tmp_path, TEXTS.replace('path = "looks"', 'path = "words"'))
    assert [use.reads for use in found.uses("")] == [True]
    assert len(found.missing("")) == 2


def test_a_check_has_a_second_place_where_the_file_says_so(tmp_path: Path) -> None:
    text = TEXTS.replace('path = "words"', 'path = "words"\nstandby = "words-2"')
    [use] = with_words(tmp_path, text).uses("")
    assert [place.path for place in use.places] == [
        str(tmp_path / name) for name in ("words", "words-2")
    ]
    before = with_words(tmp_path, text).version
    (tmp_path / "words-2" / "model.safetensors").write_bytes(b"other weights")
    assert with_words(tmp_path, text).version != before
    for wrong, says in (("words", "no second"), ("nothing", r"standby.*no config\.json")):
        with pytest.raises(OperatorError, match=says):
            with_words(tmp_path, text.replace("words-2", wrong))


def test_a_policys_thresholds_of_what_is_read_cannot_reach_the_rule(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="always blocked"):
        with_words(tmp_path, "[policies.a.texts]\nsexual_minors = 0.9")
