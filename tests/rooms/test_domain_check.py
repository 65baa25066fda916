"""The domain check that ships: scenes of the renderer's pass it, plain outsiders don't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calotype.core.picture_checks import OUTSIDE
from calotype.engine.checks.base import Picture
from calotype.engine.checks.domain import DomainCheck, DomainNet
from calotype.safety.setup import SafetySetup
from training import domain, domain_pictures, loop, outsiders
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


# Training.


def small_sets() -> tuple[domain_pictures.Set, domain_pictures.Set]:
    rng = np.random.default_rng(1)
    bright, dark = (rng.integers(low, low + 128, (32, 128, 128, 3), np.uint8) for low in (128, 0))
    return {"ours": bright}, {"others": dark}


def test_training_that_was_cut_off_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain, "EPOCHS", 3)
    save, found = loop.save, []

    def cut_off(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        if state["epochs"] == 1:
            raise KeyboardInterrupt

    for place, is_cut in (("whole", False), ("cut", True)):
        monkeypatch.setattr(domain, "CHECKPOINT", tmp_path / place / "net.pt")
        torch.manual_seed(1)
        net = DomainNet()
        if is_cut:
            monkeypatch.setattr(loop, "save", cut_off)
            with pytest.raises(KeyboardInterrupt):
                domain.trained(*small_sets(), net)
            net = DomainNet()
        found.append(domain.trained(*small_sets(), net).state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_check_is_kept_only_if_it_is_better_and_refuses_no_more_of_ours() -> None:
    def rows(**counts: int) -> dict[str, Any]:
        return {kind: {"count": count, "of": 10} for kind, count in counts.items()}

    def is_better(ours: int, noise: int, photographs: int) -> bool:
        new = {"inside refused": rows(own=ours)} | {
            "outside refused": rows(noise=noise, photographs=photographs)
        }
        return domain.is_better(new, rows(own=1, noise=8, photographs=2))

    assert is_better(1, 7, 4)
    assert is_better(0, 8, 3)
    assert not is_better(2, 9, 9)
    assert not is_better(1, 8, 2)
