"""The engine's loop, in three verbs: decide which rows step, run the model once, absorb.

It obeys commands and answers with messages through ``send``; it decides nothing beyond the batch
policy's turns, and a row's trouble stays that row's. It knows nothing of sockets or threads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from calotype.core import limits
from calotype.core.cost import Curve
from calotype.core.errors import CallerError, Conflict, OperatorError, TooMany
from calotype.core.messages import (
    CancelRow,
    DropCopy,
    Heartbeat,
    LoadModel,
    MemoryShort,
    Message,
    ParkRow,
    RowFailed,
    RowParked,
    RowStarted,
    RunRow,
    StepDone,
    UnloadModel,
    UseChecks,
)
from calotype.core.nouns import TIER_WEIGHTS, Tier
from calotype.engine.accounts import Accounts
from calotype.engine.admission import Admission
from calotype.engine.answers import Answers
from calotype.engine.checks.places import said
from calotype.engine.checks.running import Checks, load_check
from calotype.engine.checks.swaps import Swaps
from calotype.engine.checks.trials import Trials
from calotype.engine.curves import CurveStore
from calotype.engine.decoding import Decoding
from calotype.engine.encodings import Encodings
from calotype.engine.forwards import joined
from calotype.engine.fragmentation import Blocks
from calotype.engine.passes import Passes, Shortage, short_of
from calotype.engine.pictures import pictures_of
from calotype.engine.previews import preview_due
from calotype.engine.reading import Reading
from calotype.engine.resident import Models
from calotype.engine.room import Room
from calotype.engine.rows import NotFinite, Row, park
from calotype.engine.sizes import Sizes
from calotype.engine.staging import Staging
from calotype.engine.warming import Warming
from calotype.policy.arena import Fragmentation
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
        room: Room | None = None,
        *,
        staging_bytes: int = 0,
        acts_on_arena: bool = False,
    ) -> None:
        """``send`` is called from several threads. What is measured is kept in ``folder``, if any.

        ``wake`` is called from a thread when something was read, and the next tick has work.
        ``room`` is what there is of the device's memory; None: as much as the device gives.
        ``staging_bytes`` is what there is of host memory for copies of models. If it
        ``acts_on_arena`` it works on a CPU as if memory there could be torn.
        """
        self._send, self._device = send, device
        self._room = room = room or Room()
        self._encodings = encodings = Encodings()
        self._policy = policy = BatchPolicy()
        curves = CurveStore(folder, device)
        self._passes = Passes(device)
        self._sizes = sizes = Sizes(self._passes.run, encodings, curves, self._clock, room)
        budget = room.budget if room.is_bounded else None
        staging, blocks = Staging(device, staging_bytes), Blocks(device, budget, acts=acts_on_arena)
        self._models = models = Models(
            device, sizes, encodings, room, staging=staging, blocks=blocks
        )
        self._warming = Warming(
            models, policy, room, device=device, send=send, is_used=self._is_used, wake=wake
        )
        self._admission = Admission(
            models, sizes, encodings, policy, room, clock=self._clock, wake=wake
        )
        models.left = self._admission.controls.forget
        self._rows: dict[str, Row] = {}
        self._checks = Checks(device)
        self._trials = Trials(device, send, load_check)
        self._reading = Reading(self._checks, self._trials.offer_words, wake)
        self._swaps = Swaps(self._checks, self._trials, room, send=send, wake=wake)
        self._answers = answers = Answers(
            self._passes, self._checks, self._clock, self._trials.offer
        )
        self._decoding = Decoding(answers.made, answers.seen, send, device, wake=wake)
        self.accounts = Accounts(
            models,
            sizes,
            encodings,
            self._admission,
            checks=lambda: [*self._checks.tensors(), *self._trials.tensors()],
            rows=self._all_rows,
            loading=lambda: self._warming.bytes + self._swaps.bytes,
        )
        room.lines, room.is_busy = self.accounts.lines, lambda: bool(self._all_rows())
        room.join(encodings)
        self._shortage = Shortage(sizes, room, self.accounts, device)
        self._state = Heartbeat(0, 0)  # what memory is used for, as last looked at
        self._looked_s = 0.0

    @property
    def passes(self) -> int:
        """Runs of a denoiser so far; other threads may read it."""
        return self._passes.count

    @property
    def rows_held(self) -> int:
        """Rows that wait, are read, step or are decoded; other threads may read it."""
        waiting = len(self._admission) + len(self._reading)
        return waiting + len(self._rows) + len(self._decoding)

    def state(self) -> Heartbeat:
        """How it is; other threads may ask."""
        return replace(self._state, rows=self.rows_held, steps=self.passes)

    def handle(self, command: Message, blob: bytes = b"") -> None:
        """Obey one command, its frame's bytes beside it; what goes wrong is reported."""
        with torch.inference_mode():
            if isinstance(command, LoadModel):
                self._swaps.expect(command)
            if isinstance(command, LoadModel | UnloadModel | DropCopy):
                self._warming.ask(command)
                self._step_models()
            elif isinstance(command, RunRow):
                self._take_in(command, blob)
            elif isinstance(command, UseChecks):
                self._swaps.ask(command)
            elif isinstance(command, ParkRow):
                self._park(command.row)
            elif isinstance(command, CancelRow):
                self._drop(command.row)
                self._decoding.drop(command.row)

    def load(self, command: LoadModel) -> None:
        """Load a model and go on until that is over: for whoever has an engine in this process."""
        self.handle(command)
        while not self._warming.is_over:
            if not self.tick():
                self._warming.wait()

    def tick(self) -> bool:
        """Decide, run, absorb: one pass. False when no row steps; some may still be decoded."""
        with torch.inference_mode():
            self._step_models()
            self._settle_in(self._admission.settled())
            self._settle_read()
            chosen = self._policy.decide()
            self._look(is_idle=chosen is None)
            if chosen is None:
                return False
            (first, *_) = chosen.rows
            if self._warming.is_turn(first):
                self._settle_models([name] if (name := self._warming.turn()) else [])
            elif self._admission.is_proof(first):
                self._settle_in(self._admission.prove(first))
            else:
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
        self._reading.close()
        self._decoding.close()

    def _run(self, chosen: RunPass, rows: Sequence[Row]) -> list[tuple[Row, torch.Tensor]]:
        """Each row and its part of one pass's output; on failure all fail, and none is left.

        Where memory fell short none has failed: they are to step in smaller passes.
        """
        begun_s = self._clock()
        try:
            parts = [row.forwards() for row in rows]
            forwards, is_decoding = joined(parts), len(self._decoding) > 0
            self._shortage.check(rows, len(forwards), chosen.bucket, decodes=is_decoding)
            output = self._passes.run(rows[0].model, forwards, chosen.bucket)
        except Exception as error:  # noqa: BLE001 - the engine must live on
            self._failed(chosen, rows, error)
            return []
        counts = [len(part) for part in parts]
        share_s = (self._clock() - begun_s) / sum(counts)
        for row, count in zip(rows, counts, strict=True):
            row.device_s += share_s * count
        # Copies, so that a row's own arithmetic doesn't depend on where it lay in the pass.
        outputs = output[: sum(counts)].split(counts)
        return [(row, part.clone()) for row, part in zip(rows, outputs, strict=True)]

    def _failed(self, chosen: RunPass, rows: Sequence[Row], error: Exception) -> None:
        """A pass failed, and its rows with it; but where memory fell short they go on in smaller
        ones."""
        curve = self._shortage.smaller(rows, chosen.bucket, error)
        if curve is None:
            for row in rows:
                self._fail(row.command.row, f"the pass failed: {said(error)}", retryable=True)
            return
        for row in [row for row in self._rows.values() if row.key == chosen.key]:
            self._policy.drop(row.command.row)
            self._add(row, curve)
        command, bucket = rows[0].command, chosen.bucket
        size = (command.width, command.height)
        self._send(MemoryShort(command.model, *size, bucket, curve.buckets, said(error)))

    def _absorb(self, row: Row, output: torch.Tensor, *, may_show: bool) -> None:
        """Take the row's step; its failure ends that row only."""
        begun_s = self._clock()
        command, may_show = row.command, may_show and _preview_due(row) >= 0
        try:
            expected = row.absorb(output)
        except Exception as error:  # noqa: BLE001 - the other rows go on
            retryable = not isinstance(error, NotFinite)  # the same numbers run away again
            self._fail(command.row, said(error), retryable=retryable)
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
            previewer, is_coarse = self._models.previewer(row.command.model), row.command.is_coarse
            return previewer.preview(expected, is_coarse=is_coarse)
        except Exception as error:  # noqa: BLE001 - it is left out, and the log says so
            print(f"no preview of {row.command.row}: {said(error)}", file=sys.stderr, flush=True)
            return b""

    def _take_in(self, command: RunRow, blob: bytes) -> None:
        held = (self._admission, self._reading, self._rows, self._decoding)
        if any(command.row in rows for rows in held):
            return None  # ids are unique per attempt: this one runs, and is answered once
        try:
            if self.rows_held >= limits.ENGINE_ROWS_MAX:
                raise TooMany("the engine holds all the rows it may", limit=limits.ENGINE_ROWS_MAX)
            pictures = pictures_of(command, blob)
            if self._warming.is_leaving(command.model):
                raise Conflict(f"{command.model} is leaving this engine", field="model")
            if self._warming.is_coming(command.model):
                return self._admission.await_model(command, pictures)
            row = self._admission.take(command, pictures)
        except Exception as error:  # noqa: BLE001 - the other rows go on
            self._refuse(command.row, error)
        else:
            if row is not None:
                self._begin(row)

    def _park(self, name: str) -> None:
        """Hand a row back as it is. Not one that is through: its answer comes, or has come."""
        if (row := self._rows.get(name) or self._reading.get(name)) is not None:
            parked, raw = park(row)
        elif name in self._admission:
            parked, raw = RowParked(name, 0, 0, 0.0), b""
        else:
            return
        self._drop(name)
        self._send(parked, raw)

    def _settle_in(self, settled: Iterable[tuple[RunRow, Row | Exception]]) -> None:
        """Begin the rows that wait no longer; refuse those that waited in vain."""
        for command, outcome in settled:
            if isinstance(outcome, Exception):
                self._refuse(command.row, outcome)
            else:
                self._begin(outcome)

    def _begin(self, row: Row) -> None:
        if not self._reading.put(row):
            self._start(row)
        self.accounts.changed()

    def _settle_read(self) -> None:
        """Begin the rows whose prompts were read, or tell why not."""
        for row, refused in self._reading.settled():
            if refused is None:
                self._start(row)
            else:
                self._drop(row.command.row)
                self._send(refused)

    def _start(self, row: Row) -> None:
        command = row.command
        self._rows[command.row] = row
        self._add(row, self._sizes.find(row.model, command.width, command.height).curve)
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
        if self._swaps.step():
            self.accounts.changed()

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
        """Those that are read, step, or are decoded."""
        return [*self._reading.rows(), *self._rows.values(), *self._decoding.rows()]

    def _look(self, *, is_idle: bool) -> None:
        """Look at the ledger now and then, for those who ask how much is used."""
        now = time.perf_counter()
        if is_idle or now - self._looked_s >= limits.LEDGER_LOOKED_AT_S:
            self._looked_s, lines = now, self.accounts.lines()
            lies = self._models.blocks.seen() or Fragmentation(0, 0)
            self._state = Heartbeat(0, 0, lines, self.accounts.staged, lies.free, lies.largest)

    def _clock(self) -> float:
        """Seconds, read when a GPU has done all it was given: or a row pays for another's work.

        A fault of the GPU itself shows here, and ends the process: what it holds is lost anyway.
        """
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # the thread's: not all of them
        return time.perf_counter()

    def _fail(self, row: str, reason: str, *, retryable: bool, short: int = 0) -> None:
        self._drop(row)
        self._send(RowFailed(row, reason, retryable, short))

    def _refuse(self, row: str, error: Exception) -> None:
        """A wrong request or file is wrong at the next attempt, too; what is full may have room."""
        is_wrong = isinstance(error, CallerError | OperatorError)
        retryable = not is_wrong or isinstance(error, TooMany | Conflict)
        self._fail(row, said(error), retryable=retryable, short=short_of(error))

    def _drop(self, row: str) -> None:
        self._policy.drop(row)
        self._admission.drop(row)
        self._reading.drop(row)
        self._rows.pop(row, None)
        self._models.release(row)
        self.accounts.changed()


def _preview_due(row: Row) -> int:
    """Of the step that it takes next."""
    return preview_due(row.steps_done + 1, row.steps, row.previewed)
