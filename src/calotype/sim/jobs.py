"""A job as traffic has it: what was asked for and when, before any policy saw it."""

from __future__ import annotations

from dataclasses import dataclass

from calotype.core.cost import CostModel
from calotype.core.nouns import Sampler, Spec, Tier

# The project's example: 30 steps x 200 ms x 1.1 for guidance + 0.5 s, at 1,024 px on an A100.
A100 = CostModel(step_s_per_mpx=0.2, guided_factor=1.1, image_s=0.5)


@dataclass(frozen=True, slots=True)
class Asked:
    """One job of a trace or of generated traffic."""

    at_s: float  # since the traffic began
    tenant: str
    tier: Tier
    model: str
    n: int = 1  # images
    steps: int = 30
    width: int = 1_024  # pixels
    height: int = 1_024  # pixels
    guidance: float = 7.0
    loras: tuple[str, ...] = ()
    user: str = ""
    device_s: float | None = None  # measured, of all its images; else by the cost model


class Costs:
    """Device-seconds of one image on a device of speed 1, by the production cost model."""

    def __init__(self, image_s: float | None = None, model: CostModel = A100) -> None:
        """``image_s`` fixes them for every job that brings no measurement."""
        self._fixed_s = image_s
        self._model = model
        self._known: dict[tuple[int, int, int, bool], float] = {}

    def image_s(self, job: Asked) -> float:
        """Of each of the job's images."""
        if job.device_s is not None:
            return job.device_s / job.n
        if self._fixed_s is not None:
            return self._fixed_s
        shape = (job.steps, job.width, job.height, job.guidance > 1.0)
        if shape not in self._known:
            self._known[shape] = self._model.predict_s(spec_of(job))
        return self._known[shape]


def spec_of(job: Asked) -> Spec:
    """What one of its images asks for."""
    return Spec(
        prompt="",
        negative_prompt="",
        model=job.model,
        width=job.width,
        height=job.height,
        steps=job.steps,
        guidance=job.guidance,
        sampler=Sampler.EULER,
        seed=0,
        n=1,
    )
