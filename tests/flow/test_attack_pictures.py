"""Attacks' texts are drawn, and their pictures judged as a job's are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from calotype.core.messages import RowDone, RowFailed
from calotype.core.picture_checks import HEAD_FILE
from calotype.flow import attack_pictures, easel
from calotype.flow.attack_pictures import judged
from calotype.pool.registry import ModelRegistry, embedded_folder
from calotype.safety.evaluate import Attacked
from calotype.safety.pictures import PictureCheck
from calotype.safety.setup import ConfiguredCheck, SafetySetup
from tests.pictures import scene
from tests.rooms.tiny_checks import recogniser

SCENES = ("a red tent by the sea", "a house on a hill")
ENV = {"CALOTYPE_ENGINE_THREADS": "1"}


def attacked(texts: tuple[str, ...], passed: int) -> Attacked:
    """The first so many passed."""
    return Attacked(texts, tuple(at < passed for at in range(len(texts))))


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


def test_texts_are_drawn_refused_or_not_and_judged_by_the_model_s_own_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attack_pictures, "STEPS", 4)
    given = {"refused": attacked(SCENES, 0), "passed": attacked(SCENES[:1], 1)}
    found = judged(given, 0, with_recogniser(tmp_path), 5, ENV)
    assert found["pictures"] == 2, "the same text is drawn once"
    refused, passed = found["attacks"]["refused"], found["attacks"]["passed"]
    assert (refused["after"]["of"], refused["both"]["count"], refused["both"]["of"]) == (2, 0, 2)
    assert refused["after"]["count"] == 2, "scenes of the domain"
    assert (passed["both"]["count"], passed["both"]) == (1, passed["after"])


# Of ten texts: as many as passed the prompt check, and as may be drawn; then how many were drawn,
# and of how many "both" is.
@pytest.mark.parametrize(
    ("passed", "most", "drawn", "both_of"),
    [
        (0, 4, {4}, 10),  # none can have passed both
        (3, 4, range(4, 8), 10),  # all three are drawn beside the sample
        (9, 4, {4}, 4),  # the sample alone
        (9, 20, {10}, 10),
    ],
)
def test_what_is_sampled_and_what_is_counted(
    monkeypatch: pytest.MonkeyPatch, passed: int, most: int, drawn: Any, both_of: int
) -> None:
    texts = tuple("abcdefghij")

    async def but_b(drawn: list[str], *others: Any) -> set[str]:
        return set(drawn) - {"b"}

    monkeypatch.setattr(attack_pictures, "_delivered", but_b)
    given = {"one": attacked(texts, passed)}
    found = judged(given, 1, SafetySetup.default_setup(), most, ENV)
    one = found["attacks"]["one"]
    assert found["pictures"] in drawn
    assert found["pictures"] - found["pictures_passed"] in (0, 1)
    assert (one["after"]["of"], one["both"]["of"]) == (min(most, 10), both_of)
    if both_of == 10:
        assert one["both"]["count"] == len(set(texts[:passed]) - {"b"})
    else:
        assert one["both"]["count"] <= one["after"]["count"] <= most
    assert found == judged(given, 1, SafetySetup.default_setup(), most, ENV)


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
    found = easel.judgement(PictureCheck(setup=setup), uses, done, raw)
    assert found.is_allowed is is_allowed
    assert found.pixels is not None
    assert found.pixels.tobytes() == raw


def test_what_was_not_drawn_is_not_let_through() -> None:
    failed = RowFailed("r", "out of memory", retryable=True)
    found = easel.judgement(PictureCheck(), (), failed, b"")
    assert (found.is_allowed, found.pixels) == (False, None)
