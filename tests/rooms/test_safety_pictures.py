"""Known pictures are blocked however they come, and what can't be judged isn't let through.

No picture here is of anything but noise and gradients: the bank's tests use benign canaries.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calotype.core.errors import OperatorError
from calotype.core.nouns import VerdictKind
from calotype.safety import phash
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.pictures import KnownPictures, PictureCheck

Picture = NDArray[np.uint8]

FINE = {"finite": 1.0}


def canary(seed: int = 1, size: int = 256) -> Picture:
    """A benign picture with large shapes: smooth coloured noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def through(pixels: Picture, form: str, **options: int) -> Picture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return np.array(Image.open(file).convert("RGB"))


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> PictureCheck:
    file = tmp_path_factory.mktemp("bank") / "known.txt"
    digits = f"{phash.hashes(phash.small(canary()))[0]:016x}"
    file.write_text(f"# a comment\n\n{digits} canary, benign\n")
    return PictureCheck.from_file(file)


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


def test_the_bank_that_ships_is_empty_and_lets_pictures_pass() -> None:
    shipped = PictureCheck.default()
    assert shipped.judge(canary(), FINE).kind is VerdictKind.ALLOW


def test_without_the_score_nothing_is_judged(check: PictureCheck) -> None:
    for scores in ({}, {"other": 1.0}):
        with pytest.raises(SafetyUnavailable, match="finite"):
            check.judge(canary(), scores)


@pytest.mark.parametrize("score", [0.0, 0.999, float("nan"), float("inf"), -1.0])
def test_a_damaged_picture_is_blocked(check: PictureCheck, score: float) -> None:
    verdict = check.judge(canary(), {"finite": score})
    assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "damaged")


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_picture_cannot_be_compared_and_is_blocked(check: PictureCheck, level: int) -> None:
    flat = np.full((96, 64, 3), level, np.uint8)
    grain = np.random.default_rng(4).integers(0, 3, flat.shape, dtype=np.uint8)
    for pixels in (flat, np.minimum(flat, 252) + grain):
        verdict = check.judge(pixels, FINE)
        assert (verdict.kind, verdict.category) == (VerdictKind.BLOCK, "unjudgeable")


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


@pytest.mark.parametrize("line", ["xyz", "0123", "0123456789abcdeg", "0123456789abcdef0"])
def test_a_bank_with_a_bad_line_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "bank.txt"
    file.write_text(f"0123456789abcdef fine\n{line}\n")
    with pytest.raises(OperatorError, match=r"bank\.txt, line 2"):
        PictureCheck.from_file(file)
    with pytest.raises(OperatorError, match=r"none\.txt"):
        PictureCheck.from_file(tmp_path / "none.txt")


def test_another_bank_is_another_version() -> None:
    one, two = KnownPictures((1,)), KnownPictures((2,))
    assert PictureCheck(one).version != PictureCheck(two).version
