"""Rows on their way into the turns: their adapters are read, their size's costs found out.

A row that lacks something waits here, outside the turns of those that step: its model, if that is
being loaded (``warming``), or adapters, whose files are read in a thread (``adapters``). Proofs
take passes of the model, so they take turns with the rows: each is one for the batch policy, of the
tier of the heaviest row that waits for it. When what it lacked is there, the row is taken anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from calotype.core.cost import Curve
from calotype.core.messages import RowControl, RunRow
from calotype.core.nouns import TIER_WEIGHTS, Tier
from calotype.engine.adapters import Loader, Want
from calotype.engine.buckets import Work
from calotype.engine.controls import Controls, load_control
from calotype.engine.encodings import Encodings
from calotype.engine.families.base import Model
from calotype.engine.resident import Models
from calotype.engine.room import Room
from calotype.engine.rows import Row, row_key, start_row
from calotype.engine.sizes import Sizes
from calotype.policy.batch import BatchPolicy, RowAdded

Pictures = Sequence[torch.Tensor]


@dataclass
class _Proof:
    """Work that has turns like a row, and the rows that wait for its end."""

    work: Work[Any]
    curve: Curve
    weight: int = 0
    rows: list[str] = field(default_factory=list)


class Admission:
    """Rows that wait. All methods are for the loop's thread, in inference mode."""

    def __init__(
        self,
        models: Models,
        sizes: Sizes,
        encodings: Encodings,
        policy: BatchPolicy,
        room: Room,
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        """``wake`` is called from a thread when an adapter is read, and ``settled`` has work."""
        self._models, self._sizes, self._encodings = models, sizes, encodings
        self._policy, self._clock = policy, clock
        self.controls = Controls(room)
        room.join(self.controls.shelf)
        self._loader = Loader(wake)
        self._waiting: dict[str, tuple[RunRow, Pictures]] = {}
        self._for_model: set[str] = set()  # of the waiting, those whose model is being loaded
        self._for_room: dict[str, Model] = {}  # ... and those that came after one without room
        self._proofs: dict[str, _Proof] = {}  # by what the policy calls them

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, row: str) -> bool:
        return row in self._waiting

    def needs(self, model: str) -> bool:
        """Whether a row waits that has begun to use this model."""
        return any(
            command.model == model and row not in self._for_model
            for row, (command, _) in self._waiting.items()
        )

    def pictures(self) -> Iterator[torch.Tensor]:
        """Of all rows that wait."""
        for _, pictures in self._waiting.values():
            yield from pictures

    def await_model(self, command: RunRow, pictures: Pictures) -> None:
        """Let a row wait for its model, which is being loaded."""
        self._waiting[command.row] = command, pictures
        self._for_model.add(command.row)

    def model_settled(self, model: str) -> Iterator[tuple[RunRow, Row | Exception]]:
        """It came, or didn't: rows that waited, each ready for its first step, or why not."""
        for row, (command, _) in [*self._waiting.items()]:
            if command.model == model and row in self._for_model:
                self._for_model.discard(row)
                yield from self._again(row, None)

    def take(self, command: RunRow, pictures: Pictures) -> Row | None:
        """The row, ready for its first step; None if it waits. Raises what is wrong with it."""
        model = self._models.get(command.model)
        command = replace(command, loras=model.loras.beside(command.loras))
        if wants := self._wants(command, model):
            self._loader.ask(command.row, wants)
            self._waiting[command.row] = command, pictures
            return None
        if self._must_wait(command.row, model):
            self._waiting[command.row] = command, pictures
            self._for_room[command.row] = model
            return None
        width, height = command.width, command.height
        model.latent_shape(width, height)  # raises for a size that can't be, before it is proven
        if self._sizes.known(model, width, height) is None:
            work = self._sizes.work(model, width, height)
            self._wait(command, pictures, row_key(model, width, height), work)
            return None
        begun_s = self._clock()
        controls = self.controls.of(command.row, command.controls, model)
        row = start_row(command, model, self._encodings, pictures, controls)
        row.device_s = self._clock() - begun_s
        if unproven := row.unproven_control():
            control, proof = unproven
            self._wait(command, pictures, f"{control} at {row.key}", proof)
            return None
        model.loras.run(command.row)
        return row

    def settled(self) -> Iterator[tuple[RunRow, Row | Exception]]:
        """Rows that wait no longer for files: each ready for its first step, or why not."""
        for settled in self._loader.settle():
            yield from self._again(settled.row, settled.error)
        for row, model in [*self._for_room.items()]:
            if not self._must_wait(row, model):
                yield from self._again(row, None)

    def is_proof(self, name: str) -> bool:
        """Whether that is a proof, and no row."""
        return name in self._proofs

    def prove(self, name: str) -> Iterator[tuple[RunRow, Row | Exception]]:
        """Do a part of a proof; when it ends, what has become of the rows that waited for it."""
        proof, error = self._proofs[name], None
        try:
            next(proof.work)
        except StopIteration:
            pass
        except Exception as trouble:  # noqa: BLE001 - told to the rows that wait
            error = trouble
        else:
            return
        self._end(name)
        for row in proof.rows:
            yield from self._again(row, error)

    def drop(self, row: str) -> None:
        """A row needn't wait any more; unknown rows are ignored."""
        self.controls.release(row)
        self._loader.drop(row)
        self._for_model.discard(row)
        self._for_room.pop(row, None)
        if self._waiting.pop(row, None) is None:
            return
        for name, proof in [*self._proofs.items()]:
            if row in proof.rows:
                proof.rows.remove(row)
                if not proof.rows:
                    self._end(name)

    def _again(
        self, waited: str, error: Exception | None
    ) -> Iterator[tuple[RunRow, Row | Exception]]:
        command, pictures = self._waiting.pop(waited)
        self._for_room.pop(waited, None)
        outcome: Row | Exception | None = error
        if error is None:
            try:
                outcome = self.take(command, pictures)
            except Exception as trouble:  # noqa: BLE001 - the other rows go on
                outcome = trouble
        if outcome is not None:
            yield command, outcome

    def _wait(self, command: RunRow, pictures: Pictures, what: str, work: Work[Any]) -> None:
        """Let a row wait for a proof; one for all that need it."""
        self._waiting[command.row] = command, pictures
        name = f"proof of {what}"
        if name not in self._proofs:
            model = self._models.get(command.model)
            curve = self._sizes.turn(model, command.width, command.height)
            self._proofs[name] = _Proof(work, curve)
        proof = self._proofs[name]
        proof.rows.append(command.row)
        if (weight := TIER_WEIGHTS[Tier(command.tier)]) > proof.weight:
            proof.weight = weight
            self._policy.drop(name)
            self._policy.add(RowAdded(name, name, 1, weight, proof.curve))

    def _end(self, name: str) -> None:
        self._policy.drop(name)
        self._proofs.pop(name).work.close()

    def _must_wait(self, row: str, model: Model) -> bool:
        return model.loras.shelf.must_wait(row) or self.controls.shelf.must_wait(row)

    def _wants(self, command: RunRow, model: Model) -> list[Want]:
        """The row's adapters that have yet to be read."""
        loras = model.loras.claim(command.row, command.loras)
        return [*loras, *self._wanted_controls(command, model)]

    def _wanted_controls(self, command: RunRow, model: Model) -> Iterator[Want]:
        def want(wanted: RowControl) -> Want:
            key = self.controls.key(wanted, model)
            read, install = partial(load_control, wanted, model), partial(self.controls.put, key)
            return Want(key, read, install)

        return map(want, self.controls.claim(command.row, command.controls, model))
