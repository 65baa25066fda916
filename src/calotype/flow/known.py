"""What models need: their components, how long a load takes, what a pass takes beside the weights.

It begins with what the registry reads from headers and a guess, and is put right by every load that
an engine measured; that is kept over a restart, for as long as the model is the same build.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calotype.core.events import ModelKnown
from calotype.core.nouns import AdapterInfo, AdapterKind, ModelInfo, Reserve
from calotype.policy.ledger import Ledger, no_room, with_adapters
from calotype.pool.components import number_bytes
from calotype.pool.reports import EngineHealth, Measured

NOTE = "models"  # the name of the store's note
_BYTES_PER_S = 400e6  # from disk, before one load was measured ...
_PROOF_S = 5.0  # ... and what comes after the reading
_FADING = 0.5  # weight of the newest measurement against what was known


@dataclass(frozen=True)
class _Learnt:
    """Of one build of a model."""

    build: str
    load_s: float  # from disk
    room_bytes: int
    staged_load_s: float | None = None  # from a copy in host memory


class Known:
    """By model; told to the line whenever it is news."""

    def __init__(self, kept: Mapping[str, Any] | None = None) -> None:
        """Start afresh, or from what ``kept`` gave before a restart."""
        self._learnt = {name: _Learnt(*values) for name, values in (kept or {}).items()}
        self._told: dict[str, ModelKnown] = {}

    def of(self, model: ModelInfo) -> ModelKnown:
        """What is known of it now."""
        learnt = self._learnt.get(model.name)
        if learnt is None or learnt.build != model.build:
            whole = sum({part.id: part.bytes for part in model.parts}.values())
            return ModelKnown(model.name, model.parts, round(whole / _BYTES_PER_S + _PROOF_S, 3))
        return ModelKnown(
            model.name, model.parts, learnt.load_s, learnt.staged_load_s, learnt.room_bytes
        )

    def news(self, models: Iterable[ModelInfo]) -> list[ModelKnown]:
        """What the line hasn't been told yet of these; it counts as told from now on."""
        found = [known for known in map(self.of, models) if self._told.get(known.model) != known]
        self._told.update((known.model, known) for known in found)
        return found

    def learn(self, model: ModelInfo, measured: Measured) -> None:
        """An engine loaded it: from a copy in host memory, if most of its bytes came from there."""
        before = self._learnt.get(model.name)
        if before is None or before.build != model.build:
            before = None
        load_s, staged_s = (before.load_s, before.staged_load_s) if before else (None, None)
        if 2 * measured.staged > measured.bytes:
            staged_s = _mixed(staged_s, measured.load_s)
        else:
            load_s = _mixed(load_s, measured.load_s)
        if load_s is None:
            load_s = self.of(model).load_s
        self._learnt[model.name] = _Learnt(model.build, load_s, measured.room_bytes, staged_s)

    def forget(self, model: str) -> None:
        """It is no longer there."""
        self._learnt.pop(model, None)
        self._told.pop(model, None)

    def names(self) -> list[str]:
        """All that something was learnt or told of."""
        return [*dict.fromkeys((*self._told, *self._learnt))]

    def kept(self) -> dict[str, Any]:
        """What was learnt, as JSON, to keep over a restart."""
        return {
            name: [one.build, one.load_s, one.room_bytes, one.staged_load_s]
            for name, one in self._learnt.items()
        }

    def check(
        self,
        model: ModelInfo,
        engines: Iterable[EngineHealth],
        adapters: Sequence[AdapterInfo] = (),
    ) -> None:
        """Raise NoRoom, with the arithmetic, for a model that none of these could ever hold.

        It has to fit beside what is pinned there, and with all of its ``adapters``. An engine that
        hasn't said yet how much memory it has, or names none, may hold anything.
        """
        devices = []
        for engine in engines:
            if not engine.budget_bytes:
                return
            devices.append((engine.name, self._with_all(model, engine, adapters)))
        what = " with ".join((model.name, *(adapter.name for adapter in adapters)))
        if refusal := no_room(what, devices):
            raise refusal

    def _with_all(
        self, model: ModelInfo, engine: EngineHealth, adapters: Sequence[AdapterInfo]
    ) -> Ledger:
        """The model with these on this engine, beside what is pinned there."""
        wanted = lines_of(model, adapters, [engine.device or "cpu"])
        pinned = [self._told[name] for name in engine.pinned if name in self._told]
        models = [*pinned, self.of(model)]
        return with_adapters(engine.budget_bytes, engine.reserves, models, wanted)


def lines_of(
    model: ModelInfo, adapters: Iterable[AdapterInfo], devices: Iterable[str]
) -> tuple[Reserve, ...]:
    """What a job's adapters take beside its model, in bytes, by line of an engine's ledger.

    Of these ``devices`` ("cpu", "cuda:0") as on the one whose numbers are widest; none: a CPU.
    """
    wide = max((number_bytes(model.dtype, each) for each in devices), default=0)
    wide = wide or number_bytes(model.dtype, "cpu")
    taken: dict[str, int] = {}
    for each in adapters:
        line = "loras" if each.kind is AdapterKind.LORA else "controls"
        taken[line] = taken.get(line, 0) + wide * each.parameters
    return tuple(Reserve(name, count) for name, count in taken.items() if count)


def _mixed(known_s: float | None, measured_s: float) -> float:
    if known_s is None:
        return round(measured_s, 3)
    return round(known_s + _FADING * (measured_s - known_s), 3)
