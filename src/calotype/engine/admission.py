"""Rows on their way into the turns: their adapters are read, their size's costs found out.

A row that lacks something waits here, outside the turns of those that step. Files are read in a
thread (``adapters``). Proofs take passes of the model, so they take turns with the rows: each is
one for the batch policy, of the tier of the heaviest row that waits for it. When what it lacked is
there, the row is taken anew.
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
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
    ) -> None:
        """``wake`` is called from a thread when an adapter is read, and ``settled`` has work."""
        self._models, self._sizes, self._encodings = models, sizes, encodings
        self._policy, self._clock = policy, clock
        self._controls = Controls()
        self._loader = Loader(wake)
        self._waiting: dict[str, tuple[RunRow, Pictures]] = {}
        self._proofs: dict[str, _Proof] = {}  # by what the policy calls them

    @property
    def control_bytes(self) -> int:
        """Of the ControlNets that are kept."""
        return self._controls.bytes

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, row: str) -> bool:
        return row in self._waiting

    def waits_for(self, model: str) -> bool:
        """Whether a row of this model waits."""
        return any(command.model == model for command, _ in self._waiting.values())

    def take(self, command: RunRow, pictures: Pictures) -> Row | None:
        """The row, ready for its first step; None if it waits. Raises what is wrong with it."""
        model = self._models.get(command.model)
        command = replace(command, loras=model.loras.beside(command.loras))
        model.loras.use(command.row, command.loras)
        if wants := self._wants(command, model):
            self._loader.ask(command.row, wants)
            self._waiting[command.row] = command, pictures
            return None
        width, height = command.width, command.height
        model.latent_shape(width, height)  # raises for a size that can't be, before it is proven
        if self._sizes.known(model, width, height) is None:
            work = self._sizes.work(model, width, height)
            self._wait(command, pictures, row_key(model, width, height), work)
            return None
        begun_s = self._clock()
        controls = self._controls.of(command.row, command.controls, model)
        row = start_row(command, model, self._encodings, pictures, controls)
        row.device_s = self._clock() - begun_s
        if unproven := row.unproven_control():
            control, proof = unproven
            self._wait(command, pictures, f"{control} at {row.key}", proof)
            return None
        return row

    def settled(self) -> Iterator[tuple[RunRow, Row | Exception]]:
        """Rows that wait no longer for files: each ready for its first step, or why not."""
        for settled in self._loader.settle():
            yield from self._again(settled.row, settled.error)

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
        self._controls.release(row)
        self._loader.drop(row)
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

    def _wants(self, command: RunRow, model: Model) -> list[Want]:
        """The row's adapters that have yet to be read."""
        return [*model.loras.wants(command.loras), *self._wanted_controls(command, model)]

    def _wanted_controls(self, command: RunRow, model: Model) -> Iterator[Want]:
        def want(wanted: RowControl) -> Want:
            key = self._controls.key(wanted, model)
            read, install = partial(load_control, wanted, model), partial(self._controls.put, key)
            return Want(key, read, install)

        return map(want, self._controls.claim(command.row, command.controls, model))
