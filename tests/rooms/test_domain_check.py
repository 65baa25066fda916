"""The domain check that ships: scenes of the renderer's pass it, plain outsiders don't."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from calotype.core.picture_checks import OUTSIDE
from calotype.engine.checks.base import Picture
from calotype.engine.checks.domain import DomainCheck
from calotype.safety.setup import SafetySetup
from training import outsiders
from training.dataset import scene_at
from training.render import render

pytestmark = pytest.mark.usefixtures("one_thread")
SEED = 4711  # no seed of the trainer's


@pytest.fixture(scope="module")
def check() -> DomainCheck:
    [use] = SafetySetup.from_file(None).uses("vignette-domain")
    return DomainCheck.load(use)


def outside(check: DomainCheck, pictures: list[Picture]) -> int:
    with torch.inference_mode():
        return sum(each[OUTSIDE] >= 0.5 for each in check.scores(pictures))


def test_scenes_of_all_sizes_pass(check: DomainCheck) -> None:
    sizes = (64, 128, 128, 256)
    scenes = [render(scene_at("unseen", SEED + at), sizes[at % 4]) for at in range(24)]
    assert outside(check, scenes) <= 1


@pytest.mark.parametrize("kind", ["white_noise", "dead_leaves", "plasma", "charts", "mosaics"])
def test_plain_outsiders_do_not(check: DomainCheck, kind: str) -> None:
    draw = (outsiders.LEARNT | outsiders.HELD_OUT)[kind]
    rng = np.random.default_rng(SEED)
    assert outside(check, [draw(rng, 128, 128) for _ in range(20)]) >= 17


def test_its_card_tells_what_was_measured() -> None:
    [use] = SafetySetup.from_file(None).uses("vignette-domain")
    figures = json.loads((Path(use.path) / "evaluation.json").read_text())
    card = (Path(use.path) / "README.md").read_text()
    for rows in figures.values():
        for kind, row in rows.items():
            assert f"| {kind.replace('_', ' ')}" in card
            assert f"{row['count']} of {row['of']}" in card
