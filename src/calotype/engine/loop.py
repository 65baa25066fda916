"""The engine's loop, in three verbs: decide which rows step, run the model once, absorb.

It obeys commands and answers with messages through ``send``; it decides nothing beyond the batch
policy's turns, and a row's trouble stays that row's. It knows nothing of sockets or threads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol

import torch

from calotype.core import limits
from calotype.core.errors import CallerError, CalotypeError, NotFound, TooMany
from calotype.core.messages import (
    CancelRow,
    LoadModel,
    Message,
    ModelFailed,
    ModelLoaded,
    RowDone,
    RowFailed,
    RowStarted,
    RunRow,
    StepDone,
)
from calotype.core.nouns import TIER_WEIGHTS, Tier
from calotype.engine.buckets import prove_buckets, random_forwards
from calotype.engine.encodings import Encodings
from calotype.engine.families.base import Model
from calotype.engine.families.loading import load_model
from calotype.engine.forwards import Forwards, joined
from calotype.engine.pictures import pictures_of
from calotype.engine.previews import Previewer, pixels, scores, wants_preview
from calotype.engine.recent import Recent
from calotype.engine.rows import NotFinite, Row, row_key, start_row
from calotype.policy.batch import BatchPolicy, RowAdded, RunPass, bucket_candidates


class Send(Protocol):
    """Where reports go: a message and the frame's raw bytes."""

    def __call__(self, message: Message, blob: bytes = b"") -> None:
        """Send one report; may wait, must not raise."""


