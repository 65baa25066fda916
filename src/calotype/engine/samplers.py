"""Samplers by the names the field uses, each a diffusers scheduler; every row owns its own.

A scheduler object holds one picture's history (``_step_index``, past model outputs), so one is made
for each row and never shared. It knows nothing of models beyond their scheduler's configuration.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from calotype.core.errors import InternalError, InvalidInput
from calotype.core.nouns import Sampler

_DPMPP: dict[str, Any] = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_SCHEDULERS: dict[Sampler, tuple[type[Any], dict[str, Any]]] = {  # with what the name stands for
    Sampler.DDIM: (DDIMScheduler, {}),
    Sampler.DPMPP_2M: (DPMSolverMultistepScheduler, {**_DPMPP, "use_karras_sigmas": False}),
    Sampler.DPMPP_2M_KARRAS: (
        DPMSolverMultistepScheduler,
        {**_DPMPP, "use_karras_sigmas": True},
    ),
    Sampler.DPMPP_SDE: (
        DPMSolverMultistepScheduler,
        {**_DPMPP, "algorithm_type": "sde-dpmsolver++"},
    ),
    Sampler.EULER: (EulerDiscreteScheduler, {}),
    Sampler.EULER_A: (EulerAncestralDiscreteScheduler, {}),
    Sampler.HEUN: (HeunDiscreteScheduler, {}),
    Sampler.UNIPC: (UniPCMultistepScheduler, {"predict_x0": True}),
    Sampler.LCM: (LCMScheduler, {}),
    Sampler.TCD: (TCDScheduler, {}),
    Sampler.FLOW_EULER: (FlowMatchEulerDiscreteScheduler, {}),
    Sampler.FLOW_HEUN: (FlowMatchHeunDiscreteScheduler, {}),
}
# The class's own default clips to -1..1, which is for pixels: latents go beyond.
_CLIPPING = {Sampler.DDIM, Sampler.LCM, Sampler.TCD}
# What makes a solver for noise solve along a flow.
_SOLVERS = {Sampler.DPMPP_2M, Sampler.UNIPC}
_ALONG_A_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def scheduler_of(sampler: str, config: Mapping[str, Any]) -> Any:
    """A sampler's diffusers scheduler for a model's configuration, not yet set to its steps.

    Raises InvalidInput on an unknown name.
    """
    if sampler not in [*Sampler]:
        raise InvalidInput(f"there is no sampler {sampler!r}", field="sampler", limit=[*Sampler])
    kind, forced = _SCHEDULERS[Sampler(sampler)]
    if sampler in _CLIPPING and "clip_sample" not in config:
        forced = {**forced, "clip_sample": False}
    if sampler in _SOLVERS and "beta_schedule" not in config:  # no noise schedule: a flow model's
        forced = {**forced, **_ALONG_A_FLOW, "flow_shift": config.get("shift", 1.0)}
    return kind.from_config(dict(config), **forced)


def set_flow_steps(
    scheduler: Any,
    steps: int,
    mu: float | None = None,
    sigmas: np.ndarray[Any, np.dtype[np.float64]] | None = None,
) -> None:
    """Set a flow model's scheduler to so many steps.

    ``mu`` is the shift's logarithm, where it depends on the picture's size. ``sigmas`` are noise
    levels before the shift, from 1 down, for Euler and Heun; the other solvers have their own.
    """
    shift = {} if mu is None else {"mu": mu}
    if isinstance(scheduler, FlowMatchHeunDiscreteScheduler):
        scheduler.set_timesteps(steps)
        if mu is not None or sigmas is not None:
            _space_heun(scheduler, steps, math.exp(mu) if mu is not None else None, sigmas)
    elif sigmas is not None and isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        scheduler.set_timesteps(sigmas=sigmas, **shift)
    else:
        scheduler.set_timesteps(steps, **shift)


def _space_heun(
    scheduler: Any,
    steps: int,
    shift: float | None,
    sigmas: np.ndarray[Any, np.dtype[np.float64]] | None,
) -> None:
    """Give diffusers' Heun the noise levels that its Euler has: it can't be told them itself."""
    count = scheduler.config.num_train_timesteps
    sigmas = np.linspace(1.0, 1 / count, steps) if sigmas is None else sigmas
    shift = scheduler.config.shift if shift is None else shift
    levels = torch.from_numpy(shift * sigmas / (1 + (shift - 1) * sigmas)).float()
    later = levels[1:].repeat_interleave(2)  # the second run of a step is where the next begins
    scheduler.timesteps = torch.cat((levels[:1], later)) * count
    scheduler.sigmas = torch.cat((levels[:1], later, levels.new_zeros(1)))


class RowSampler:
    """One row's scheduler, set to its steps; ``step`` counts its passes, from 0.

    DDIM (Song 2021) with eta 0, DPM-Solver++ 2M and its SDE form (Lu 2022), Euler, Euler ancestral
    and Heun (Karras 2022, k-diffusion's form), UniPC (Zhao 2023), LCM (Luo 2023), TCD (Zheng 2024),
    Euler and Heun along a flow (Lipman 2022).
    """

    def __init__(
        self,
        sampler: str,
        config: Mapping[str, Any],
        set_steps: Callable[[Any], None],
        strength: float = 1.0,
    ) -> None:
        """Build from a model's scheduler configuration and set it by ``set_steps``.

        ``strength`` below 1 leaves out that share of the steps at the beginning, as diffusers'
        image-to-image pipelines do. Raises InvalidInput on an unknown name, and if no step is left.
        """
        self.scheduler = scheduler_of(sampler, config)
        set_steps(self.scheduler)
        order = int(self.scheduler.order)
        steps = -(-len(self.scheduler.timesteps) // order)
        kept = _steps_kept(self.scheduler, steps, strength)
        if kept < 1:
            raise InvalidInput(
                f"of {steps} steps a strength of {strength:g} leaves none",
                field="strength",
                limit=1 / steps,
            )
        self._begin = (steps - kept) * order
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(self._begin)
        takes = inspect.signature(self.scheduler.step).parameters
        self._is_random = "generator" in takes

    @property
    def passes(self) -> int:
        """Model runs until the picture is done: one a step, or about two with Heun."""
        return len(self.scheduler.timesteps) - self._begin

    @property
    def noise_scale(self) -> float:
        """What unit noise is multiplied with before the first step."""
        return float(getattr(self.scheduler, "init_noise_sigma", 1.0))

    def timestep(self, step: int) -> torch.Tensor:
        """The timestep of a step: 0-d, int64 or float32 as the scheduler has it."""
        timestep: torch.Tensor = self.scheduler.timesteps[self._begin + step]
        return timestep

    def model_input(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        """Latents as the model wants to see them; must come before every ``absorb``."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return latents
        scaled: torch.Tensor = self.scheduler.scale_model_input(latents, self.timestep(step))
        return scaled

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
        """Clean latents as they would be before this step, all (1, channels, height, width).

        Between two steps the scheduler goes by its own count, so ``step`` must be the next.
        """
        timestep = self.timestep(step)[None]
        if hasattr(self.scheduler, "scale_noise"):
            latents: torch.Tensor = self.scheduler.scale_noise(clean, timestep, noise)
        else:
            latents = self.scheduler.add_noise(clean, noise, timestep)
        return latents

    def absorb(
        self, output: torch.Tensor, step: int, latents: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step: the next latents, and the clean latents the model now expects.

        All are (1, channels, height, width), float32. The generator feeds what noise there is.
        """
        sigma = self._sigma()
        extra = {"generator": generator} if self._is_random else {}
        result = self.scheduler.step(output, self.timestep(step), latents, **extra)
        return result.prev_sample, self._expected(result, output, step, latents, sigma)

    def state(self, fresh: RowSampler) -> dict[str, Any]:
        """What of it has changed since it was as ``fresh``, its equal, is: by attribute's name.

        Numbers, texts, tensors, and lists of them.
        """
        before = vars(fresh.scheduler)
        return {
            name: value
            for name, value in vars(self.scheduler).items()
            if name not in before or _differ(value, before[name])
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as one of which ``state`` gave this; raise InternalError for what no state is."""
        for name, value in state.items():
            if hasattr(type(self.scheduler), name) or not _is_plain(vars(self.scheduler).get(name)):
                raise InternalError(f"{name} is no state of a {type(self.scheduler).__name__}")
            setattr(self.scheduler, name, value)

    def _sigma(self) -> float:
        index = getattr(self.scheduler, "_step_index", None)
        at = self._begin if index is None else index
        return float(self.scheduler.sigmas[at]) if hasattr(self.scheduler, "sigmas") else 0.0

    def _expected(
        self, result: Any, output: torch.Tensor, step: int, latents: torch.Tensor, sigma: float
    ) -> torch.Tensor:
        for name in ("pred_original_sample", "denoised"):
            if (clean := getattr(result, name, None)) is not None:
                return clean
        if hasattr(self.scheduler, "model_outputs"):  # it solves in terms of the clean latents
            return self.scheduler.model_outputs[-1]
        if not hasattr(self.scheduler, "alphas_cumprod"):
            return latents - sigma * output  # along a flow
        kept = self.scheduler.alphas_cumprod[int(self.timestep(step))]
        noise, rest = (1 - kept).sqrt(), kept.sqrt()
        match self.scheduler.config.prediction_type:
            case "v_prediction":
                return rest * latents - noise * output
            case "sample":
                return output
            case _:
                return (latents - noise * output) / rest


def _differ(one: Any, other: Any) -> bool:
    """Whether two values of an attribute aren't the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor | np.ndarray) or isinstance(other, torch.Tensor | np.ndarray):
        if type(one) is not type(other) or one.shape != other.shape or one.dtype != other.dtype:
            return True
        return not bool((one == other).all())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) != len(other) or any(map(_differ, one, other))
    return bool(one != other)


def _is_plain(value: Any) -> bool:
    """Whether a state may be kept in such a value's place: numbers, texts, tensors, and lists."""
    return value is None or isinstance(value, bool | int | float | str | list | torch.Tensor)


def _steps_kept(scheduler: Any, steps: int, strength: float) -> int:
    """Of so many steps; diffusers' pipelines round down, but those of flow models up."""
    if hasattr(scheduler, "scale_noise") or scheduler.config.get("use_flow_sigmas"):
        return steps - int(max(steps - min(steps * strength, steps), 0))
    return min(int(steps * strength), steps)
