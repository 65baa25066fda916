"""Samplers by the names the field uses, each a diffusers scheduler; every row owns its own.

A scheduler object holds one picture's history (``_step_index``, past model outputs), so one is made
for each row and never shared. It knows nothing of models beyond their scheduler's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)

from calotype.core.errors import InvalidInput
from calotype.core.nouns import Sampler

_SCHEDULERS = {
    Sampler.DDIM: DDIMScheduler,
    Sampler.DPMPP_2M: DPMSolverMultistepScheduler,
    Sampler.EULER: EulerDiscreteScheduler,
    Sampler.EULER_A: EulerAncestralDiscreteScheduler,
}
_FORCED: dict[Sampler, dict[str, Any]] = {
    Sampler.DPMPP_2M: {"algorithm_type": "dpmsolver++", "solver_order": 2},
}


def scheduler_of(sampler: str, config: Mapping[str, Any]) -> Any:
    """A sampler's diffusers scheduler for a model's configuration, not yet set to its steps.

    Raises InvalidInput on an unknown name.
    """
    if sampler not in _SCHEDULERS:
        raise InvalidInput(f"there is no sampler {sampler!r}", field="sampler", limit=[*Sampler])
    name = Sampler(sampler)
    forced = _FORCED.get(name, {})
    if name is Sampler.DDIM and "clip_sample" not in config:
        # The class's own default clips to -1..1, which is for pixels: latents go beyond.
        forced = {"clip_sample": False}
    return _SCHEDULERS[name].from_config(dict(config), **forced)


class RowSampler:
    """One row's scheduler, set to its steps; ``step`` counts from 0.

    DDIM (Song 2021) with eta 0, DPM-Solver++ 2M (Lu 2022), Euler and Euler ancestral (Karras 2022,
    k-diffusion's form).
    """

    def __init__(self, sampler: str, config: Mapping[str, Any], steps: int) -> None:
        """Build from a model's scheduler configuration; raise InvalidInput on an unknown name."""
        self._scheduler = scheduler_of(sampler, config)
        self._scheduler.set_timesteps(steps)
        if hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(0)
        self._takes_x0_from_history = sampler == Sampler.DPMPP_2M

    @property
    def noise_scale(self) -> float:
        """What unit noise is multiplied with before the first step."""
        return float(self._scheduler.init_noise_sigma)

    def timestep(self, step: int) -> torch.Tensor:
        """The timestep of a step: 0-d, int64 or float32 as the scheduler has it."""
        timestep: torch.Tensor = self._scheduler.timesteps[step]
        return timestep

    def model_input(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        """Latents as the model wants to see them; must come before every ``absorb``."""
        scaled: torch.Tensor = self._scheduler.scale_model_input(latents, self.timestep(step))
        return scaled

    def absorb(
        self, output: torch.Tensor, step: int, latents: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step: the next latents, and the clean latents the model now expects.

        All are (1, channels, height, width), float32. The generator feeds ancestral noise.
        """
        result = self._scheduler.step(output, self.timestep(step), latents, generator=generator)
        if self._takes_x0_from_history:  # it returns no estimate, but solves in terms of it
            return result.prev_sample, self._scheduler.model_outputs[-1]
        return result.prev_sample, result.pred_original_sample
