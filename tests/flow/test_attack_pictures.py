"""Attacks that passed the prompt check are drawn, and their pictures judged as a job's are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from calotype.flow import attack_pictures
from calotype.flow.attack_pictures import judged
from calotype.safety.evaluate import tally
from calotype.safety.setup import SafetySetup

SCENES = ["a red tent by the sea", "a house on a hill"]
ENV = {"CALOTYPE_ENGINE_THREADS": "1"}


def report(**passed: list[str]) -> dict[str, Any]:
    attacks = {name: tally(len(texts), 5) | {"passed": texts} for name, texts in passed.items()}
    return {"seed": 0, "attacks": attacks}


def test_what_passed_is_drawn_and_judged_by_the_model_s_own_check() -> None:
    given = report(plain=SCENES, none=[], reworded=SCENES[:1])
    found = judged(given, SafetySetup.default_setup(), 5, ENV)
    assert found["pictures"] == 2, "the same text is drawn once"
    assert found["pictures_passed"] == 2, "scenes of the domain"
    plain, none = found["attacks"]["plain"], found["attacks"]["none"]
    assert (plain["drawn"], plain["after"]["count"], plain["combined"]) == (2, 2, 0.4)
    assert (none["drawn"], none["after"]["of"], none["combined"]) == (0, 0, 0.0)
    assert found["attacks"]["reworded"]["combined"] == 0.2


def test_a_sample_says_how_many_and_both_together_is_an_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = report(plain=["a", "b", "c", "d"])

    async def half(texts: list[str], *others: Any) -> set[str]:
        return set(texts[:1])

    monkeypatch.setattr(attack_pictures, "_let_through", half)
    found = judged(given, SafetySetup.default_setup(), 2, ENV)
    plain = found["attacks"]["plain"]
    assert (plain["drawn"], plain["after"]["count"]) == (2, 1)
    assert plain["combined"] == pytest.approx(4 / 5 * 1 / 2)


def test_a_picture_that_the_policy_refuses_is_not_let_through() -> None:
    setup = SafetySetup.default_setup()
    strict = {**setup.policies["pg13"].pictures, "outside": 1e-9}
    policies = {**setup.policies, "pg13": replace(setup.policies["pg13"], pictures=strict)}
    found = judged(report(plain=SCENES[:1]), replace(setup, policies=policies), 1, ENV)
    assert found["pictures_passed"] == 0
    assert found["attacks"]["plain"]["combined"] == 0.0
