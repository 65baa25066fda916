"""From what was asked to a spec: nothing is corrected in silence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.core.nouns import Ask, ModelInfo, Sampler
from calotype.flow.admit import spec_of

MODEL = ModelInfo(
    name="tiny", family="sdxl", path="/nowhere", build="0" * 16, title="Tiny", licence="Apache-2.0",
    parameter_bytes=1, width=128, height=128, size_px_min=64, size_px_max=256, steps=20,
    guidance=3.0, sampler=Sampler.DPMPP_2M,
)  # fmt: skip


def test_what_is_left_open_is_the_models_default() -> None:
    spec = spec_of(Ask("a tent"), MODEL)
    assert (spec.width, spec.height, spec.steps, spec.guidance) == (128, 128, 20, 3.0)
    assert spec.sampler is Sampler.DPMPP_2M
    assert 0 <= spec.seed <= limits.SEED_MAX


def test_two_asks_without_a_seed_differ() -> None:
    assert len({spec_of(Ask("a tent"), MODEL).seed for _ in range(20)}) > 1


@given(some.text(max_size=2_100))
def test_a_prompt_is_taken_as_it_is_or_refused(prompt: str) -> None:
    try:
        taken = spec_of(Ask(prompt), MODEL).prompt
    except InvalidInput as error:
        taken = prompt if error.field == "prompt" else ""
    assert taken == prompt


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 56),
        ("width", 264),
        ("height", 130),
        ("steps", 0),
        ("steps", limits.STEPS_MAX + 1),
        ("guidance", -0.1),
        ("guidance", float("nan")),
        ("guidance", float("inf")),
        ("seed", -1),
        ("seed", 2**32),
        ("n", 0),
        ("n", limits.IMAGES_PER_JOB_MAX + 1),
        ("sampler", "heun"),
        ("prompt", "half a pair \ud83d"),
        ("negative_prompt", "bell \x07"),
    ],
)
def test_what_may_not_be_names_its_field_and_limit(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec_of(replace(Ask("a tent"), **{field: value}), MODEL)
    assert caught.value.field == field
    assert caught.value.limit is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 64), ("height", 256), ("steps", 1), ("guidance", 0.0), ("guidance", 20), ("n", 4)],
)
def test_the_limits_themselves_are_allowed(field: str, value: Any) -> None:
    assert getattr(spec_of(replace(Ask("a tent"), **{field: value}), MODEL), field) == value
