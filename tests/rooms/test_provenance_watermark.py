"""The mark in a picture: what it survives, how it looks, and that nothing else is called one."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from calotype.core.errors import OperatorError
from calotype.provenance import fingerprint, watermark_keys
from calotype.provenance.carriers import PILOTS, SIDE, carriers
from calotype.provenance.detection import DIRECT, FALSE_MAX, SEARCHED, detect, threshold
from calotype.provenance.geometry import Guess, grid
from calotype.provenance.watermark import MarkKey, Pixels, embed, payload_of
from training.render import render
from training.scenes import sample_scene

KEY = MarkKey("wmk_one", bytes(range(32)))
OTHER = MarkKey("wmk_other", bytes(range(1, 33)))
PAYLOAD = 0x0123_4567_89AB_CDEF


def scene(seed: int, size: int) -> Pixels:
    import random

    return render(sample_scene(random.Random(seed)), size)


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return scene(7, 384)


@pytest.fixture(scope="module")
def marked(picture: Pixels) -> Pixels:
    return embed(picture, PAYLOAD, KEY)


def encoded(pixels: Pixels, form: str, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def resized(pixels: Pixels, by: float) -> Pixels:
    height, width, _ = pixels.shape
    size = (round(width * by), round(height * by))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def turned(pixels: Pixels, degrees: float) -> Pixels:
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC))


def blurred(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1)))


def noisy(pixels: Pixels) -> Pixels:
    noise = np.random.default_rng(3).normal(0, 8, pixels.shape)
    return np.asarray(np.clip(pixels + noise, 0, 255), np.uint8)


def brighter(pixels: Pixels) -> Pixels:
    return np.asarray(np.clip(pixels * 1.3, 0, 255), np.uint8)


def psnr(one: Pixels, other: Pixels) -> float:
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return float(10 * np.log10(255**2 / error))


ATTACKS: dict[str, Callable[[Pixels], Pixels]] = {
    "nothing": lambda p: p,
    "jpeg 50": lambda p: encoded(p, "jpeg", 50),
    "webp 90": lambda p: encoded(p, "webp", 90),
    "a quarter of it": lambda p: p[31 : 31 + 192, 57 : 57 + 192],
    "blur": blurred,
    "noise": noisy,
    "brightness": brighter,
    "mirrored": lambda p: p[:, ::-1],
    "upside down": lambda p: p[::-1, ::-1],
    "a quarter turn": np.rot90,
    "half the size": lambda p: resized(p, 0.5),
    "half as large again": lambda p: resized(p[:256, :256], 1.5),
    "turned by 3": lambda p: turned(p, 3),
    "turned by -10": lambda p: turned(p, -10),
    "mirrored, shrunk, turned, jpeg": lambda p: encoded(
        turned(resized(p[:, ::-1], 0.8), 5), "jpeg", 75
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_payload_is_read_after(marked: Pixels, attack: str) -> None:
    mark = detect(np.ascontiguousarray(ATTACKS[attack](marked)), [OTHER, KEY])
    assert mark is not None
    assert (mark.key, mark.payload) == (KEY.id, PAYLOAD)
    assert mark.statistic >= mark.threshold
    assert mark.false_max <= FALSE_MAX


def test_it_says_how_the_picture_was_turned_and_scaled(marked: Pixels) -> None:
    mark = detect(turned(resized(marked[:, ::-1], 0.8), 5), [KEY])
    assert mark is not None
    assert mark.placed.is_mirrored
    assert mark.placed.turn == pytest.approx(5, abs=0.5)
    assert mark.placed.scale == pytest.approx(0.8, abs=0.01)


def test_the_eye_does_not_see_it(picture: Pixels, marked: Pixels) -> None:
    assert psnr(picture, marked) > 42
    flat = np.full((256, 256, 3), 160, np.uint8)
    changed = embed(flat, PAYLOAD, KEY).astype(int) - 160
    assert changed.std() < 0.85  # below one level of 255
    assert abs(changed.mean()) < 0.05
    assert (changed[..., 0] == changed[..., 2]).all()  # no colour of its own


@pytest.mark.parametrize("size", [(128, 128), (96, 200), (333, 130), (64, 64), (1, 1)])
def test_any_size_can_be_marked(size: tuple[int, int]) -> None:
    plain = np.asarray(Image.fromarray(scene(3, 128)).resize(size[::-1]))
    assert embed(plain, PAYLOAD, KEY).shape == plain.shape


def test_a_picture_of_128_pixels_is_read_again() -> None:
    marks = [detect(embed(scene(seed, 128), seed, KEY), [KEY]) for seed in range(8)]
    assert [mark and mark.payload for mark in marks].count(None) <= 2  # some are too busy
    assert all(mark is None or mark.payload == seed for seed, mark in enumerate(marks))


def test_each_picture_has_its_tile_at_another_place(picture: Pixels) -> None:
    """Averaged, the marks of several pictures cancel, and nothing of the key is left."""
    pictures = [embed(picture, each, KEY).astype(float) - picture for each in (1, 2, 3)]
    alike = np.corrcoef([each[..., 0].ravel() for each in pictures])
    assert np.abs(alike[np.triu_indices(3, 1)]).max() < 0.3


@pytest.mark.parametrize("size", [64, 128])
def test_unmarked_pictures_and_other_keys_have_no_mark(size: int) -> None:
    for seed in range(4):
        plain = scene(50 + seed, size)
        assert detect(plain, [KEY]) is None
        assert detect(embed(plain, PAYLOAD, OTHER), [KEY]) is None


def test_nothing_is_found_in_a_plain_or_tiny_picture() -> None:
    for pixels in (np.zeros((200, 200, 3), np.uint8), np.full((8, 900, 3), 9, np.uint8)):
        assert detect(pixels, [KEY]) is None
    assert detect(np.zeros((64, 64, 3), np.uint8), []) is None


# The threshold


def test_the_statistic_of_random_keys_stays_below_its_bound() -> None:
    """P(statistic >= t) <= exp(-t**2 / 2), for one shift; here the largest of all 16,384."""
    spectrum = np.fft.fft2(scene(11, 128)[..., 1].astype(float)).astype(np.complex64)
    largest = [carriers(bytes([seed]) * 32).find(spectrum)[0] for seed in range(60)]
    for level in (4.0, 4.5, 5.0):
        bound = min(1.0, SIDE * SIDE * math.exp(-(level**2) / 2))
        assert sum(each >= level for each in largest) / 60 <= bound + 0.15


def test_the_threshold_counts_all_comparisons_and_keys() -> None:
    for comparisons in (DIRECT, SEARCHED):
        for keys in (1, 10):
            reached = threshold(comparisons, keys)
            allowed = comparisons * keys * math.exp(-(reached**2) / 2)
            assert allowed == pytest.approx(FALSE_MAX / 2)
            assert reached < math.sqrt(2 * PILOTS)  # what can be reached at all
    tried = grid(512)
    assert len(tried.turns) * len(tried.scales) * 5**4 < SEARCHED / DIRECT


# Keys


def test_keys_are_made_once_and_rotated(tmp_path: Path) -> None:
    folder = tmp_path / "watermark"
    (first,) = watermark_keys.load_or_create(folder)
    assert watermark_keys.load_or_create(folder) == (first,)
    second = watermark_keys.rotate(folder)
    assert watermark_keys.load(folder) == (second, first)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert first.secret.hex() not in repr(first)


def test_pictures_of_an_old_key_are_still_found(picture: Pixels, tmp_path: Path) -> None:
    (first,) = watermark_keys.load_or_create(tmp_path)
    marked = embed(picture, PAYLOAD, first)
    watermark_keys.rotate(tmp_path)
    mark = detect(marked, watermark_keys.load(tmp_path))
    assert mark is not None
    assert (mark.key, mark.payload) == (first.id, PAYLOAD)


def test_a_damaged_key_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "0001.key").write_bytes(b"short")
    with pytest.raises(OperatorError, match=r"0001\.key has 5 bytes"):
        watermark_keys.load(tmp_path)


def test_payloads_are_opaque_and_the_same_for_the_same_picture() -> None:
    made = {payload_of(f"{number:064x}", key) for number in range(50) for key in (KEY, OTHER)}
    assert len(made) == 100
    assert 0 not in made
    assert payload_of("ab", KEY) == payload_of("ab", KEY)


def test_the_same_picture_is_marked_the_same_way(picture: Pixels, marked: Pixels) -> None:
    assert (embed(picture, PAYLOAD, KEY) == marked).all()


# The fingerprint


def likeness(of: Pixels, pixels: Pixels, placed: Guess) -> float:
    found = fingerprint.likeness(fingerprint.sketch(of), of.shape[:2], pixels, placed)
    assert found is not None
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_mark_fits_its_own_picture_after(picture: Pixels, marked: Pixels, attack: str) -> None:
    attacked = np.ascontiguousarray(ATTACKS[attack](marked))
    mark = detect(attacked, [KEY])
    assert mark is not None
    assert likeness(picture, attacked, mark.placed) > fingerprint.FITS_MIN


def test_a_copied_mark_does_not_fit(picture: Pixels, marked: Pixels) -> None:
    victim = scene(8, 384)
    stolen = np.clip(victim + (marked.astype(int) - picture), 0, 255).astype(np.uint8)
    mark = detect(stolen, [KEY])
    assert mark is not None
    assert mark.payload == PAYLOAD  # it is our mark, and its record is of another picture
    assert likeness(picture, stolen, mark.placed) < fingerprint.FITS_MIN


def test_a_part_that_is_too_plain_could_be_of_any_picture(picture: Pixels) -> None:
    plain = np.full((200, 200, 3), 90, np.uint8)
    drawn = fingerprint.sketch(picture)
    assert fingerprint.likeness(drawn, (384, 384), plain, Guess(0, 1)) is None


def test_a_sketch_survives_its_bytes(picture: Pixels) -> None:
    drawn = fingerprint.sketch(picture[:200])
    assert (fingerprint.from_bytes(fingerprint.to_bytes(drawn)) == drawn).all()
