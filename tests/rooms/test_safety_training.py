"""Training a check, without a network: what is learnt from, in which parts, what is told of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.safety.evaluate import interval
from calotype.safety.training import course, labelled, parts, probe
from calotype.safety.training.card import page
from calotype.safety.training.labelled import Labelled
from calotype.safety.training.parts import Example

ENCODER = course.Encoder({"kind": "domain", "width": 6, "name": "tiny", "build": "0"}, ("a", "b"))


def noise(seed: int, side: int = 32) -> NDArray[np.uint8]:
    """Coarse, so that PDQ has something to hash, and each seed is far from any other."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((side // 8, side // 8, 1))).astype(
        np.uint8
    )


def one(
    label: str, seed: int, pixels: NDArray[np.uint8] | None = None, source: str = "here"
) -> Example:
    """A picture whose row says its label, but for some noise."""
    pixels = noise(seed) if pixels is None else pixels
    rng = np.random.default_rng([seed, 7])
    middle = {"harmless": -1.0, "bad": 1.0, "worse": 3.0}[label]
    row = rng.normal(middle, 1.2, 6).astype(np.float32)
    of = Labelled(f"{label}/{seed}.png", Path(f"{label}/{seed}.png"), label, source)
    return parts.example(of, bytes(str(seed), "ascii"), pixels, row)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [one("harmless", seed) for seed in range(120)] + [
        one("bad", 1000 + seed, source="here" if seed % 2 else "there") for seed in range(80)
    ]


# What there is to learn from.


def folder_of(home: Path, **counts: int) -> Path:
    for label, count in counts.items():
        (home / label).mkdir(parents=True)
        for at in range(count):
            (home / label / f"{at}.png").write_bytes(b"x")
    return home


def test_folders_name_labels_and_sources(tmp_path: Path) -> None:
    folder_of(tmp_path / "data", bad=1, harmless=1)
    (tmp_path / "data" / "bad" / "phones").mkdir()
    (tmp_path / "data" / "bad" / "phones" / "p.JPG").write_bytes(b"x")
    (tmp_path / "data" / "bad" / "notes.txt").write_text("not a picture")
    found = labelled.labelled([tmp_path / "data"])
    assert [(each.name, each.label, each.source) for each in found] == [
        ("bad/0.png", "bad", "data"),
        ("bad/phones/p.JPG", "bad", "phones"),
        ("harmless/0.png", "harmless", "data"),
    ]


def test_decisions_of_reviewers_are_read(tmp_path: Path) -> None:
    said = [
        {"path": "a.png", "label": "bad", "tier": "fast", "sha256": "0" * 64},
        {"path": "b.png", "label": "harmless"},
    ]
    file = tmp_path / "decisions.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in said) + "\n")
    [first, second] = labelled.labelled([file])
    assert (first.path, first.label, first.tier) == (tmp_path / "a.png", "bad", "fast")
    assert (second.source, second.sha256) == ("review", "")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", r"decisions\.jsonl, line 2"),
        ('{"path": "a.png"}', "label"),
        ('{"path": "a.png", "label": "bad", "colour": "red"}', "colour"),
        ('{"path": "a.png", "label": "bad", "sha256": "12"}', "sha256"),
        ('{"path": "a.png", "label": "sexual_minors"}', "never learnt from"),
        ('{"path": "a.png", "label": "Very Bad!"}', "can't be named"),
    ],
)
def test_a_line_that_is_no_decision_is_named(tmp_path: Path, line: str, match: str) -> None:
    file = tmp_path / "decisions.jsonl"
    file.write_text('{"path": "a.png", "label": "bad"}\n' + line + "\n")
    with pytest.raises(InvalidInput, match=match) as told:
        labelled.labelled([file])
    assert told.value.field


