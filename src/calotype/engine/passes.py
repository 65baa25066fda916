"""Runs of a model, and what becomes of one for which the device has no memory.

On a GPU the allocator says so. On the CPU nothing keeps an engine within its budget but a look at
the ledger before each pass. Either way no row is lost: those of that size go on in smaller passes,
and the ledger learns what it didn't know.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import torch

from calotype.core.cost import Curve
from calotype.engine.accounts import Accounts
from calotype.engine.families.base import Model
from calotype.engine.forwards import Forwards
from calotype.engine.memory import adapter_bytes, is_out_of_memory
from calotype.engine.resident import tidy
from calotype.engine.room import Full, OutOfMemory, Room
from calotype.engine.rows import Row
from calotype.engine.sizes import Sizes


class Passes:
    """One at a time, of whatever model; a decode runs beside it, unless there is no room."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._alone = threading.Lock()  # held by a pass, and by a decode that has to be alone
        self.count = 0  # runs of a denoiser so far; other threads may read it

    def run(self, model: Model, forwards: Forwards, bucket: int = 0) -> torch.Tensor:
        """One pass, padded to ``bucket`` if that is more; or one a forward if it is too small."""
        bucket = bucket or len(forwards)
        if bucket >= len(forwards):
            self.count += 1
            with self._alone:
                return model.denoise(forwards.padded(bucket))
        return torch.cat([self.run(model, forwards.take(i), 1) for i in range(len(forwards))])

    def decode(self, row: Row) -> torch.Tensor:
        """A finished row's picture; where there is no memory beside a pass, when none runs."""
        try:
            return row.picture()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        with self._alone:
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            return row.picture()


class Shortage:
    """What doesn't fit is told before it is tried, and tried smaller. For the loop's thread."""

    def __init__(self, sizes: Sizes, room: Room, accounts: Accounts, device: torch.device) -> None:
        self._sizes, self._room, self._accounts, self._device = sizes, room, accounts, device

    def check(self, rows: Collection[Row], forwards: int, bucket: int, *, decodes: bool) -> None:
        """Raise OutOfMemory for a pass of these rows that the budget has no room for.

        ``decodes`` says whether a picture may be decoded beside it.
        """
        if not self._room.is_bounded or self._device.type != "cpu":
            return
        row = next(iter(rows))
        measured = self._sizes.find(row.model, row.command.width, row.command.height)
        needs = measured.bytes_of(bucket) + adapter_bytes(rows, max(bucket, forwards))
        ledger = self._accounts.recent()
        free = self._room.budget - ledger.kept - (ledger.decode if decodes else 0)
        if needs > free:
            raise OutOfMemory(f"a pass of {bucket} needs {needs:,} bytes, and {free:,} are free")

    def smaller(self, rows: Sequence[Row], bucket: int, error: Exception) -> Curve | None:
        """Passes to be tried now that one of so many forwards failed; None if there are none.

        Where there are no smaller ones, what no row needs is given up, and it is tried again.
        """
        if not is_out_of_memory(error):
            return None
        tidy(self._device)
        self._accounts.changed()
        command, model = rows[0].command, rows[0].model
        width, height = command.width, command.height
        is_news = self._room.is_bounded and not isinstance(error, OutOfMemory)
        at_least = self._room.for_a_pass() + 1 if is_news else 0  # more than was thought free
        curve = self._sizes.ran_short(model, width, height, bucket, at_least)
        if curve is None and self._room.is_bounded:
            before = self._room.free()
            self._room.make(self._room.budget)
            if self._room.free() > before:
                return self._sizes.find(model, width, height).curve
        return curve


def short_of(error: BaseException) -> int:
    """Bytes that were too few for what was to be kept, at least; 0 if that isn't what went wrong.

    An allocator doesn't say how many.
    """
    if isinstance(error, Full):
        return error.short
    return int(is_out_of_memory(error))
