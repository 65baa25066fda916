"""The engine's loop, in three verbs: decide which rows step, run the model once, absorb.

It obeys commands and answers with messages through ``send``; it decides nothing beyond the batch
policy's turns, and a row's trouble stays that row's. It knows nothing of sockets or threads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from calotype.core import limits
from calotype.core.errors import CallerError, CalotypeError, Conflict, OperatorError, TooMany
from calotype.core.messages import (
    CancelRow,
    LoadModel,
    Message,
    ModelFailed,
    RowDone,
    RowFailed,
    RowStarted,
    RunRow,
    StepDone,
)
from calotype.core.nouns import TIER_WEIGHTS, Tier
from calotype.engine.admission import Admission
from calotype.engine.curves import CurveStore
from calotype.engine.decoding import Answer, Decoding
from calotype.engine.encodings import Encodings
from calotype.engine.families.base import Model
from calotype.engine.forwards import Forwards, joined
from calotype.engine.memory import Ledger, adapter_bytes, row_bytes
from calotype.engine.pictures import pictures_of
from calotype.engine.previews import pixels, preview_due, scores
from calotype.engine.resident import Models
from calotype.engine.room import Room
from calotype.engine.rows import NotFinite, Row
from calotype.engine.sizes import Sizes
from calotype.engine.warming import Warming
from calotype.policy.batch import STRETCH, BatchPolicy, RowAdded, RunPass


class Send(Protocol):
    """Where reports go: a message and the frame's raw bytes."""

    def __call__(self, message: Message, blob: bytes = b"") -> None:
        """Send one report; may wait, must not raise."""


