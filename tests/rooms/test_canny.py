"""Canny's edges: where a picture steps, one pixel thin, weak ones where strong ones are."""

from __future__ import annotations

import numpy as np
import pytest

from calotype.engine.canny import HIGH, LOW, canny


def flat(height: int = 24, width: int = 32, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_a_flat_picture_has_no_edges() -> None:
    found = canny(flat())
    assert found.shape == (24, 32)
    assert found.dtype == np.uint8
    assert not found.any()


@pytest.mark.parametrize("turned", [False, True])
def test_a_step_is_one_line_one_pixel_thin(turned: bool) -> None:
    picture = flat()
    picture[:, 16:] = 200
    found = canny(picture.transpose(1, 0, 2) if turned else picture)
    found = found.T if turned else found
    assert set(np.unique(found)) == {0, 255}
    assert ((found > 0).sum(1) == 1).all(), "each row crosses the edge once"
    assert set(np.nonzero(found)[1]) <= {15, 16}


def test_a_diagonal_step_is_thin_and_without_gaps() -> None:
    rows, columns = np.mgrid[:32, :32]
    picture = np.repeat(np.where(rows > columns, 220, 30)[..., None], 3, -1).astype(np.uint8)
    per_row = (canny(picture) > 0).sum(1)
    assert per_row[2:-2].min() >= 1
    assert per_row.max() <= 2


def test_a_circle_is_closed() -> None:
    rows, columns = np.mgrid[:64, :64]
    inside = (rows - 31.5) ** 2 + (columns - 31.5) ** 2 < 20**2
    picture = np.repeat(np.where(inside, 200, 60)[..., None], 3, -1).astype(np.uint8)
    found = canny(picture) > 0
    down, across = (np.flatnonzero(found) // 64 - 31.5, np.flatnonzero(found) % 64 - 31.5)
    distance = np.hypot(down, across)
    assert np.abs(distance - 20).max() < 1.6
    angles = np.sort(np.arctan2(down, across))
    assert np.diff(angles).max() < 0.15, "no gap of more than three pixels"


def test_a_colours_edge_counts_where_brightness_has_none() -> None:
    picture = flat()
    picture[:, :16], picture[:, 16:] = (150, 60, 60), (60, 106, 60)  # of one Rec. 601 brightness
    assert (canny(picture) > 0).sum() == 24


def test_weak_edges_stay_only_where_they_are_joined_to_strong_ones() -> None:
    picture = flat(40, 40)
    picture[2:38, 8] += np.linspace(90, 30, 36, dtype=np.uint8)[:, None]  # a line that fades
    picture[20:38, 30] += 30  # as faint as that one's end, and alone
    found = canny(picture) > 0
    assert found[34:37, 5:12].any(), "the fading line is followed to its end"
    assert not found[:, 25:].any()
    assert (canny(picture, LOW, LOW) > 0)[:, 25:].any()
    assert not canny(picture, HIGH * 4, HIGH * 4).any()


def test_a_lower_threshold_only_adds_edges() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    many, some = canny(picture, 50, 200) > 0, canny(picture, 100, 300) > 0
    assert (some <= many).all()
    assert some.sum() < many.sum()


def test_one_pixel_is_a_picture_too() -> None:
    assert canny(flat(1, 1)).tolist() == [[0]]


@pytest.mark.parametrize(
    ("picture", "low", "high"),
    [
        (np.zeros((8, 8), np.uint8), 1, 2),
        (np.zeros((8, 8, 4), np.uint8), 1, 2),
        (np.zeros((8, 8, 3), np.float32), 1, 2),
        (np.zeros((0, 8, 3), np.uint8), 1, 2),
        (np.zeros((8, 8, 3), np.uint8), 3, 2),
        (np.zeros((8, 8, 3), np.uint8), -1, 2),
    ],
)
def test_what_is_no_picture_or_no_threshold_is_refused(
    picture: np.ndarray, low: float, high: float
) -> None:
    with pytest.raises(ValueError, match=r"must be|is uint8"):
        canny(picture, low, high)
