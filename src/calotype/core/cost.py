"""What a job costs, in device-seconds: one model for fairness, time estimates and planning.

``steps x per-step(resolution, guidance) + encode and decode``, for each image. It begins with what
an engine measured when it loaded the model (a ``Curve``), and what a step costs is then fitted to
what jobs really took.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from calotype.core.nouns import Spec

_FADING = 0.1  # weight of the newest measurement against what was known
_MPX = 2**20  # pixels


@dataclass(frozen=True)
class Curve:
    """How long one pass of a denoiser takes, by batch size, for one size of picture."""

    buckets: tuple[int, ...]  # forwards of a pass, ascending, at least one
    pass_s: tuple[float, ...]  # seconds of a pass in each, > 0

    def seconds(self, forwards: int) -> float:
        """Of a pass of so many, padded to the next bucket; one by one if none holds them."""
        for bucket, pass_s in zip(self.buckets, self.pass_s, strict=True):
            if bucket >= forwards:
                return pass_s
        return forwards * self.pass_s[0]


@dataclass(frozen=True)
class CostModel:
    """Costs of one model on one kind of device. The defaults are for a model never seen."""

    step_s_per_mpx: float = 0.5  # one unguided step, per 2**20 pixels
    guided_factor: float = 1.8  # a guided step against an unguided one
    image_s: float = 0.05  # encode and decode of one image

    @classmethod
    def measured(cls, curve: Curve, size_px: int, image_s: float) -> CostModel:
        """Of pictures ``size_px`` a side, for which an engine measured the curve.

        A row alone is what it tells: in a crowd a step costs less. Other sizes are taken to cost by
        their pixels, which is too much for larger ones while a pass isn't all arithmetic.
        """
        one_s, two_s = curve.seconds(1), curve.seconds(2)
        return cls(one_s * _MPX / size_px**2, two_s / one_s, image_s)

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
        return spec.steps * self.step_s_per_mpx * spec.width * spec.height / _MPX * guided
