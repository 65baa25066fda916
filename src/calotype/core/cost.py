"""What a job costs, in device-seconds: one model for fairness, time estimates and planning.

``steps x per-step(resolution, guidance) + encode and decode``, for each image. What a step costs is
fitted from what engines report; the rest is an estimate that stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from calotype.core.nouns import Spec

_FADING = 0.1  # weight of the newest measurement against what was known


@dataclass(frozen=True)
class CostModel:
    """Costs of one model on one kind of device."""

    step_s_per_mpx: float = 0.5  # one unguided step, per 2**20 pixels
    guided_factor: float = 1.8  # a guided step against an unguided one
    image_s: float = 0.05  # encode and decode of one image

    def predict_s(self, spec: Spec) -> float:
        """Device-seconds of all the job's images."""
        return spec.n * (self._denoise_s(spec) + self.image_s)

    def fitted(self, spec: Spec, measured_s: float) -> CostModel:
        """The model after a job of this spec took ``measured_s`` device-seconds."""
        predicted = self._denoise_s(spec)
        if measured_s <= 0.0 or predicted <= 0.0:
            return self
        ratio = max(measured_s / spec.n - self.image_s, 1e-6) / predicted
        step = self.step_s_per_mpx * (1 - _FADING + _FADING * ratio)
        return replace(self, step_s_per_mpx=step)

    def _denoise_s(self, spec: Spec) -> float:
        guided = self.guided_factor if spec.guidance > 1.0 else 1.0
        return spec.steps * self.step_s_per_mpx * spec.width * spec.height / 2**20 * guided
