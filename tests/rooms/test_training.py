"""The model's making: same scene, same pixels; a tenth held out; the judge reads; the folder runs.

Small by intent: the measured figures are ``python -m training.evaluate``'s business.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from training import card, classifier, diffusion, evaluate, export, lessons, shapes
from training.captions import ATTRIBUTES
from training.dataset import scene_at
from training.render import render
from training.scenes import COLOURS, OBJECTS, PLACES, Thing, is_held_out, sample_scene

WEIGHTS_BYTES_MAX = 25 * 1024 * 1024
READ = 32  # unseen renders


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return evaluate.load_pipeline(export.MODEL)


def test_the_same_scene_is_the_same_picture() -> None:
    scene = scene_at("unseen", 3)
    first, second = render(scene), render(scene)
    assert first.shape == (128, 128, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert not np.array_equal(first, render(scene_at("unseen", 4)))


def test_a_tenth_of_all_combinations_is_held_out() -> None:
    rng = random.Random(0)
    share = sum(is_held_out(sample_scene(rng)) for _ in range(4000)) / 4000
    assert 0.085 < share < 0.115


def test_every_noise_level_is_trained_on_and_middling_ones_most() -> None:
    kept = shapes.scheduler().alphas_cumprod
    shares = torch.diff(diffusion.level_shares(kept), prepend=torch.zeros(1, dtype=torch.float64))
    sigmas = ((1 - kept) / kept).sqrt()
    assert float(shares.sum()) == pytest.approx(1)
    assert float(shares.min()) >= diffusion.LEVELS_EVEN / shapes.TRAIN_STEPS
    assert float(shares[(sigmas > 1 / 3) & (sigmas < 3)].sum()) > 0.5


def test_what_is_measured_is_of_combinations_no_trainer_sees_and_is_told_in_full() -> None:
    wanted = evaluate.asks(60)
    assert all(is_held_out(ask.scene) for ask in wanted)
    assert not any(is_held_out(scene_at("classifier", k)) for k in range(60))
    assert len({ask.text for ask in wanted}) == len(wanted)
    dark = [ask for ask in wanted if ask.scene.light != "none"]
    assert all(ask.is_light_told for ask in dark)


def test_targets_of_a_mirror_image_exchange_left_and_right_only() -> None:
    for k in range(40):
        scene = scene_at("classifier", k)
        plain, mirrored = lessons.targets(scene), lessons.targets(scene, is_mirrored=True)
        assert plain[:5] == mirrored[:5]
        for kind, one, other in zip(OBJECTS, plain[5:], mirrored[5:], strict=True):
            thing = next((t for t in scene.things if t.kind == kind), None)
            assert (one[0], other[0]) == (int(thing is not None),) * 2
            if thing is not None:
                assert COLOURS[one[1]] == COLOURS[other[1]] == thing.colour
                assert PLACES[one[2]] == thing.place
                assert one[2] + other[2] == len(PLACES) - 1


def test_a_missing_object_has_neither_its_colour_nor_its_place() -> None:
    scene = next(s for s in (scene_at("unseen", k) for k in range(99)) if len(s.things) == 2)
    setting = {name: getattr(scene, name) for name in ATTRIBUTES}
    first = scene.things[0]
    half = classifier.Reading(setting, {first.kind: first})
    found = classifier.accuracies([half], [scene])
    assert (found["there"], found["colour"], found["place"]) == (0.5, 0.5, 0.5)
    assert (found["colour_of_there"], found["invented"], found["time"]) == (1.0, 0.0, 1.0)
    other = next(kind for kind in OBJECTS if kind not in {t.kind for t in scene.things})
    things = {t.kind: t for t in scene.things} | {other: Thing(other, "red", "left")}
    found = classifier.accuracies([classifier.Reading(setting, things)], [scene], [False])
    assert (found["place"], found["invented"]) == (1.0, 1.0)


def test_the_judge_reads_renders_it_has_not_seen() -> None:
    scenes = [scene_at("unseen", 2000 + k) for k in range(READ)]
    pictures = np.stack([render(scene) for scene in scenes])
    found = classifier.accuracies(classifier.read(classifier.load(), pictures), scenes)
    assert found["time"] >= 0.9
    assert found["terrain"] >= 0.9
    assert found["there"] >= 0.9


def test_the_judge_is_measured_and_small() -> None:
    figures = classifier.header()
    for name in ("time", "terrain", "there", "colour", "place"):
        assert figures[name] >= 0.98, name
    assert classifier.FILE.stat().st_size < 2 * 1024 * 1024


def test_a_saved_judge_reads_as_before(tmp_path: Path) -> None:
    judge = classifier.Judge()
    judge.to(memory_format=torch.channels_last)  # as it is trained
    classifier.save(judge, tmp_path / "judge.safetensors", {"time": 0.25})
    assert classifier.header(tmp_path / "judge.safetensors") == {"time": 0.25}
    again = classifier.load(tmp_path / "judge.safetensors")
    pictures = np.stack([render(scene_at("unseen", k)) for k in range(2)])
    assert classifier.read(again, pictures) == classifier.read(judge, pictures)


def test_rough_pictures_keep_their_size() -> None:
    picture = render(scene_at("classifier", 0))
    for seed in range(20):
        rough = lessons.roughen(picture, random.Random(seed))
        assert rough.shape == (128, 128, 3)
        assert rough.dtype == np.uint8
        assert abs(float(rough.mean()) - float(picture.mean())) < 12


def test_all_weights_together_are_small() -> None:
    assert 0 < export.weights_bytes(export.MODEL.parent) <= WEIGHTS_BYTES_MAX


def test_the_embedded_folder_is_run_by_the_unmodified_pipeline(pipeline: Any) -> None:
    assert type(pipeline).__module__.startswith("diffusers.")
    assert pipeline.unet.dtype == torch.float32
    texts = ["a red tent on the left at night", "a blue castle, snowy mountains"]
    pictures = evaluate.draw(pipeline, texts, steps=4)
    assert pictures.shape == (2, 128, 128, 3)
    assert pictures.dtype == np.uint8
    assert pictures[0].std() > 5, "a picture, not one colour"


def test_figures_of_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    report = {"model_sha256": "of another model"}
    (tmp_path / "evaluation.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match="other weights"):
        card.measured(tmp_path)
    report["model_sha256"] = evaluate.weights_digest(tmp_path)
    (tmp_path / "evaluation.json").write_text(json.dumps(report))
    assert card.measured(tmp_path) == report


def test_the_card_of_the_shipped_model_is_of_the_shipped_weights() -> None:
    report = card.measured(export.MODEL)
    assert report["pictures"] == evaluate.COUNT
    assert len(report["rows"]) == len(evaluate.SETTINGS)
    words = (export.MODEL / "README.md").read_text()
    assert f"{100 * report['rows'][0]['colour']:.1f}" in words
    with Image.open(export.MODEL / "samples.webp") as sheet:
        assert sheet.width > 2 * 8 * 128
