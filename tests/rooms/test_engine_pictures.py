"""Rows that begin from a picture, held to diffusers' own image-to-image and inpainting pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calotype.core.messages import RunRow
from tests.rooms.engine_models import apart
from tests.rooms.engine_studio import IMAGE_TO_IMAGE, INPAINT, Studio, frame, photo, pil, window

SOURCE, MASK = photo(1), window()
FLOW = ("sd3", "flux")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


def family_of(name: str) -> str:
    return "sdxl" if name == "vignette" else name.partition("-")[0]


def from_picture(studio: Studio, name: str, **changes: Any) -> tuple[RunRow, bytes]:
    pictures, blob = frame(SOURCE)
    return studio.drawer(name).row(pictures=pictures, source=0, **changes), blob


def repainted(studio: Studio, name: str, **changes: Any) -> tuple[RunRow, bytes]:
    pictures, blob = frame(SOURCE, MASK)
    row = studio.drawer(name).row(pictures=pictures, source=0, mask=1, **changes)
    return row, blob


@pytest.mark.parametrize(
    ("name", "sampler", "strength"),
    [
        *(("sdxl", sampler, 0.5) for sampler in ("ddim", "dpmpp_2m", "dpmpp_sde", "euler")),
        *(("sdxl", sampler, 0.8) for sampler in ("euler_a", "heun", "unipc", "lcm", "tcd")),
        ("sdxl", "euler", 1.0),
        ("sd15", "ddim", 0.5),
        ("sd15", "dpmpp_2m_karras", 0.7),
        ("sd3", "flow_euler", 0.55),
        ("sd3", "flow_heun", 0.55),
        ("sd3", "flow_euler", 1.0),
        ("flux", "flow_euler", 0.55),
        ("flux", "flow_euler", 1.0),
        ("vignette", "dpmpp_2m", 0.5),
        ("vignette", "euler_a", 0.8),
    ],
)
def test_a_row_from_a_picture_is_what_diffusers_makes_of_it(
    studio: Studio, name: str, sampler: str, strength: float
) -> None:
    row, blob = from_picture(studio, name, sampler=sampler, strength=strength, steps=6)
    plain = studio.plain(name, IMAGE_TO_IMAGE[family_of(name)])
    eta = {"eta": 0.3} if sampler == "tcd" else {}  # its paper's, and its scheduler's own
    expected = studio.drawn(name, plain, row, image=pil(SOURCE), strength=strength, **eta)
    assert apart(studio.drawer(name).ours(row, blob), expected) <= 1


@pytest.mark.parametrize(
    ("name", "sampler", "strength"),
    [
        *(("sdxl", sampler, 1.0) for sampler in ("ddim", "dpmpp_2m", "euler", "euler_a", "heun")),
        *(("sdxl", sampler, 0.6) for sampler in ("dpmpp_sde", "euler", "lcm", "unipc")),
        ("sd15", "ddim", 1.0),
        ("sd15", "euler_a", 0.6),
        ("sd3", "flow_euler", 1.0),
        ("sd3", "flow_heun", 0.6),
        ("flux", "flow_euler", 1.0),
        ("flux", "flow_euler", 0.6),
        ("vignette", "dpmpp_2m", 1.0),
        ("vignette", "euler_a", 0.6),
        ("sd15-inpainting", "ddim", 1.0),
        ("sd15-inpainting", "euler_a", 0.6),
        ("sdxl-inpainting", "euler", 1.0),
        ("sdxl-inpainting", "dpmpp_2m", 0.6),
    ],
)
def test_a_repainted_row_is_what_diffusers_makes_of_it(
    studio: Studio, name: str, sampler: str, strength: float
) -> None:
    row, blob = repainted(studio, name, sampler=sampler, strength=strength, steps=6)
    plain = studio.plain(name, INPAINT[family_of(name)])
    if name == "vignette":  # diffusers' pipeline takes latents of 4 channels only, or says so
        plain.unet.register_to_config(in_channels=4)
    expected = studio.drawn(
        name, plain, row, image=pil(SOURCE), mask_image=pil(MASK), strength=strength
    )
    assert apart(studio.drawer(name).ours(row, blob), expected) <= 1