class Engine:
    """Models and rows of one device. Not thread-safe: one thread commands and ticks."""

    def __init__(
        self,
        send: Send,
        device: torch.device,
        folder: Path | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """``send`` is called from two threads. What is measured is kept in ``folder``, if any.

        ``wake`` is called from a thread when an adapter is read, and the next tick has work.
        """
        self._send, self._device = send, device
        self._encodings = encodings = Encodings()
        self._policy = policy = BatchPolicy()
        curves = CurveStore(folder, device)
        self._sizes = sizes = Sizes(self._denoise, encodings, curves, self._clock)
        self._models = models = Models(device, sizes)
        self._admission = Admission(models, sizes, encodings, policy, clock=self._clock, wake=wake)
        self._rows: dict[str, Row] = {}
        self._decoding = Decoding(self._answer, send, device)
        self.passes = 0  # runs of a denoiser so far; other threads may read it

    @property
    def rows_held(self) -> int:
        """Rows that step, wait or are decoded; other threads may read it."""
        return len(self._rows) + len(self._admission) + len(self._decoding)

    def ledger(self) -> Ledger:
        """The device memory to reckon with for all it has loaded, measured and holds."""
        sizes, rows = self._sizes.values(), [*self._rows.values()]
        return Ledger(
            weights=self._models.bytes,
            loras=self._models.lora_bytes,
            controls=self._admission.control_bytes,
            rows=row_bytes(rows),
            largest_pass=max((max(size.pass_bytes) for size in sizes), default=0),
            adapters=adapter_bytes(rows, max((max(it.buckets) for it in sizes), default=0)),
            decode=max((size.decode_bytes for size in sizes), default=0),
        )

    def handle(self, command: Message, blob: bytes = b"") -> None:
        """Obey one command, its frame's bytes beside it; what goes wrong is reported."""
        with torch.inference_mode():
            if isinstance(command, LoadModel):
                self._load(command)
            elif isinstance(command, RunRow):
                self._take_in(command, blob)
            elif isinstance(command, CancelRow):
                self._drop(command.row)
                self._decoding.drop(command.row)

    def tick(self) -> bool:
        """Decide, run, absorb: one pass. False when no row steps; some may still be decoded."""
        with torch.inference_mode():
            self._settle_in(self._admission.settled())
            chosen = self._policy.decide()
            if chosen is None:
                return False
            if self._admission.is_proof(chosen.key):
                self._settle_in(self._admission.prove(chosen.key))
                return True
            rows = [self._rows[row] for row in chosen.rows]
            shown = max(rows, key=_preview_due)
            for row, output in self._run(chosen, rows):
                self._absorb(row, output, may_show=row is shown)
        return True

    def settle(self) -> None:
        """Wait for the rows that are being decoded."""
        self._decoding.settle()

    def close(self) -> None:
        """Finish the row that is being decoded; what else is held is lost."""
        self._decoding.close()

    def _run(self, chosen: RunPass, rows: Sequence[Row]) -> list[tuple[Row, torch.Tensor]]:
        """Each row and its part of one pass's output; on failure all fail, and none is left."""
        begun_s = self._clock()
        try:
            parts = [row.forwards() for row in rows]
            output = self._denoise(rows[0].model, joined(parts), chosen.bucket)
        except Exception as error:  # noqa: BLE001 - e.g. out of memory: the engine must live on
            for row in rows:
                self._fail(row.command.row, f"the pass failed: {_said(error)}", retryable=True)
            return []
        counts = [len(part) for part in parts]
        share_s = (self._clock() - begun_s) / sum(counts)
        for row, count in zip(rows, counts, strict=True):
            row.device_s += share_s * count
        # Copies, so that a row's own arithmetic doesn't depend on where it lay in the pass.
        outputs = output[: sum(counts)].split(counts)
        return [(row, part.clone()) for row, part in zip(rows, outputs, strict=True)]

    def _denoise(self, model: Model, forwards: Forwards, bucket: int = 0) -> torch.Tensor:
        """One pass, padded to ``bucket`` if that is more; or one a forward if it is too small."""
        bucket = bucket or len(forwards)
        if bucket >= len(forwards):
            self.passes += 1
            return model.denoise(forwards.padded(bucket))
        return torch.cat([self._denoise(model, forwards.take(i), 1) for i in range(len(forwards))])

    def _absorb(self, row: Row, output: torch.Tensor, *, may_show: bool) -> None:
        """Take the row's step; its failure ends that row only."""
        begun_s = self._clock()
        command, may_show = row.command, may_show and _preview_due(row) >= 0
        try:
            expected = row.absorb(output)
        except Exception as error:  # noqa: BLE001 - the other rows go on
            retryable = not isinstance(error, NotFinite)  # the same numbers run away again
            self._fail(command.row, _said(error), retryable=retryable)
            return
        preview = self._preview(row, expected) if may_show else b""
        row.device_s += self._clock() - begun_s
        self._send(StepDone(command.row, row.steps_done, row.steps), preview)
        if row.is_done:
            self._drop(command.row)
            self._decoding.put(row)

    def _preview(self, row: Row, expected: torch.Tensor) -> bytes:
        """A rough picture; what goes wrong isn't worth the row."""
        row.previewed = row.steps_done
        try:
            return self._models.previewer(row.command.model).preview(expected)
        except Exception as error:  # noqa: BLE001 - it is left out, and the log says so
            print(f"no preview of {row.command.row}: {_said(error)}", file=sys.stderr, flush=True)
            return b""

    def _answer(self, row: Row) -> Answer:
        """A finished row's picture; its failure is that row's only. Called in a thread of its own.

        Its clock goes on while passes run beside it, so on a busy CPU it counts a part of them.
        """
        command, begun_s = row.command, self._clock()
        try:
            picture = row.picture()
            seen, raw = scores(picture), pixels(picture).numpy().tobytes()
        except Exception as error:  # noqa: BLE001 - the other rows go on
            return RowFailed(command.row, _said(error), retryable=True), b""
        row.device_s += self._clock() - begun_s
        return RowDone(command.row, command.width, command.height, seen, row.device_s), raw

    def _take_in(self, command: RunRow, blob: bytes) -> None:
        held = (self._rows, self._admission, self._decoding)
        if any(command.row in rows for rows in held):
            return  # ids are unique per attempt: this one runs, and is answered once
        try:
            if self.rows_held >= limits.ENGINE_ROWS_MAX:
                raise TooMany("the engine holds all the rows it may", limit=limits.ENGINE_ROWS_MAX)
            row = self._admission.take(command, pictures_of(command, blob))
        except Exception as error:  # noqa: BLE001 - the other rows go on
            self._refuse(command.row, error)
        else:
            if row is not None:
                self._begin(row)

    def _settle_in(self, settled: Iterable[tuple[RunRow, Row | Exception]]) -> None:
        """Begin the rows that wait no longer; refuse those that waited in vain."""
        for command, outcome in settled:
            if isinstance(outcome, Exception):
                self._refuse(command.row, outcome)
            else:
                self._begin(outcome)

    def _begin(self, row: Row) -> None:
        command = row.command
        self._rows[command.row] = row
        self._add(row, self._sizes.find(row.model, command.width, command.height).curve)
        self.accounts.changed()
        self._send(RowStarted(command.row, row.tokens_cut))

    def _add(self, row: Row, curve: Curve) -> None:
        tier = Tier(row.command.tier)
        self._policy.add(
            RowAdded(
                row=row.command.row,
                key=row.key,
                forwards=len(row.conditions),
                weight=TIER_WEIGHTS[tier],
                curve=curve,
                stretch=STRETCH[tier],
            )
        )

    def _step_models(self) -> None:
        self._settle_models(self._warming.step())

    def _settle_models(self, names: Iterable[str]) -> None:
        """Begin the rows that waited for these, which came or couldn't be loaded."""
        for name in names:
            self.accounts.changed()
            self._settle_in(self._admission.model_settled(name))

    def _is_used(self, model: str) -> bool:
        """Whether rows have begun to use it and aren't through with it."""
        if self._admission.needs(model):
            return True
        return any(row.command.model == model for row in self._all_rows())

    def _all_rows(self) -> list[Row]:
        """Those that step, and those that are decoded."""
        return [*self._rows.values(), *self._decoding.rows()]

    def _look(self, *, is_idle: bool) -> None:
        """Look at the ledger now and then, for those who ask how much is used."""
        now = time.perf_counter()
        if is_idle or now - self._looked_s >= limits.LEDGER_LOOKED_AT_S:
            self._looked_s, self.lines = now, self.accounts.lines()

    def _clock(self) -> float:
        """Seconds, read when a GPU has done all it was given: or a row pays for another's work.

        A fault of the GPU itself shows here, and ends the process: what it holds is lost anyway.
        """
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # the thread's: not all of them
        return time.perf_counter()

    def _fail(self, row: str, reason: str, *, retryable: bool) -> None:
        self._drop(row)
        self._send(RowFailed(row, reason, retryable))

    def _refuse(self, row: str, error: Exception) -> None:
        """A wrong request or file is wrong at the next attempt, too; what is full may have room."""
        if isinstance(error, CallerError | OperatorError):
            self._fail(row, error.detail, retryable=isinstance(error, TooMany | Conflict))
        else:
            self._fail(row, _said(error), retryable=True)

    def _drop(self, row: str) -> None:
        self._policy.drop(row)
        self._admission.drop(row)
        self._rows.pop(row, None)
        self._models.release(row)


def _preview_due(row: Row) -> int:
    """Of the step that it takes next."""
    return preview_due(row.steps_done + 1, row.steps, row.previewed)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]