class Engine:
    """Models and rows of one device. Not thread-safe: one thread commands and ticks."""

    def __init__(self, send: Send, device: torch.device) -> None:
        self._send, self._device = send, device
        self._models: dict[str, tuple[Model, Previewer]] = {}
        self._encodings = Encodings()
        self._rows: dict[str, Row] = {}
        self._policy = BatchPolicy()
        self._buckets: Recent[str, tuple[int, ...]] = Recent(limits.SIZES_PROVEN_MAX)  # by key
        self.passes = 0  # runs of a denoiser so far; other threads may read it

    @property
    def rows_held(self) -> int:
        """Rows that step or wait; other threads may read it."""
        return len(self._rows)

    def handle(self, command: Message, blob: bytes = b"") -> None:
        """Obey one command, its frame's bytes beside it; what goes wrong is reported."""
        with torch.inference_mode():
            if isinstance(command, LoadModel):
                self._load(command)
            elif isinstance(command, RunRow):
                self._admit(command, blob)
            elif isinstance(command, CancelRow):
                self._drop(command.row)

    def tick(self) -> bool:
        """Decide, run, absorb: one pass. False when there was nothing to do."""
        chosen = self._policy.decide()
        if chosen is None:
            return False
        rows = [self._rows[row] for row in chosen.rows]
        with torch.inference_mode():
            for row, output in self._run(chosen, rows):
                self._absorb(row, output)
        return True

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

    def _denoise(self, model: Model, forwards: Forwards, bucket: int) -> torch.Tensor:
        """One pass, or without a bucket that can hold them one pass a forward."""
        if bucket >= len(forwards):
            self.passes += 1
            return model.denoise(forwards.padded(bucket))
        return torch.cat([self._denoise(model, forwards.take(i), 1) for i in range(len(forwards))])

    def _absorb(self, row: Row, output: torch.Tensor) -> None:
        """Take the row's step; its failure ends that row only."""
        begun_s = self._clock()
        command = row.command
        try:
            expected = row.absorb(output)
            picture = row.model.decode(row.latents) if row.is_done else None
        except Exception as error:  # noqa: BLE001 - the other rows go on
            retryable = not isinstance(error, NotFinite)  # the same numbers run away again
            self._fail(command.row, _said(error), retryable=retryable)
            return
        preview = self._preview(row, expected)
        row.device_s += self._clock() - begun_s
        self._send(StepDone(command.row, row.steps_done, row.steps), preview)
        if picture is not None:
            self._finish(row, picture)

    def _preview(self, row: Row, expected: torch.Tensor) -> bytes:
        """A rough picture now and then, or nothing; what goes wrong isn't worth the row."""
        if not wants_preview(row.steps_done, row.steps):
            return b""
        try:
            return self._models[row.command.model][1].preview(expected)
        except Exception as error:  # noqa: BLE001 - it is left out, and the log says so
            print(f"no preview of {row.command.row}: {_said(error)}", file=sys.stderr, flush=True)
            return b""

    def _finish(self, row: Row, picture: torch.Tensor) -> None:
        command = row.command
        self._drop(command.row)
        self._send(
            RowDone(command.row, command.width, command.height, scores(picture), row.device_s),
            pixels(picture).numpy().tobytes(),
        )

    def _admit(self, command: RunRow, blob: bytes) -> None:
        if command.row in self._rows:
            return  # ids are unique per attempt: this one runs, and is answered once
        try:
            row = self._started(command, pictures_of(command, blob))
        except CallerError as error:
            self._fail(command.row, error.detail, retryable=isinstance(error, TooMany))
        except Exception as error:  # noqa: BLE001 - the other rows go on
            self._fail(command.row, _said(error), retryable=True)
        else:
            self._rows[command.row] = row
            self._send(RowStarted(command.row, row.tokens_cut))

    def _started(self, command: RunRow, pictures: Sequence[torch.Tensor]) -> Row:
        """The row, in the policy's turns; raise TooMany, NotFound or InvalidInput."""
        if len(self._rows) >= limits.ENGINE_ROWS_MAX:
            raise TooMany("the engine holds all the rows it may", limit=limits.ENGINE_ROWS_MAX)
        if command.model not in self._models:
            raise NotFound(f"model {command.model!r} is not loaded here", field="model")
        model = self._models[command.model][0]
        # Before the clock: the first row of a size doesn't pay for what all of that size use.
        buckets = self._proven(model, command.width, command.height)
        begun_s = self._clock()
        row = start_row(command, model, self._encodings, pictures)
        row.device_s = self._clock() - begun_s
        self._policy.add(_turn(row, buckets))
        return row

    def _load(self, command: LoadModel) -> None:
        begun_s = time.perf_counter()
        try:
            model = load_model(command, self._device)
            buckets = self._proven(model, model.default_size, model.default_size)
        except CalotypeError as error:
            self._send(ModelFailed(command.name, error.detail))
        except Exception as error:  # noqa: BLE001 - e.g. out of memory; the reason is reported
            self._send(ModelFailed(command.name, _said(error)))
        else:
            self._models[command.name] = (model, Previewer(model))
            seconds = time.perf_counter() - begun_s
            self._send(ModelLoaded(command.name, seconds, model.parameter_bytes, buckets))

    def _proven(self, model: Model, width: int, height: int) -> tuple[int, ...]:
        """The buckets for pictures of this size, proven once; also what warms the model up."""
        key = row_key(model, width, height)
        return self._buckets.get(key, lambda: self._prove(model, width, height))

    def _prove(self, model: Model, width: int, height: int) -> tuple[int, ...]:
        candidates = bucket_candidates(width, height)
        row = start_row(_probe(model, width, height), model, self._encodings)
        sample = random_forwards(candidates[-1] + 1, row.forwards(), row.conditioning)

        def denoise(forwards: Forwards) -> torch.Tensor:
            return self._denoise(model, forwards, len(forwards))

        return prove_buckets(denoise, sample, candidates)

    def _clock(self) -> float:
        """Seconds, read when a GPU has done all it was given: or a row pays for another's work.

        A fault of the GPU itself shows here, and ends the process: what it holds is lost anyway.
        """
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _fail(self, row: str, reason: str, *, retryable: bool) -> None:
        self._drop(row)
        self._send(RowFailed(row, reason, retryable))

    def _drop(self, row: str) -> None:
        self._policy.drop(row)
        self._rows.pop(row, None)


def _turn(row: Row, buckets: tuple[int, ...]) -> RowAdded:
    command = row.command
    return RowAdded(
        row=command.row,
        key=row.key,
        forwards=len(row.conditions),
        cost=command.width * command.height / 2**20,
        weight=TIER_WEIGHTS[Tier(command.tier)],
        buckets=buckets,
    )


def _probe(model: Model, width: int, height: int) -> RunRow:
    """A row that is never run: it only shows the shapes of a size."""
    sampler = model.samplers[0]
    return RunRow("", model.name, "", "", width, height, 1, 1.0, sampler, 0, Tier.FAST)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]
