"""Known pictures are blocked however they come, scores are judged by policies, and what can't be
judged isn't let through.

No picture here is of anything but noise and gradients: the lists' tests use benign canaries.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calotype.core.errors import OperatorError
from calotype.core.nouns import VerdictKind
from calotype.core.picture_checks import CheckKind, CheckUse
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.hash_lists import HashList, KnownPictures
from calotype.safety.pdq import from_hex, pdq, to_hex
from calotype.safety.pictures import ALWAYS_FROM, PictureCheck, Scored
from calotype.safety.policies import shipped
from calotype.safety.setup import ConfiguredCheck, SafetySetup
from tests.rooms.test_safety_pdq import scene

Picture = NDArray[np.uint8]

LABELS = {"nsfw": "sexual", "blood": "violence", "child": "minor", "fine": "harmless"}
USE = CheckUse("looks", CheckKind.CLASSIFIER.value, "/nowhere", "0", tuple(LABELS))
SETUP = SafetySetup(shipped(), checks=(ConfiguredCheck(USE, LABELS),))


def scored(unchecked: str = "", uses: tuple[CheckUse, ...] = (USE,), **scores: float) -> Scored:
    """Scores of a whole picture, all of them 0 but these."""
    said = dict.fromkeys(LABELS, 0.0) | scores
    named = {USE.score_name(label): score for label, score in said.items()}
    return Scored({"finite": 1.0} | named, uses, {USE.name: unchecked} if unchecked else {})


FINE = scored()


def canary(seed: int = 1, size: int = 256) -> Picture:
    """A benign picture: coloured noise, coarse and fine."""
    return scene(seed, size, size)


def through(pixels: Picture, form: str, **options: int) -> Picture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return np.array(Image.open(file).convert("RGB"))


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> PictureCheck:
    file = tmp_path_factory.mktemp("lists") / "known.pdq"
    file.write_text(f"# a comment\n\n{to_hex(pdq(canary()).positions[0])}, canary, benign\n")
    return PictureCheck.from_files([file], SETUP)


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "as it is": lambda pixels: pixels,
    "jpeg 20": lambda pixels: through(pixels, "jpeg", quality=20),
    "webp 50": lambda pixels: through(pixels, "webp", quality=50),
    "a quarter of the size": lambda pixels: np.array(Image.fromarray(pixels).resize((64, 64))),
    "three times the size": lambda pixels: np.array(Image.fromarray(pixels).resize((768, 768))),
    "stretched": lambda pixels: np.array(Image.fromarray(pixels).resize((300, 200))),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside down": lambda pixels: pixels[::-1],
    "turned 90": np.rot90,
    "turned 180": lambda pixels: np.rot90(pixels, 2),
    "turned 270, mirrored": lambda pixels: np.rot90(pixels, 3)[:, ::-1],
    "darker": lambda pixels: (pixels * 0.7).astype(np.uint8),
    "noisy": lambda pixels: np.clip(
        pixels + np.random.default_rng(9).normal(0, 12, pixels.shape), 0, 255
    ).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_known_picture_is_blocked_however_it_comes(check: PictureCheck, change: str) -> None:
    verdict = check.judge(np.ascontiguousarray(CHANGES[change](canary())), FINE)
    assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "known")
    assert verdict.version == check.version


def test_other_pictures_pass(check: PictureCheck) -> None:
    for seed in range(2, 302):
        verdict = check.judge(canary(seed, 64), FINE)
        assert verdict.kind is VerdictKind.ALLOW, seed


def test_a_crop_is_not_found(check: PictureCheck) -> None:
    """The limit that docs/safety.md tells: a twentieth cut away is another picture."""
    cropped = canary()[6:-7, 6:-7]
    assert check.judge(np.ascontiguousarray(cropped), FINE).kind is VerdictKind.ALLOW


def test_without_lists_pictures_pass() -> None:
    assert PictureCheck(setup=SETUP).judge(canary(), FINE).kind is VerdictKind.ALLOW


def test_without_the_score_nothing_is_judged(check: PictureCheck) -> None:
    for scores in ({}, {"other": 1.0}):
        with pytest.raises(SafetyUnavailable, match="finite"):
            check.judge(canary(), Scored(scores, (USE,)))


@pytest.mark.parametrize("score", [0.0, 0.999, float("nan"), float("inf"), -1.0])
def test_a_damaged_picture_is_blocked(check: PictureCheck, score: float) -> None:
    verdict = check.judge(canary(), Scored({**FINE.scores, "finite": score}, (USE,)))
    assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "damaged")


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_picture_cannot_be_compared_and_is_blocked(check: PictureCheck, level: int) -> None:
    flat = np.full((96, 64, 3), level, np.uint8)
    grain = np.random.default_rng(4).integers(0, 3, flat.shape, dtype=np.uint8)
    for pixels in (flat, np.minimum(flat, 252) + grain):
        verdict = check.judge(pixels, FINE)
        assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "unjudgeable")


def test_of_no_quality_it_is_unhashable_not_unmatched(check: PictureCheck) -> None:
    faint = np.tile(np.linspace(100, 140, 128).astype(np.uint8)[:, None, None], (1, 128, 3))
    assert pdq(faint).quality == 0
    verdict = check.judge(faint, FINE)
    assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "unjudgeable")
    assert check.judge_input(faint).category == "unjudgeable"
    assert PictureCheck(setup=SETUP).judge(faint, FINE).kind is VerdictKind.ALLOW, (
        "nothing to match"
    )


def test_a_small_shape_on_a_plain_ground_is_judged(check: PictureCheck) -> None:
    pixels = np.full((256, 256, 3), 240, np.uint8)
    pixels[100:130, 60:90] = (200, 30, 30)
    assert check.judge(pixels, FINE).kind is VerdictKind.ALLOW


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32),
     np.zeros((0, 8, 3), np.uint8)],
)  # fmt: skip
def test_what_is_no_picture_is_not_judged(check: PictureCheck, wrong: Picture) -> None:
    with pytest.raises(SafetyUnavailable):
        check.judge(wrong, FINE)


@pytest.mark.parametrize("line", ["xyz", "0123", "g" * 64, "0" * 65])
def test_a_list_with_a_bad_line_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "list.pdq"
    file.write_text(f"{'0' * 64} fine\n{line}\n")
    with pytest.raises(OperatorError, match=r"list\.pdq, line 2"):
        PictureCheck.from_files([file])
    with pytest.raises(OperatorError, match=r"none\.pdq"):
        PictureCheck.from_files([tmp_path / "none.pdq"])


def test_other_lists_and_other_checks_are_other_versions() -> None:
    lists = [KnownPictures([HashList("a", from_hex(digit * 64)[None])]) for digit in "12"]
    versions = {PictureCheck(known, SETUP).version for known in lists}
    renamed = replace(USE, build="1")
    other = replace(SETUP, checks=(ConfiguredCheck(renamed, LABELS),))
    assert len(versions | {PictureCheck(lists[0], other).version}) == 3


# Scores, by policies.


@pytest.mark.parametrize(
    ("policy", "scores", "category"),
    [
        ("pg13", {"nsfw": 0.29}, None),
        ("pg13", {"nsfw": 0.3}, "sexual"),
        ("pg13", {"blood": 0.5, "nsfw": 0.35}, "sexual"),  # further past its threshold
        ("pg13", {"blood": 0.5}, "violence"),
        ("pg13", {"fine": 1.0, "child": 1.0}, None),
        ("enterprise", {"nsfw": 0.15}, "sexual"),
        ("mature", {"nsfw": 0.99}, None),
        ("mature", {"blood": 0.7}, "violence"),
    ],
)
def test_a_policy_says_from_which_score_on_a_picture_is_blocked(
    policy: str, scores: Any, category: str | None
) -> None:
    applied = SETUP.policies[policy]
    verdict = PictureCheck(setup=SETUP).judge(canary(), scored(**scores), applied)
    assert verdict.category == category
    assert verdict.kind is (VerdictKind.BLOCK if category else VerdictKind.ALLOW)
    assert (verdict.policy, verdict.check) == (applied.version, "looks")
    assert verdict.score is not None


@pytest.mark.parametrize("policy", ["pg13", "mature", "enterprise"])
def test_a_minor_with_anything_sexual_is_blocked_whatever_the_policy(policy: str) -> None:
    applied = replace(
        SETUP.policies[policy], pictures=dict.fromkeys(shipped()["pg13"].pictures, 1.0)
    )
    both = scored(nsfw=ALWAYS_FROM, child=ALWAYS_FROM)
    verdict = PictureCheck(setup=SETUP).judge(canary(), both, applied)
    assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "sexual_minors")


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.1])
def test_a_score_that_is_no_number_is_no_score(score: float) -> None:
    with pytest.raises(SafetyUnavailable, match="looks") as raised:
        PictureCheck(setup=SETUP).judge(canary(), scored(fine=score))
    assert raised.value.field == "looks"


def test_without_one_of_its_labels_a_check_said_nothing() -> None:
    scores = {name: score for name, score in FINE.scores.items() if name != "looks:blood"}
    with pytest.raises(SafetyUnavailable, match="out of memory") as raised:
        PictureCheck(setup=SETUP).judge(
            canary(), Scored(scores, (USE,), {"looks": "out of memory"})
        )
    assert raised.value.field == "looks"


def test_a_model_without_checks_is_not_judged() -> None:
    with pytest.raises(SafetyUnavailable, match="no check"):
        PictureCheck(setup=SETUP).judge(canary(), scored(uses=()))


def test_a_check_that_nobody_configured_means_nothing() -> None:
    for stranger in (replace(USE, name="stranger"), replace(USE, labels=("nsfw", "fine"))):
        with pytest.raises(SafetyUnavailable, match="nobody knows"):
            PictureCheck(setup=SETUP).judge(canary(), scored(uses=(stranger,)))


def test_a_category_without_a_threshold_is_not_judged() -> None:
    policy = replace(SETUP.policies["pg13"], pictures={"sexual": 0.5})
    with pytest.raises(SafetyUnavailable, match="violence"):
        PictureCheck(setup=SETUP).judge(canary(), FINE, policy)


def test_a_picture_that_was_sent_is_compared_and_nothing_else(check: PictureCheck) -> None:
    assert check.judge_input(canary()).category == "known"
    assert check.judge_input(canary(7)).kind is VerdictKind.ALLOW
