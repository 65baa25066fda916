"""What each size of picture costs a model: its batch sizes proven, then timed.

It takes some twenty passes, the longest first seen by whoever asks for a size that nobody asked for
yet. So it is work that pauses after each of them: other rows step meanwhile, and the batch policy
gives it turns as if it were a row.

Batch sizes for which the device has no room aren't tried, and one that finds none after all is left
out until there is more: until a model leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

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
from calotype.engine.memory import peak_bytes
from calotype.engine.recent import Recent
from calotype.engine.room import PASS, Room
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
        room: Room | None = None,
    ) -> None:
        self._denoise, self._encodings, self._curves = denoise, encodings, curves
        self._clock, self._room = clock, room or Room()
        self._known: Recent[str, Measured] = Recent(limits.SIZES_PROVEN_MAX)  # by key of a row
        self._caps: dict[str, int] = {}  # the largest batch there is room for, where one had none

    def values(self, models: Collection[Model]) -> list[Measured]:
        """All that is known of these, as far as there is room for it."""
        mine = {row_key(model, 0, 0).rpartition(":")[0] for model in models}
        return [
            self._capped(key, measured)
            for key, measured in self._known.items()
            if key.rpartition(":")[0] in mine
        ]

    def work_bytes(self, models: Collection[Model]) -> int:
        """What the largest pass of these and a decode beside it need, as far as is known."""
        sizes = self.values(models)
        largest = max((max(size.pass_bytes) for size in sizes), default=0)
        return largest + max((size.decode_bytes for size in sizes), default=0)

    def known(self, model: Model, width: int, height: int) -> Measured | None:
        """What pictures of this size cost, in pixels; None if it has yet to be found out."""
        key = row_key(model, width, height)
        found = self._known.find(key)
        return self._capped(key, found) if found else None

    def find(self, model: Model, width: int, height: int) -> Measured:
        """The same, found out at once if it isn't known; also what warms the model up."""
        return self.known(model, width, height) or at_once(self.work(model, width, height))

    def work(self, model: Model, width: int, height: int) -> Work[Measured]:
        """Find it out. What an earlier start has timed is only proven.

        Raises TooMany if there is no room for the smallest pass.
        """
        candidates = bucket_candidates(width, height)
        row = start_row(_probe(model, width, height), model, self._encodings)
        sample = random_forwards(candidates[-1] + 1, row.forwards(), row.conditioning)

        def denoise(forwards: Forwards) -> torch.Tensor:
            return self._denoise(model, forwards)

        least = 0
        if self._room.is_bounded:
            least = peak_bytes(partial(denoise, sample.take(0).padded(candidates[0])), model.device)
            yield
        room = self._room.for_a_pass()
        if least > room:
            what = f"a pass of {candidates[0]} at {width} x {height}"
            raise self._room.refusal(what, least, without=PASS)
        fitting = tuple(one for one in candidates if one * least <= room * candidates[0])
        buckets = yield from prove_buckets(denoise, sample, fitting)
        found = self._curves.get(model, width, height, buckets)
        if found is None:
            found = yield from measure(
                model, denoise, row.latents, sample, buckets, clock=self._clock
            )
            self._curves.put(model, width, height, found)
        self._known.put(row_key(model, width, height), found)
        return found

    def ran_short(
        self, model: Model, width: int, height: int, bucket: int, at_least: int = 0
    ) -> Curve | None:
        """A pass of so many forwards found no room: what is left to try, or None.

        It needs ``at_least`` so many bytes, whatever was measured: the ledger reckons with that
        while the engine lives.
        """
        key = row_key(model, width, height)
        measured = self._known.find(key)
        if measured is None or bucket not in measured.buckets[1:]:
            return None
        at = measured.buckets.index(bucket)
        self._caps[key] = measured.buckets[at - 1]
        sizes = [*measured.pass_bytes]
        sizes[at] = max(sizes[at], at_least)
        self._known.put(key, replace(measured, pass_bytes=tuple(sizes)))
        return measured.up_to(self._caps[key]).curve

    def has_room_again(self) -> None:
        """A model has left: what found no room may find some now."""
        self._caps.clear()

    def turn(self, model: Model, width: int, height: int) -> Curve:
        """What one pause to the next may take, by the model's own size: in the turns' currency."""
        known = self.known(model, model.default_size, model.default_size)
        pass_s = max(known.pass_s) if known else 1.0
        return Curve((1,), (pass_s * max(1.0, width * height / model.default_size**2),))

    def _capped(self, key: str, measured: Measured) -> Measured:
        most = self._caps.get(key)
        return measured if most is None else measured.up_to(most)


def _probe(model: Model, width: int, height: int) -> RunRow:
    """A row that is never run: it only shows the shapes of a size."""
    sampler = model.samplers[0]
    return RunRow("", model.name, "", "", width, height, 1, 1.0, sampler, 0, Tier.FAST)