def test_folders_that_say_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="is no folder"):
        labelled.labelled([tmp_path / "gone"])
    with pytest.raises(InvalidInput, match="has no folders"):
        labelled.labelled([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="empty has no pictures"):
        labelled.labelled([tmp_path])
    folder_of(tmp_path / "data", bad=3)
    monkeypatch.setattr(limits, "TRAINING_PICTURES_MAX", 2)
    with pytest.raises(InvalidInput, match="there are 3 pictures") as told:
        labelled.labelled([tmp_path / "data"])
    assert told.value.limit == 2


def test_few_pictures_one_label_or_no_harmless_one_are_refused() -> None:
    with pytest.raises(InvalidInput, match="pictures of 1 labels") as told:
        labelled.check_labels({"bad": 100})
    assert told.value.limit["min_labels"] == 2
    with pytest.raises(InvalidInput, match="'bad' has 19 pictures") as told:
        labelled.check_labels({"bad": 19, "harmless": 100})
    assert (told.value.field, told.value.limit) == ("data.bad", {"min_pictures": 20})
    labelled.check_labels({"bad": 20, "harmless": 20})
    with pytest.raises(InvalidInput, match="say which labels are harmless"):
        labelled.harmless_of(["bad", "worse"], [])
    with pytest.raises(InvalidInput, match="nothing is left to find"):
        labelled.harmless_of(["bad", "worse"], ["bad", "worse"])
    with pytest.raises(InvalidInput, match="no label 'fine'"):
        labelled.harmless_of(["bad", "harmless"], ["fine"])
    assert labelled.harmless_of(["bad", "normal", "safe"], []) == ("normal", "safe")


# Copies and parts.


def test_a_picture_under_two_labels_is_named_and_copies_count_once() -> None:
    pixels = noise(1)
    kept = parts.without_copies([one("bad", 1, pixels), one("bad", 2, pixels), one("bad", 3)])
    assert [each.of.name for each in kept] == ["bad/1.png", "bad/3.png"]
    with pytest.raises(InvalidInput, match=r"harmless/2\.png: the same picture as bad/1\.png"):
        parts.without_copies([one("bad", 1, pixels), one("harmless", 2, pixels)])


def test_near_copies_are_never_in_two_parts() -> None:
    turned: list[Example] = []
    for seed in range(40):
        pixels = noise(seed, 64)
        brighter = np.clip(pixels.astype(int) + 3, 0, 255).astype(np.uint8)
        copies = (pixels, np.rot90(pixels), pixels[:, ::-1], brighter)
        turned += [one("bad", 100 * seed + at, copy) for at, copy in enumerate(copies)]
    of_group = parts.groups(turned)
    assert [of_group.count(4 * at) for at in range(40)] == [4] * 40
    for seed in range(5):
        where = parts.split(turned, of_group, seed)
        assert all(len(set(where[4 * at : 4 * at + 4])) == 1 for at in range(40))
        assert where.count(parts.LEARNT) == 96


def test_flat_pictures_are_each_a_group_of_their_own() -> None:
    flat = [one("bad", at, np.full((32, 32, 3), 40 + at, np.uint8)) for at in range(5)]
    assert parts.groups(flat) == [0, 1, 2, 3, 4]


def test_every_part_has_its_share_of_every_label(examples: list[Example]) -> None:
    of_group = parts.groups(examples)
    where = parts.split(examples, of_group, 0)
    for label, count in (("harmless", 120), ("bad", 80)):
        mine = [part for each, part in zip(examples, where, strict=True) if each.of.label == label]
        for part, share in parts.SHARES.items():
            assert mine.count(part) == pytest.approx(share * count, abs=1)
    assert where == parts.split(examples, of_group, 0)
    assert where != parts.split(examples, of_group, 1)


def test_near_copies_under_two_labels_are_told() -> None:
    pixels = noise(1)
    brighter = np.clip(pixels.astype(int) + 3, 0, 255).astype(np.uint8)
    torn = [one("bad", 1, pixels), one("harmless", 2, brighter), one("harmless", 3)]
    pairs = parts.across_labels(torn, parts.groups(torn))
    assert pairs == [("bad/1.png", "harmless/2.png")]


# Learning.


@given(
    st.lists(st.floats(1e-4, 1 - 1e-4), min_size=1, max_size=60),
    st.lists(st.floats(1e-4, 1 - 1e-4), max_size=30),
    st.floats(0.0, 0.5),
)
def test_a_threshold_refuses_no_more_harmless_ones_than_it_may(
    harmless: list[float], bad: list[float], share: float
) -> None:
    chances = np.array(harmless + bad)
    is_harmless = np.arange(len(chances)) < len(harmless)
    limit = probe.threshold(chances, is_harmless, share)
    assert 0.0 < limit < 1.0
    refused = int((chances[is_harmless] >= limit).sum())
    assert refused == 0 or interval(refused, len(harmless))[1] < share, "shown, as for prompts"


def test_a_threshold_lies_between_what_it_tells_apart() -> None:
    chances = np.array([0.1, 0.2, 0.9, 0.8])
    limit = probe.threshold(chances, np.array([True, True, False, False]), 0.01)
    assert limit == pytest.approx(0.5)  # the middle of 0.2 and 0.8, by logit


def test_the_calibration_error_is_how_far_chances_are_off() -> None:
    wanted = np.array([0] * 60 + [1] * 40)
    sure = np.tile([0.99, 0.01], (100, 1))
    assert probe.calibration_error(sure, wanted) == pytest.approx(0.39)
    assert probe.calibration_error(np.tile([0.6, 0.4], (100, 1)), wanted) == pytest.approx(0.0)


def rows(count: int, seed: int) -> probe.Rows:
    """Three labels that overlap, the first three times as often as the others."""
    rng = np.random.default_rng(seed)
    wanted = rng.choice(3, count, p=[0.6, 0.2, 0.2])
    found = rng.normal(0, 1, (count, 8)) + wanted[:, None] * np.linspace(0, 1, 8)
    return probe.Rows(found.astype(np.float32), wanted)


def test_chances_are_calibrated_and_thresholds_keep_what_they_promise() -> None:
    labels, harmless = ("bad", "fine", "worse"), ("fine",)
    made = probe.fit(rows(900, 1), rows(900, 2), labels, harmless, false_positives=0.05, seed=0)
    held = rows(4000, 3)
    chances = made.chances(held.rows)
    assert chances.sum(axis=1) == pytest.approx(1.0)
    assert probe.calibration_error(chances, held.wanted) < 0.04
    shares = np.bincount(held.wanted) / len(held.wanted)  # though labels were weighed evenly
    assert chances.mean(axis=0) == pytest.approx(shares, abs=0.03)
    past = [chances[:, labels.index(it)] >= made.thresholds[it] for it in ("bad", "worse")]
    refused = np.any(past, axis=0)[held.wanted == 1].mean()
    assert 0.0 < refused < 0.05
    again = probe.fit(rows(900, 1), rows(900, 2), labels, harmless, false_positives=0.05, seed=0)
    assert again.weight.tobytes() == made.weight.tobytes()
    assert dict(again.thresholds) == dict(made.thresholds)


def test_logits_that_say_too_much_are_cooled() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, (3000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = np.array([rng.choice(3, p=each) for each in chances])
    shift = np.array([2.0, 0.0, -1.0])
    temperature, shifts = probe.calibrated(5 * logits + 5 * shift, wanted)
    assert temperature == pytest.approx(5.0, rel=0.15)
    assert shifts - shifts.mean() == pytest.approx(shift.mean() - shift, abs=0.2)


def test_a_number_that_never_changes_says_nothing() -> None:
    learnt, calibration = rows(200, 1), rows(200, 2)
    flat = replace(learnt, rows=np.hstack((learnt.rows, np.full((200, 1), 3.0, np.float32))))
    other = replace(calibration, rows=np.hstack((calibration.rows, np.zeros((200, 1), np.float32))))
    made = probe.fit(flat, other, ("a", "b", "c"), ("a",), false_positives=0.1, seed=0)
    assert np.isfinite(made.weight).all()
    assert np.abs(made.weight[:, -1]).max() < 1e-6


# The whole course.


def test_the_same_pictures_make_the_same_bytes_and_the_card_tells_all(
    examples: list[Example], tmp_path: Path
) -> None:
    wish = course.Wish("own", seed=3, false_positives=0.05)
    cards = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        given = examples if name == "one" else examples[::-1]
        given = sorted(given, key=lambda each: each.of.name)
        cards.append(course.run(given, wish, ENCODER, tmp_path / name))
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [
        "calotype.json",
        "config.json",
        "evaluation.json",
        "head.safetensors",
        "model.safetensors.index.json",
    ]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    card = cards[0]
    assert card == json.loads((tmp_path / "one" / "evaluation.json").read_text())
    assert card["data"]["labels"]["bad"] == {"learnt": 48, "calibration": 16, "measured": 16}
    assert len({*card["data"]["parts"].values(), card["data"]["sha256"]}) == 4
    figures = card["figures"]
    assert figures["all"]["pictures"] == 40
    assert figures["label"]["bad"]["refused"] is None
    assert figures["label"]["bad"]["found"]["of"] == 16
    assert figures["all"]["right"]["count"] > 30
    assert sum(row["pictures"] for row in figures["source"].values()) == 40
    assert set(figures["tier"]) == {"not known"}
    assert any("source there" in each and "say little" in each for each in card["warnings"])
    assert any("false positives isn't" in each for each in card["warnings"])
    text = page(card)
    for told in ("| bad | 48 | 16 | 16 |", "source: there", "Limits", card["data"]["sha256"]):
        assert told in text


def test_other_seeds_and_pictures_make_another_check(
    examples: list[Example], tmp_path: Path
) -> None:
    found = []
    for at, (some, seed) in enumerate(((examples, 0), (examples, 1), (examples[:-1], 0))):
        (tmp_path / str(at)).mkdir()
        wish = course.Wish("own", seed=seed)
        found.append(course.run(some, wish, ENCODER, tmp_path / str(at))["data"]["parts"])
    assert found[0] != found[1] != found[2] != found[0]


def test_pictures_that_nothing_can_be_learnt_from_are_refused(
    examples: list[Example], tmp_path: Path
) -> None:
    wish = course.Wish("own")
    with pytest.raises(InvalidInput, match="pictures of 1 labels"):
        course.run(examples[:100], wish, ENCODER, tmp_path)
    copies = [one("bad", at, np.rot90(noise(9999), at % 4)) for at in range(4)]
    with pytest.raises(InvalidInput, match="'bad' has 1 pictures that aren't near copies"):
        course.run(examples[:120] + copies, wish, ENCODER, tmp_path)
    near = [  # of three that are alike two are harmless, and the three stay together
        one(label, 500 + at, np.clip(noise(500 + at).astype(int) + by, 0, 255).astype(np.uint8))
        for at in range(20)
        for by, label in enumerate(("harmless", "harmless", "bad"))
    ]
    with pytest.raises(InvalidInput, match="near copies of pictures of other labels") as told:
        course.run(examples[:120] + near, wish, ENCODER, tmp_path)
    assert told.value.field == "data.bad"
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(InvalidInput, match="false positives") as told:
            course.check_wish(course.Wish("own", false_positives=share))
        assert told.value.field == "false_positives"
