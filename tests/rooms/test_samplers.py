"""Each sampler against a model that knows the answer, and at the edges of what it can be asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from calotype.core.errors import InvalidInput
from calotype.core.nouns import Sampler
from calotype.engine.samplers import RowSampler, scheduler_of, set_flow_steps
from tests.rooms.engine_models import LEADING, NOISE

TRAILING = {**NOISE, "timestep_spacing": "trailing"}
ZERO_SNR = {**TRAILING, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
V = {**LEADING, "prediction_type": "v_prediction"}
SD3 = {"shift": 3.0}
FLUX = {"shift": 3.0, "use_dynamic_shifting": True}
NOISY = [sampler.value for sampler in Sampler if not sampler.startswith("flow_")]
ALONG_A_FLOW = ["flow_euler", "flow_heun", "dpmpp_2m", "unipc"]
# These add fresh noise in each step, or jump through the clean latents: their way isn't straight.
RANDOM = {"dpmpp_sde", "euler_a", "lcm", "tcd"}
SHAPE = (1, 4, 3, 5)


def sampler_of(name: str, config: dict[str, Any], steps: int, strength: float = 1.0) -> RowSampler:
    def set_steps(scheduler: Any) -> None:
        if "shift" in config:
            set_flow_steps(scheduler, steps, 0.8 if "use_dynamic_shifting" in config else None)
        else:
            scheduler.set_timesteps(steps)

    return RowSampler(name, config, set_steps, strength)


def true_output(
    sampler: RowSampler, config: dict[str, Any], seen: torch.Tensor, clean: torch.Tensor, step: int
) -> torch.Tensor:
    """What a model says that knows the clean latents, shown ``seen`` at this step's timestep."""
    if "shift" in config:
        at = sampler.scheduler._step_index or 0  # by its count: timesteps of some are rounded
        return (seen - clean) / sampler.scheduler.sigmas[at]
    kept_at = scheduler_of("ddim", config).alphas_cumprod.double().clamp(min=2**-24)
    sigmas = ((1 - kept_at) / kept_at) ** 0.5
    low = int(sampler.timestep(step))
    between = float(sampler.timestep(step)) - low
    sigma = torch.lerp(sigmas[low], sigmas[min(low + 1, 999)], between)
    kept = 1 / (1 + sigma**2)
    noise = (seen.double() - kept.sqrt() * clean) / (1 - kept).sqrt()
    if config.get("prediction_type") == "v_prediction":
        return (kept.sqrt() * noise - (1 - kept).sqrt() * clean).float()
    return noise.float()


def run(
    name: str, config: dict[str, Any], steps: int, strength: float = 1.0
) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """The clean latents, what was expected on the way, and where it ended."""
    generator = torch.Generator().manual_seed(3)
    clean, noise = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    sampler = sampler_of(name, config, steps, strength)
    latents = noise * sampler.noise_scale
    if strength < 1.0:
        latents = sampler.noised(clean, noise, 0)
    expected = []
    for step in range(sampler.passes):
        seen = sampler.model_input(latents, step)
        output = true_output(sampler, config, seen, clean, step)
        latents, thought = sampler.absorb(output, step, latents, generator)
        assert latents.dtype == thought.dtype == torch.float32
        assert torch.isfinite(latents).all()
        assert torch.isfinite(thought).all()
        expected.append(thought)
    return clean, expected, latents


@pytest.mark.parametrize("config", [LEADING, TRAILING, V], ids=["leading", "trailing", "v"])
@pytest.mark.parametrize("name", NOISY)
def test_what_a_model_that_knows_expects_is_the_clean_picture(
    name: str, config: dict[str, Any]
) -> None:
    clean, expected, _ = run(name, config, steps=6)
    if name == "lcm":  # mixes in a little of what it was shown, the less the noisier
        expected = expected[:-1]
    for thought in expected:
        assert torch.allclose(thought, clean, rtol=0, atol=0.02)


@pytest.mark.parametrize("config", [SD3, FLUX], ids=["fixed", "by-size"])
@pytest.mark.parametrize("name", ALONG_A_FLOW)
def test_so_it_is_along_a_flow_which_leads_straight_there(
    name: str, config: dict[str, Any]
) -> None:
    clean, expected, latents = run(name, config, steps=6)
    for thought in [*expected, latents]:
        assert torch.allclose(thought, clean, rtol=0, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "config"),
    [
        *((name, config) for name in NOISY for config in (LEADING, TRAILING, V)),
        *((name, ZERO_SNR) for name in NOISY),
        *((name, config) for name in ALONG_A_FLOW for config in (SD3, FLUX)),
    ],
)
def test_one_or_two_steps_are_enough_to_get_somewhere(
    name: str, config: dict[str, Any], steps: int
) -> None:
    clean, expected, latents = run(name, config, steps)
    assert len(expected) == (2 * steps - 1 if name.endswith("heun") else steps)
    assert (latents - clean).abs().max() < 20.0


@pytest.mark.parametrize("name", ["euler_a", "lcm", "tcd", "euler", "ddim"])
def test_a_turbo_models_single_step_begins_at_the_most_noise(name: str) -> None:
    sampler = sampler_of(name, TRAILING, 1)
    assert float(sampler.timestep(0)) == 999
    clean, expected, latents = run(name, TRAILING, 1)
    assert torch.allclose(expected[0], clean, rtol=0, atol=0.02)
    assert torch.allclose(latents, clean, rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        *((name, LEADING) for name in NOISY if name not in RANDOM),
        *((name, SD3) for name in ALONG_A_FLOW),
    ],
)
def test_a_part_of_the_steps_ends_at_the_source_it_began_from(
    name: str, config: dict[str, Any]
) -> None:
    clean, expected, latents = run(name, config, steps=8, strength=0.5)
    assert len(expected) in ((7, 8) if name.endswith("heun") else (4,))
    assert torch.allclose(latents, clean, rtol=0, atol=0.05)


def test_a_strength_that_leaves_no_step_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        sampler_of("euler", LEADING, 8, strength=0.1)
    assert (caught.value.field, caught.value.limit) == ("strength", 1 / 8)


def test_an_unknown_sampler_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidInput) as caught:
        scheduler_of("plms", LEADING)
    assert caught.value.limit == [*Sampler]


def test_heun_has_the_noise_levels_of_euler_along_a_flow() -> None:
    euler, heun = (scheduler_of(name, FLUX) for name in ("flow_euler", "flow_heun"))
    for scheduler in (euler, heun):
        set_flow_steps(scheduler, 5, 0.8)
    places = [0, 1, 3, 5, 7]
    assert torch.allclose(heun.sigmas[places], euler.sigmas[:-1])
    assert torch.equal(heun.sigmas[1::2][:-1], heun.sigmas[2::2])
    assert torch.allclose(heun.timesteps[places], euler.timesteps)
    assert heun.sigmas[-1] == 0


def test_karras_is_what_tells_the_two_apart_whatever_the_model_says() -> None:
    plain = scheduler_of("dpmpp_2m", {**LEADING, "use_karras_sigmas": True})
    karras = scheduler_of("dpmpp_2m_karras", LEADING)
    assert (plain.config.use_karras_sigmas, karras.config.use_karras_sigmas) == (False, True)
