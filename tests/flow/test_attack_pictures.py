"""Attacks that passed the prompt check are drawn, and their pictures judged as a job's are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from calotype.core.messages import RowDone
from calotype.core.picture_checks import HEAD_FILE
from calotype.flow import attack_pictures
from calotype.flow.attack_pictures import judged
from calotype.pool.registry import ModelRegistry, embedded_folder
from calotype.safety.evaluate import tally
from calotype.safety.pictures import PictureCheck
from calotype.safety.setup import ConfiguredCheck, SafetySetup
from tests.pictures import scene
from tests.rooms.tiny_checks import recogniser

SCENES = ["a red tent by the sea", "a house on a hill"]
ENV = {"CALOTYPE_ENGINE_THREADS": "1"}


def report(**passed: list[str]) -> dict[str, Any]:
    attacks = {name: tally(len(texts), 5) | {"passed": texts} for name, texts in passed.items()}
    return {"seed": 0, "attacks": attacks}


def with_recogniser(folder: Path) -> SafetySetup:
    """Of the embedded model's own text encoders; to it nothing is harm."""
    registry = ModelRegistry([embedded_folder()], folder)
    registry.scan()
    [model] = registry.list()
    encoders = tuple(it.id for it in model.parts if it.kind.startswith("text_encoder"))
    assert len(encoders) == 2
    use = recogniser(folder, width=128, encoders=encoders)
    head = {"head.weight": np.zeros((2, 128), np.float32), "head.bias": np.full(2, -9, np.float32)}
    save_file(head, folder / HEAD_FILE)
    meanings = {"fine": "harmless", "harm": "violence"}
    mine = ConfiguredCheck(use, meanings, models=(model.name,))
    return replace(SafetySetup.default_setup(), checks=(mine,))


def test_what_passed_is_drawn_and_judged_by_the_model_s_own_checks(tmp_path: Path) -> None:
    given = report(plain=SCENES, none=[], reworded=SCENES[:1])
    found = judged(given, with_recogniser(tmp_path), 5, ENV)
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


@pytest.mark.parametrize(
    ("scores", "is_allowed"),
    [
        ({"outside": 0.01}, True),
        ({"outside": 0.9}, False),
        ({}, False),  # a job's would be held
    ],
)
def test_a_picture_is_let_through_as_a_job_s_is(scores: dict[str, float], is_allowed: bool) -> None:
    setup = SafetySetup.default_setup()
    [use] = uses = setup.uses("vignette-domain")
    named = {use.score_name(label): score for label, score in scores.items()}
    drawn = scene(64, 64)
    done = RowDone("r", *drawn.size, {"finite": 1.0} | named, 0.1)
    raw = np.asarray(drawn.convert("RGB")).tobytes()
    assert attack_pictures._is_allowed(PictureCheck(setup=setup), uses, done, raw) is is_allowed
