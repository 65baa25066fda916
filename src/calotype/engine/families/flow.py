"""Models that learnt a flow from noise to pictures (Lipman 2022): how their steps are spaced.

The larger a picture, the more of its steps belong to strong noise (Esser 2024, section 5.3.2): a
*shift*, fixed in the model's configuration or computed from the number of tokens.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from calotype.engine.families.base import Model
from calotype.engine.samplers import set_flow_steps

_Sigmas = np.ndarray[Any, np.dtype[np.float64]]


class Flow(Model):
    """What Stable Diffusion 3 and FLUX share."""

    max_shift: ClassVar[float]  # where the scheduler's configuration says none

    def set_steps(self, scheduler: Any, steps: int, width: int, height: int) -> None:
        """Set a scheduler to so many steps, shifted as the picture's size wants it."""
        tokens = (width // self.size_multiple) * (height // self.size_multiple)
        set_flow_steps(scheduler, steps, self.shift(tokens), self.sigmas(steps))

    def sigmas(self, steps: int) -> _Sigmas | None:
        """Noise levels before the shift; None: the scheduler's own."""
        del steps
        return None

    def shift(self, tokens: int) -> float | None:
        """Logarithm of the shift for a picture of so many tokens; None: the scheduler's own."""
        config = self.scheduler_config
        if not config.get("use_dynamic_shifting"):
            return None
        fewest, most = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        least = config.get("base_shift", 0.5)
        rise = (config.get("max_shift", self.max_shift) - least) / (most - fewest)
        return float(tokens * rise + (least - rise * fewest))
