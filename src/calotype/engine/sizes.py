"""What each size of picture costs a model: its batch sizes proven, then timed.

It takes some twenty passes, the longest first seen by whoever asks for a size that nobody asked for
yet. So it is work that pauses after each of them: other rows step meanwhile, and the batch policy
gives it turns as if it were a row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from calotype.core import limits
from calotype.core.cost import Curve
from calotype.core.messages import RunRow
from calotype.core.nouns import Tier
from calotype.engine.buckets import Work, at_once, prove_buckets, random_forwards
from calotype.engine.curves import CurveStore, Measured, measure
from calotype.engine.encodings import Encodings
from calotype.engine.families.base import Model
from calotype.engine.forwards import Forwards
from calotype.engine.recent import Recent
from calotype.engine.rows import row_key, start_row
from calotype.policy.batch import bucket_candidates


class Sizes:
    """The sizes an engine knows the costs of; the least recently used are forgotten."""

    def __init__(
        self,
        denoise: Callable[[Model, Forwards], torch.Tensor],
        encodings: Encodings,
        curves: CurveStore,
        clock: Callable[[], float],
    ) -> None:
        self._denoise, self._encodings, self._curves = denoise, encodings, curves
        self._clock = clock
        self._known: Recent[str, Measured] = Recent(limits.SIZES_PROVEN_MAX)  # by key of a row

    def values(self) -> list[Measured]:
        """All that is known."""
        return self._known.values()

    def known(self, model: Model, width: int, height: int) -> Measured | None:
        """What pictures of this size cost, in pixels; None if it has yet to be found out."""
        return self._known.find(row_key(model, width, height))

    def find(self, model: Model, width: int, height: int) -> Measured:
        """The same, found out at once if it isn't known; also what warms the model up."""
        return self.known(model, width, height) or at_once(self.work(model, width, height))

    def work(self, model: Model, width: int, height: int) -> Work[Measured]:
        """Find it out. What an earlier start has timed is only proven."""
        candidates = bucket_candidates(width, height)
        row = start_row(_probe(model, width, height), model, self._encodings)
        sample = random_forwards(candidates[-1] + 1, row.forwards(), row.conditioning)

        def denoise(forwards: Forwards) -> torch.Tensor:
            return self._denoise(model, forwards)

        buckets = yield from prove_buckets(denoise, sample, candidates)
        found = self._curves.get(model, width, height, buckets)
        if found is None:
            found = yield from measure(
                model, denoise, row.latents, sample, buckets, clock=self._clock
            )
            self._curves.put(model, width, height, found)
        self._known.put(row_key(model, width, height), found)
        return found

    def turn(self, model: Model, width: int, height: int) -> Curve:
        """What one pause to the next may take, by the model's own size: in the turns' currency."""
        known = self.known(model, model.default_size, model.default_size)
        pass_s = max(known.pass_s) if known else 1.0
        return Curve((1,), (pass_s * max(1.0, width * height / model.default_size**2),))


def _probe(model: Model, width: int, height: int) -> RunRow:
    """A row that is never run: it only shows the shapes of a size."""
    sampler = model.samplers[0]
    return RunRow("", model.name, "", "", width, height, 1, 1.0, sampler, 0, Tier.FAST)
