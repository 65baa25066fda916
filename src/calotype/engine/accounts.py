"""What an engine's memory is used for, added up by the ledger's lines (``memory``).

It looks at all that an engine holds and changes none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict

import torch

from calotype.engine.admission import Admission
from calotype.engine.encodings import Encodings
from calotype.engine.memory import Ledger, adapter_bytes, growth_bytes, row_tensors
from calotype.engine.resident import Models
from calotype.engine.rows import Row
from calotype.engine.sizes import Sizes
from calotype.engine.tensors import by_line

STAGED = "staged"  # the line of copies in host memory


class Accounts:
    """The ledger of one engine. For the loop's thread."""

    def __init__(
        self,
        models: Models,
        sizes: Sizes,
        encodings: Encodings,
        admission: Admission,
        *,
        checks: Callable[[], Iterable[torch.Tensor]] = tuple,
        rows: Callable[[], Collection[Row]],
        loading: Callable[[], int],
    ) -> None:
        """``checks`` are the weights of what looks at pictures, ``rows`` those that step or are
        decoded; ``loading`` says what is kept for a load."""
        self._models, self._sizes, self._encodings = models, sizes, encodings
        self._admission, self._checks = admission, checks
        self._rows, self._loading = rows, loading
        self._last: Ledger | None = None
        self.staged = 0  # bytes of copies in host memory, as last looked at

    def held(self) -> dict[str, int]:
        """Bytes of all tensors that are kept between passes, each storage in one line.

        Copies in host memory are the last line, and no part of the ledger: on a CPU, what a model
        has of one is the model's.
        """
        rows = self._rows()
        lines: tuple[tuple[str, Iterable[torch.Tensor]], ...] = (
            ("weights", self._models.weights()),
            ("loras", self._models.loras()),
            ("controls", self._admission.controls.tensors()),
            ("checks", self._checks()),
            ("rows", row_tensors(rows)),
            ("rows", self._admission.pictures()),
            ("texts", self._encodings.tensors()),
            (STAGED, self._models.staging.tensors()),
        )
        return by_line(lines)

    def ledger(self) -> Ledger:
        """The device memory to reckon with for all that is loaded, measured and held."""
        held, rows = self.held(), self._rows()
        sizes = self._sizes.values([*self._models])
        staging = self._models.staging
        self.staged = staging.bytes if staging.is_pinned else held[STAGED]
        self._last = Ledger(
            weights=held["weights"],
            loras=held["loras"],
            controls=held["controls"],
            checks=held["checks"],
            texts=held["texts"],
            rows=held["rows"] + growth_bytes(rows),
            loading=self._loading(),
            largest_pass=max((max(size.pass_bytes) for size in sizes), default=0),
            adapters=adapter_bytes(rows, max((max(it.buckets) for it in sizes), default=0)),
            decode=max((size.decode_bytes for size in sizes), default=0),
        )
        return self._last

    def lines(self) -> dict[str, int]:
        """The ledger by line, as of now."""
        return asdict(self.ledger())

    def recent(self) -> Ledger:
        """The ledger as it was when what is held changed last: to be asked at each pass."""
        return self._last or self.ledger()

    def changed(self) -> None:
        """Rows, models or adapters came or went."""
        self._last = None
