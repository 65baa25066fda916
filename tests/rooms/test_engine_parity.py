"""Diffusers' own pipelines as the oracle: every family, every sampler, with guidance and without.

At batch one a picture may differ by rounding only: 1 of 255, anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)

from calotype.core.families import FAMILIES
from calotype.core.nouns import Sampler
from tests.rooms import engine_models
from tests.rooms.engine_bench import EMBEDDED
from tests.rooms.engine_models import (
    SCHEDULERS,
    Drawer,
    apart,
    make_model,
    oracle,
    plain_pipeline,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = ("sd15", "sdxl", "sd3", "sd3-no-t5", "flux", "flux-schnell")
MODELS = (*TINY, "vignette")


class FluxHeun(FlowMatchHeunDiscreteScheduler):  # type: ignore[misc]
    """diffusers' Heun has no way to be told the noise levels that FluxPipeline computes."""

    euler: ClassVar[dict[str, Any]]  # options of the Euler scheduler that computes them

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        euler = FlowMatchEulerDiscreteScheduler(**self.euler)
        euler.set_timesteps(sigmas=sigmas, mu=mu)
        super().set_timesteps(len(sigmas), device)  # clears what it keeps of the last picture
        each = [[it] if at == 0 else [it, it] for at, it in enumerate(euler.sigmas[:-1])]
        self.sigmas = torch.stack([it for pair in each for it in pair] + [torch.tensor(0.0)])
        self.timesteps = self.sigmas[:-1] * 1000


class UnshiftedDpm(DPMSolverMultistepScheduler):  # type: ignore[misc]
    """diffusers' DPM-Solver refuses the shift that FluxPipeline offers even where none is used."""

    def set_timesteps(self, *args: Any, mu: float | None = None, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)


class Sitting:
    """One model, loaded as ours and as diffusers'."""

    def __init__(self, folder: Path) -> None:
        self.drawer = Drawer(folder)
        self.pipeline = plain_pipeline(folder)


@pytest.fixture(scope="module")
def sittings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sitting]:
    base = tmp_path_factory.mktemp("models")
    found = {name: Sitting(make_model(name, base / name)) for name in TINY}
    return found | {"vignette": Sitting(EMBEDDED)}


def cases() -> list[tuple[str, str]]:
    families = {name: name.split("-")[0] for name in TINY} | {"vignette": "sdxl"}
    return [
        (model, sampler.value) for model in MODELS for sampler in FAMILIES[families[model]].samplers
    ]


@pytest.fixture
def flux_schedulers(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """For what FluxPipeline can't be given as it is."""
    model, sampler = request.node.callspec.params["model"], request.node.callspec.params["sampler"]
    if not model.startswith("flux"):
        return
    schedulers = dict(SCHEDULERS)
    if sampler == "flow_heun":
        is_shifted = model == "flux"
        FluxHeun.euler = {"use_dynamic_shifting": is_shifted}
        schedulers["flow_heun"] = (FluxHeun, {})
    if model == "flux-schnell":
        schedulers["dpmpp_2m"] = (UnshiftedDpm, {})
    monkeypatch.setattr(engine_models, "SCHEDULERS", schedulers)


@pytest.mark.usefixtures("flux_schedulers")
@pytest.mark.parametrize(("model", "sampler"), cases())
def test_a_picture_is_what_the_plain_pipeline_draws(
    sittings: dict[str, Sitting], model: str, sampler: str
) -> None:
    sitting = sittings[model]
    for guidance in (5.0, 1.0):
        row = sitting.drawer.row(f"{sampler}{guidance}", sampler=sampler, guidance=guidance)
        assert apart(sitting.drawer.ours(row), oracle(sitting.pipeline, row)) <= 1, guidance


@pytest.mark.parametrize("model", MODELS)
def test_other_shapes_texts_and_seeds_match_too(sittings: dict[str, Sitting], model: str) -> None:
    sitting = sittings[model]
    changes: dict[str, Any] = {"width": 96, "height": 48 if model != "vignette" else 64}
    changes |= {"prompt": "snow " * 90, "seed": 2**32 - 1, "steps": 5}
    row = sitting.drawer.row("other", **changes)
    picture = sitting.drawer.ours(row)
    assert apart(picture, oracle(sitting.pipeline, row)) <= 1
    if not model.startswith("flux"):
        said = sitting.drawer.row("said", **changes, negative_prompt="a blue boat")
        assert apart(sitting.drawer.ours(said), oracle(sitting.pipeline, said)) <= 1
        assert apart(sitting.drawer.ours(said), picture) > 1, "a negative prompt must show"


@pytest.mark.parametrize("model", ["flux", "flux-schnell"])
def test_flux_reads_its_guidance_only_if_it_embeds_it(
    sittings: dict[str, Sitting], model: str
) -> None:
    drawer = sittings[model].drawer
    weak, strong = (drawer.ours(drawer.row(f"{it}", guidance=it)) for it in (1.0, 9.0))
    assert (apart(weak, strong) > 0) == (model == "flux")
    said = drawer.ours(drawer.row("said", guidance=1.0, negative_prompt="snow"))
    assert apart(weak, said) == 0, "there is nothing a negative prompt could do"


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_unet_that_embeds_its_guidance_runs_once_a_step(tmp_path: Path, family: str) -> None:
    torch.manual_seed(7)
    pipeline = plain_pipeline(make_model(family, tmp_path / "plain"))
    config = {**pipeline.unet.config, "time_cond_proj_dim": 32}
    pipeline.unet = type(pipeline.unet).from_config(config)
    pipeline.save_pretrained(tmp_path / "lcm")
    drawer = Drawer(tmp_path / "lcm")
    row = drawer.row(sampler="lcm", guidance=8.0)
    passes = drawer.engine.passes
    assert apart(drawer.ours(row), oracle(plain_pipeline(tmp_path / "lcm"), row)) <= 1
    assert drawer.engine.passes - passes == row.steps
    weak = drawer.row("weak", sampler="lcm", guidance=1.0)
    assert apart(drawer.ours(weak), drawer.ours(row)) > 0


@pytest.mark.parametrize("model", MODELS)
def test_attention_is_pytorchs_own_in_every_layer(
    sittings: dict[str, Sitting], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, ...]] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def counted(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(tuple(query.shape))
        result: torch.Tensor = real(query, *args, **kwargs)
        return result

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    drawer = sittings[model].drawer
    drawer.ours(drawer.row("watched", steps=1, guidance=1.0, prompt=f"not said yet: {model}"))
    ours = drawer.model
    layers = sum(hasattr(layer, "processor") for layer in ours.denoiser.modules())
    layers += sum(hasattr(layer, "processor") for layer in ours.vae.decoder.modules())
    layers += sum(int(encoder.config.num_hidden_layers) for encoder in ours.encoders)
    assert len(calls) == layers


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
def test_a_narrower_dtype_draws_nearly_the_same(
    sittings: dict[str, Sitting], tmp_path: Path, family: str, dtype: str
) -> None:
    drawer = Drawer(make_model(family, tmp_path / family), dtype=dtype)
    full = sittings[family].drawer
    row = drawer.row(steps=3, guidance=2.0)
    difference = drawer.ours(row).astype(float) - full.ours(row).astype(float)
    assert (difference**2).mean() ** 0.5 < 4.0  # of 255
    assert drawer.model.denoiser.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert drawer.model.vae.dtype == torch.float32
    assert drawer.loaded.bytes < 0.7 * full.loaded.bytes


def test_all_samplers_are_covered() -> None:
    assert {sampler for _, sampler in cases()} == {sampler.value for sampler in Sampler}
