"""A mark that is known is found in what is too little for one that isn't, and nothing else is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.provenance.carriers import SIDE, carriers
from calotype.provenance.detection import (
    CANDIDATES_MAX,
    CONFIRMED,
    DIRECT,
    FALSE_MAX,
    confirm,
    detect,
)
from calotype.provenance.watermark import MarkKey, Pixels, embed, payload_of
from tests.rooms.test_provenance_watermark import KEY, OTHER, encoded, resized, scene

PAYLOAD, MINE = payload_of("mine", KEY), 3
PAYLOADS = [payload_of(f"{at}", KEY) for at in range(CANDIDATES_MAX)]
PAYLOADS[MINE] = PAYLOAD


@pytest.fixture(scope="module")
def marked() -> Pixels:
    return embed(scene(3, 384), PAYLOAD, KEY)


def looked(pixels: Pixels, of: int = 384, key: MarkKey = KEY) -> tuple[int, float] | None:
    scale = max(pixels.shape) / of
    found = confirm(np.ascontiguousarray(pixels), [(key, each, scale) for each in PAYLOADS])
    return found and (found[0], found[1].false_max)


@pytest.mark.parametrize("attack", ["webp 50", "half, jpeg 60", "part of webp 60", "mirrored"])
def test_what_is_too_faint_to_be_found_is_confirmed(marked: Pixels, attack: str) -> None:
    changed = {
        "webp 50": lambda: encoded(marked, "webp", 50),
        "half, jpeg 60": lambda: encoded(resized(marked, 0.5), "jpeg", 60),
        "part of webp 60": lambda: encoded(marked, "webp", 60)[40:330, 30:310],
        "mirrored": lambda: encoded(marked, "webp", 60)[:, ::-1],
    }[attack]()
    assert detect(np.ascontiguousarray(changed), [KEY], search=False) is None
    found = looked(changed)
    assert found is not None
    assert found[0] == MINE
    assert found[1] <= FALSE_MAX


def test_neither_an_unmarked_picture_nor_another_key_is_confirmed(marked: Pixels) -> None:
    assert looked(scene(3, 384)) is None
    assert looked(encoded(scene(3, 384), "webp", 50)) is None
    assert looked(marked, key=OTHER) is None
    assert confirm(marked, []) is None
    assert confirm(marked[:20], [(KEY, PAYLOAD, 1.0)]) is None


def test_the_largest_of_many_looks_at_unmarked_pictures_stays_below_its_bound() -> None:
    """P(statistic >= t) <= exp(-t**2 / 2) for a shift; here the largest of all 16,384."""
    spectrum = np.fft.fft2(scene(11, 128)[..., 1].astype(float)).astype(np.complex64)
    keys = [MarkKey("k", bytes([seed]) * 32) for seed in range(60)]
    waves = [carriers(key.secret).of_payload(payload_of("x", key)) for key in keys]
    largest = [each.find(spectrum)[0] for each in waves]
    for level in (4.0, 4.5, 5.0):
        bound = min(1.0, SIDE * SIDE * math.exp(-(level**2) / 2))
        assert sum(each >= level for each in largest) / len(keys) <= bound + 0.15
    assert CONFIRMED == 2 * CANDIDATES_MAX * DIRECT, "all that one look may compare"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_the_waves_of_a_payload_are_those_of_its_tile(payload: int) -> None:
    """At no shift, and nearly all that can be reached, whatever symbols are the same."""
    waves = carriers(KEY.secret).of_payload(payload)
    tile = carriers(KEY.secret).tile(payload)
    statistic, shift = waves.find(np.fft.fft2(tile).astype(np.complex64))
    assert shift == (0, 0)
    power = np.abs(waves.expected) ** 2
    largest = power.sum() / math.sqrt(float((waves.shared * power**2).sum()) / 2)
    assert statistic == pytest.approx(largest, rel=1e-3)
