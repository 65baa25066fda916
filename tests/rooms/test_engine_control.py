"""ControlNets of rows, held to diffusers' own pipelines; and that a row's stay that row's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from calotype.core.messages import RowControl, RunRow
from calotype.engine.control_nets import KINDS
from tests.rooms.engine_models import apart
from tests.rooms.engine_studio import Studio, frame, make_control, photo, pil, window

FIRST, SECOND, SOURCE, MASK = photo(2), photo(3), photo(1), window()
CONTROLLED = {
    "sd15": diffusers.StableDiffusionControlNetPipeline,
    "sdxl": diffusers.StableDiffusionXLControlNetPipeline,
    "sd3": diffusers.StableDiffusion3ControlNetPipeline,
    "flux": diffusers.FluxControlNetPipeline,
}
FROM_PICTURE = {
    "sd15": diffusers.StableDiffusionControlNetImg2ImgPipeline,
    "sdxl": diffusers.StableDiffusionXLControlNetImg2ImgPipeline,
    "flux": diffusers.FluxControlNetImg2ImgPipeline,
}
REPAINTED = {
    "sd15": diffusers.StableDiffusionControlNetInpaintPipeline,
    "sdxl": diffusers.StableDiffusionXLControlNetInpaintPipeline,
    "flux": diffusers.FluxControlNetInpaintPipeline,
}
Wanted = tuple[float, float, float]  # weight, start, end


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def studio(folder: Path) -> Studio:
    return Studio(folder)


def family_of(name: str) -> str:
    return "sdxl" if name == "vignette" else name.partition("-")[0]


def control_of(studio: Studio, folder: Path, name: str, number: int) -> Path:
    path = folder / f"{name}-control-{number}"
    return path if path.exists() else make_control(studio.drawer(name), path, 20 + number)


def controls_of(
    studio: Studio, folder: Path, name: str, wanted: list[Wanted], first: int = 0
) -> tuple[RowControl, ...]:
    """One ControlNet after the other, with pictures from ``first`` on."""
    return tuple(
        RowControl(
            path.name, str(path), "build", first + number, weight=weight, start=start, end=end
        )
        for number, (weight, start, end) in enumerate(wanted)
        for path in [control_of(studio, folder, name, number)]
    )


def plain_arguments(controls: tuple[RowControl, ...], field: str) -> dict[str, Any]:
    """As diffusers' pipelines are told: alone for one, lists for several."""
    told: dict[str, list[Any]] = {
        field: [pil(it) for it in (FIRST, SECOND)[: len(controls)]],
        "controlnet_conditioning_scale": [it.weight for it in controls],
        "control_guidance_start": [it.start for it in controls],
        "control_guidance_end": [it.end for it in controls],
    }
    return told if len(controls) > 1 else {name: values[0] for name, values in told.items()}


def plain_nets(studio: Studio, name: str, controls: tuple[RowControl, ...]) -> Any:
    kind = {
        "sd15": diffusers.ControlNetModel,
        "sdxl": diffusers.ControlNetModel,
        "sd3": diffusers.SD3ControlNetModel,
        "flux": diffusers.FluxControlNetModel,
    }[family_of(name)]
    nets = [kind.from_pretrained(it.path) for it in controls]
    return nets if len(nets) > 1 else nets[0]


@pytest.fixture
def _means_for_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """SD3's pipeline draws a control picture's latents from no seed at all; we take their mean."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda it, *_, **__: it.mode())


@pytest.mark.usefixtures("_means_for_samples")
@pytest.mark.parametrize(
    ("name", "sampler", "guidance", "wanted"),
    [
        ("sdxl", "euler", 5.0, [(1.0, 0.0, 1.0)]),
        ("sdxl", "dpmpp_2m", 5.0, [(0.6, 0.2, 0.7), (1.3, 0.0, 0.5)]),
        ("sdxl", "heun", 1.0, [(0.6, 0.2, 0.7)]),
        ("sd15", "ddim", 5.0, [(0.7, 0.0, 1.0)]),
        ("sd15", "euler_a", 5.0, [(0.7, 0.4, 1.0), (0.5, 0.0, 0.6)]),
        ("sd3", "flow_euler", 5.0, [(0.7, 0.0, 0.8)]),
        ("sd3", "flow_euler", 1.0, [(0.7, 0.0, 0.8), (1.2, 0.0, 1.0)]),
        ("flux", "flow_euler", 3.5, [(0.7, 0.0, 0.8)]),
        ("flux", "flow_euler", 3.5, [(0.7, 0.0, 0.8), (1.2, 0.0, 1.0)]),
        ("vignette", "dpmpp_2m", 5.0, [(1.0, 0.0, 1.0)]),
        ("vignette", "euler", 5.0, [(0.6, 0.2, 0.7), (1.3, 0.0, 0.5)]),
    ],
)
def test_a_controlled_row_is_what_diffusers_makes_of_it(
    studio: Studio, folder: Path, name: str, sampler: str, guidance: float, wanted: list[Wanted]
) -> None:
    pictures, blob = frame(*(FIRST, SECOND)[: len(wanted)])
    controls = controls_of(studio, folder, name, wanted)
    drawer = studio.drawer(name)
    row = drawer.row(
        sampler=sampler, guidance=guidance, steps=6, pictures=pictures, controls=controls
    )
    family = family_of(name)
    plain = studio.plain(name, CONTROLLED[family], controlnet=plain_nets(studio, name, controls))
    field = "control_image" if family in ("sd3", "flux") else "image"
    expected = studio.drawn(name, plain, row, **plain_arguments(controls, field))
    ours = drawer.ours(row, blob)
    assert apart(ours, expected) <= 1
    bare = drawer.ours(drawer.row("bare", sampler=sampler, guidance=guidance, steps=6))
    assert apart(ours, bare) > 8, "the ControlNet must show"
