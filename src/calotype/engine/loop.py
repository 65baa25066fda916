"""The engine's loop, in three verbs: decide which rows step, run the model once, absorb.

It obeys commands and answers with messages through ``send``; it decides nothing beyond the batch
policy's turns, and a row's trouble stays that row's. It knows nothing of sockets or threads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from calotype.core import limits
from calotype.core.cost import Curve
from calotype.core.errors import (
    CallerError,
    CalotypeError,
    Conflict,
    NotFound,
    OperatorError,
    TooMany,
)
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
from calotype.engine.adapters import Loader, Want
from calotype.engine.buckets import prove_buckets, random_forwards
from calotype.engine.controls import Controls, load_control
from calotype.engine.curves import CurveStore, Measured, measure
from calotype.engine.decoding import Answer, Decoding
from calotype.engine.encodings import Encodings
from calotype.engine.families.base import Model
from calotype.engine.families.loading import load_model
from calotype.engine.forwards import Forwards, joined
from calotype.engine.memory import Ledger, row_bytes
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
        self._models: dict[str, tuple[Model, Previewer]] = {}
        self._encodings = Encodings()
        self._controls = Controls()
        self._loaded: dict[str, LoadModel] = {}  # as each model was asked for
        self._loader = Loader(wake)
        self._waiting: dict[str, tuple[RunRow, Sequence[torch.Tensor]]] = {}  # for adapters
        self._rows: dict[str, Row] = {}
        self._policy = BatchPolicy()
        self._measured: Recent[str, Measured] = Recent(limits.SIZES_PROVEN_MAX)  # by key
        self._curves = CurveStore(folder, device)
        self._decoding = Decoding(self._answer, send, device)
        self.passes = 0  # runs of a denoiser so far; other threads may read it

    @property
    def rows_held(self) -> int:
        """Rows that step, wait or are decoded; other threads may read it."""
        return len(self._rows) + len(self._waiting) + len(self._decoding)

    def ledger(self) -> Ledger:
        """The device memory to reckon with for all it has loaded, measured and holds."""
        sizes = self._measured.values()
        return Ledger(
            weights=sum(model.parameter_bytes for model, _ in self._models.values()),
            rows=row_bytes([*self._rows.values()]),
            largest_pass=max((max(size.pass_bytes) for size in sizes), default=0),
            decode=max((size.decode_bytes for size in sizes), default=0),
        )

    def handle(self, command: Message, blob: bytes = b"") -> None:
        """Obey one command, its frame's bytes beside it; what goes wrong is reported."""
        with torch.inference_mode():
            if isinstance(command, LoadModel):
                self._load(command)
            elif isinstance(command, RunRow):
                self._admit(command, blob)
            elif isinstance(command, CancelRow):
                self._drop(command.row)
                self._decoding.drop(command.row)

    def tick(self) -> bool:
        """Decide, run, absorb: one pass. False when no row steps; some may still be decoded."""
        self._admit_settled()
        chosen = self._policy.decide()
        if chosen is None:
            return False
        rows = [self._rows[row] for row in chosen.rows]
        with torch.inference_mode():
            for row, output in self._run(chosen, rows):
                self._absorb(row, output)
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
        except Exception as error:  # noqa: BLE001 - the other rows go on
            retryable = not isinstance(error, NotFinite)  # the same numbers run away again
            self._fail(command.row, _said(error), retryable=retryable)
            return
        preview = self._preview(row, expected)
        row.device_s += self._clock() - begun_s
        self._send(StepDone(command.row, row.steps_done, row.steps), preview)
        if row.is_done:
            self._drop(command.row)
            self._decoding.put(row)

    def _preview(self, row: Row, expected: torch.Tensor) -> bytes:
        """A rough picture now and then, or nothing; what goes wrong isn't worth the row."""
        if not wants_preview(row.steps_done, row.steps):
            return b""
        try:
            return self._models[row.command.model][1].preview(expected)
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

    def _admit(self, command: RunRow, blob: bytes) -> None:
        held = (self._rows, self._waiting, self._decoding)
        if any(command.row in rows for rows in held):
            return  # ids are unique per attempt: this one runs, and is answered once
        try:
            if self.rows_held >= limits.ENGINE_ROWS_MAX:
                raise TooMany("the engine holds all the rows it may", limit=limits.ENGINE_ROWS_MAX)
            self._begin(command, pictures_of(command, blob))
        except Exception as error:  # noqa: BLE001 - the other rows go on
            self._refuse(command.row, error)

    def _admit_settled(self) -> None:
        """Begin the rows whose adapters have come; fail those whose adapters can't be had."""
        with torch.inference_mode():
            for settled in self._loader.settle():
                command, pictures = self._waiting.pop(settled.row)
                try:
                    if settled.error is not None:
                        raise settled.error
                    self._begin(command, pictures)
                except Exception as error:  # noqa: BLE001 - the other rows go on
                    self._refuse(settled.row, error)

    def _begin(self, command: RunRow, pictures: Sequence[torch.Tensor]) -> None:
        """Start the row, or let it wait for its adapters. Raises what ``_refuse`` tells."""
        if command.model not in self._models:
            raise NotFound(f"model {command.model!r} is not loaded here", field="model")
        model = self._models[command.model][0]
        command = replace(command, loras=model.loras.beside(command.loras))
        model.loras.use(command.row, command.loras)
        if wants := self._wants(command, model):
            self._loader.ask(command.row, wants)
            self._waiting[command.row] = (command, pictures)
            return
        row = self._started(command, model, pictures)
        self._rows[command.row] = row
        self._send(RowStarted(command.row, row.tokens_cut))

    def _wants(self, command: RunRow, model: Model) -> list[Want]:
        """The row's adapters that have yet to be read."""
        controls = [
            Want(
                self._controls.key(wanted, model),
                partial(load_control, wanted, model),
                partial(self._controls.put, self._controls.key(wanted, model)),
            )
            for wanted in self._controls.missing(command.controls, model)
        ]
        return [*model.loras.wants(command.loras), *controls]

    def _started(self, command: RunRow, model: Model, pictures: Sequence[torch.Tensor]) -> Row:
        """The row, in the policy's turns; raise InvalidInput."""
        # Before the clock: the first row of a size doesn't pay for what all of that size use.
        curve = self._measured_for(model, command.width, command.height).curve
        controls = self._controls.of(command.controls, model)
        begun_s = self._clock()
        row = start_row(command, model, self._encodings, pictures, controls)
        row.device_s = self._clock() - begun_s
        row.prove_controls()
        self._policy.add(_turn(row, curve))
        return row

    def _load(self, command: LoadModel) -> None:
        begun_s = time.perf_counter()
        try:
            model = self._model(command)
            size = model.default_size
            measured = self._measured_for(model, size, size)
            previewer = Previewer(model)
        except CalotypeError as error:
            self._send(ModelFailed(command.name, error.detail))
        except Exception as error:  # noqa: BLE001 - e.g. out of memory; the reason is reported
            self._send(ModelFailed(command.name, _said(error)))
        else:
            self._models[command.name] = (model, previewer)
            self._loaded[command.name] = command
            loaded = ModelLoaded(
                command.name,
                seconds=time.perf_counter() - begun_s,
                bytes=model.parameter_bytes,
                buckets=measured.buckets,
                pass_s=measured.pass_s,
                size_px=size,
                image_s=measured.image_s,
                room_bytes=measured.room_bytes,
            )
            self._send(loaded)

    def _model(self, command: LoadModel) -> Model:
        """The model asked for: read, or the resident one if only what is merged is another set."""
        known = self._loaded.get(command.name)
        if known and known != command and replace(known, merged=command.merged) == command:
            rows = (*(row.command for row in self._rows.values()), *self._waiting_commands())
            if any(row.model == command.name for row in rows):
                raise Conflict(f"{command.name} has rows: nothing can be merged into it now")
            model = self._models[command.name][0]
            self._loaded[command.name] = replace(command, merged=())  # until it is done
        else:
            model = load_model(command, self._device)
        try:
            model.loras.merge(command.merged)
        finally:
            model.build = model.loras.build_of(command.build)
        return model

    def _waiting_commands(self) -> list[RunRow]:
        return [command for command, _ in self._waiting.values()]

    def _measured_for(self, model: Model, width: int, height: int) -> Measured:
        """What pictures of this size cost, found out once; also what warms the model up."""
        key = row_key(model, width, height)
        return self._measured.get(key, lambda: self._measure(model, width, height))

    def _measure(self, model: Model, width: int, height: int) -> Measured:
        """Prove the batch sizes, then time them, unless an earlier start did."""
        candidates = bucket_candidates(width, height)
        row = start_row(_probe(model, width, height), model, self._encodings)
        sample = random_forwards(candidates[-1] + 1, row.forwards(), row.conditioning)

        def denoise(forwards: Forwards) -> torch.Tensor:
            return self._denoise(model, forwards, len(forwards))

        buckets = prove_buckets(denoise, sample, candidates)
        known = self._curves.get(model, width, height, buckets)
        if known is None:
            known = measure(model, denoise, row.latents, sample, buckets, clock=self._clock)
            self._curves.put(model, width, height, known)
        return known

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
        self._loader.drop(row)
        self._waiting.pop(row, None)
        self._rows.pop(row, None)
        for model, _ in self._models.values():
            model.loras.release(row)


def _turn(row: Row, curve: Curve) -> RowAdded:
    return RowAdded(
        row=row.command.row,
        key=row.key,
        forwards=len(row.conditions),
        weight=TIER_WEIGHTS[Tier(row.command.tier)],
        curve=curve,
    )


def _probe(model: Model, width: int, height: int) -> RunRow:
    """A row that is never run: it only shows the shapes of a size."""
    sampler = model.samplers[0]
    return RunRow("", model.name, "", "", width, height, 1, 1.0, sampler, 0, Tier.FAST)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]
