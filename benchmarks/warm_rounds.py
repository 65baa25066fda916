"""``python -m benchmarks.warm_rounds``: an engine's ledger against its tensors, whatever happens.

Each round is one of: load a model (unloading others where there is no room), unload one, drop a
copy, ask for some pictures, have a pass or a decode run out of memory, shrink the budget for a
while, kill the engine. Every other engine that is started has host memory for copies: what leaves
it may leave one, and is loaded from there again. After each round, and in the middle of pictures
(but not of the proof of a size), what the ledger and the copies' line say is kept has to be exactly
the bytes of all tensors that are alive; neither budget may be passed; and every picture that was
asked for has to come in the end. The same seed gives the same rounds, but for decodes, which are a
thread's.
"""

from __future__ import annotations

import gc
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import typer

from calotype.cli.console import print_table, say_error
from calotype.core.messages import (
    DropCopy,
    LoadModel,
    MemoryShort,
    Message,
    ModelFailed,
    ModelLoaded,
    ModelUnloaded,
    RowDone,
    RowFailed,
    RunRow,
    UnloadModel,
)
from calotype.core.nouns import Component
from calotype.engine.accounts import STAGED
from calotype.engine.loop import Engine
from calotype.engine.room import Room
from calotype.engine.tensors import bytes_of
from tests.rooms.engine_models import CPU, make_model

FAMILIES = ("sd15", "sdxl", "sd3-no-t5")
SIZES = ((64, 64), (80, 64))
ROUNDS = {  # how often
    "load": 5,
    "unload": 2,
    "forget": 1,
    "pictures": 8,
    "out": 4,
    "shrink": 2,
    "kill": 1,
}
TRIES_MAX = 20  # of one picture
_STAGED = 0.8  # of models that leave, those that are to leave a copy where there is a budget


class Unequal(AssertionError):
    """The ledger isn't what is alive."""


@dataclass
class Tally:
    """What happened."""

    rounds: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    done: int = 0
    checks: int = 0  # of ledger against tensors
    short: int = 0  # passes that were made smaller
    full: int = 0  # loads that found no room
    copies: int = 0  # that were kept of models that left
    copied: int = 0  # loads from them
    most: int = 0  # bytes that were alive between passes, at most, but for copies
    budget: int = 0  # bytes
    most_staged: int = 0  # the same two of copies
    staging: int = 0


class Meter:
    """Bytes of all tensors that were made since it was."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()  # what is there already is looked at no more

    def bytes(self) -> int:
        """That are alive now."""
        gc.collect()
        return bytes_of(it for it in gc.get_objects() if isinstance(it, torch.Tensor))

    def close(self) -> None:
        """Let the collector look at everything again."""
        gc.unfreeze()


class Rounds:
    """An engine that is treated badly."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - the same rounds each time
        self.tally = Tally()
        self._folder = folder
        self._loads = {name: _load(name, folder) for name in FAMILIES}
        self._heard: list[Message] = []
        self._waiting: dict[str, tuple[RunRow, int]] = {}  # pictures that have yet to come
        self._held: list[str] = []  # of them, those that this engine has
        self._meter = Meter()
        self._room = Room()
        self._engine = self._started()
        self._load_two()

    def run(self, count: int) -> Tally:
        """So many rounds, then all that is left; raises Unequal, or AssertionError."""
        try:
            self._run(count)
        finally:
            self._meter.close()
        return self.tally

    def _run(self, count: int) -> None:
        for _ in range(count):
            (kind,) = self.chance.choices([*ROUNDS], [*ROUNDS.values()])
            self.tally.rounds[kind] += 1
            getattr(self, f"_{kind}")()
            self._check()
        self._finish()
        assert not self._waiting, f"{len(self._waiting)} pictures never came"
        self._engine.close()

    # The rounds.

    def _load(self) -> None:
        name = self.chance.choice(FAMILIES)
        if name in self._engine._models:
            return
        self._settle()
        while True:
            self._engine.load(self._loads[name])
            (said,) = [it for it in self._heard if isinstance(it, ModelLoaded | ModelFailed)][-1:]
            if isinstance(said, ModelLoaded):
                self.tally.copied += said.staged > 0
                return
            assert said.is_full, said
            self.tally.full += 1
            here = [model.name for model in self._engine._models]
            assert here, f"there is no room for {name} alone: {said.reason}"
            self._drop(self.chance.choice(here))

    def _unload(self) -> None:
        if here := [model.name for model in self._engine._models]:
            self._drop(self.chance.choice(here))

    def _forget(self) -> None:
        """The copy of a model, if there is one."""
        self._engine.handle(DropCopy(self.chance.choice(FAMILIES)))
        self._settle()

    def _pictures(self) -> None:
        here = [model.name for model in self._engine._models]
        for _ in range(self.chance.randint(1, 6) if here else 0):
            self.tally.asked += 1
            name, model = f"row {self.tally.asked}", self.chance.choice(here)
            width, height = self.chance.choice(SIZES)
            self._waiting[name] = (
                RunRow(
                    row=name,
                    model=model,
                    prompt=self.chance.choice(("a red house", "a boat", "snow on the sea")),
                    negative_prompt="",
                    width=width,
                    height=height,
                    steps=self.chance.randint(1, 3),
                    guidance=self.chance.choice((1.0, 5.0)),
                    sampler=self.chance.choice(self._engine._models.get(model).samplers),
                    seed=self.tally.asked,
                    tier=self.chance.choice(("turbo", "fast", "relax")),
                ),
                0,
            )
        self._ask()
        for _ in range(self.chance.randint(0, 8)):
            self._tick()

    def _out(self) -> None:
        """The next pass, or the next decode, finds no memory."""
        self._pictures()
        models = [*self._engine._models]
        if not models:
            return
        part = self.chance.choice(("denoise", "decode"))
        with out_of_memory(models, part, self.chance.randint(1, 2)):
            for _ in range(4):
                self._tick()
            self._engine.settle()

    def _shrink(self) -> None:
        """Somebody else takes memory for a while: no pass but the smallest has room."""
        self._pictures()
        before, ledger = self._room.budget, self._engine.accounts.ledger()
        spare = self.chance.choice((0, ledger.largest_pass // 4, ledger.largest_pass // 2))
        self._room.budget = min(before, ledger.kept + ledger.decode + spare)
        for _ in range(4):
            self._tick()
        self._engine.settle()
        self._room.budget = before

    def _kill(self) -> None:
        """All that it held is gone; whoever asked asks again."""
        self._engine.close()
        self._engine = self._started()
        for name in self._held:
            self._waiting[name] = self._waiting[name][0], 0
        self._held.clear()
        self._load()
        self._ask()

    # What they have in common.

    def _started(self) -> Engine:
        room = Room(self._room.budget)
        self._room, staging = room, self.chance.choice((0, self.tally.staging))
        folder = self._folder / "engine"
        return Engine(self._hear, CPU, folder, room=room, staging_bytes=staging)

    def _load_two(self) -> None:
        """Find the budget: two of the models, whichever, and a pass of either."""
        needs = []
        for load in self._loads.values():
            self._engine.load(load)
            ledger = self._engine.accounts.ledger()
            needs.append((ledger.weights, ledger.largest_pass + ledger.decode))
            self._drop(load.name)
        weights = sorted(weight for weight, _ in needs)
        self.tally.budget = int(1.03 * (sum(weights[-2:]) + max(room for _, room in needs)))
        self.tally.staging = int(1.03 * sum(weights[:2]))  # of two, but not of any two
        self._engine.close()
        self._room.budget = self.tally.budget
        self._engine = self._started()
        self._check()

    def _hear(self, message: Message, blob: bytes = b"") -> None:
        del blob
        self._heard.append(message)

    def _ask(self) -> None:
        for name, (row, tries) in [*self._waiting.items()]:
            if name in self._held or row.model not in self._engine._models:
                continue
            if self._engine.rows_held >= 20:
                return
            assert tries < TRIES_MAX, f"{name} failed {tries} times"
            self._waiting[name] = row, tries + 1
            self._held.append(name)
            self._engine.handle(row)

    def _tick(self) -> None:
        self._engine.tick()
        self._absorb()

    def _absorb(self) -> None:
        heard, self._heard[:] = [*self._heard], []
        for said in heard:
            if isinstance(said, RowDone):
                del self._waiting[said.row]
                self._held.remove(said.row)
                self.tally.done += 1
            elif isinstance(said, RowFailed):
                assert said.retryable, said
                self._held.remove(said.row)
            elif isinstance(said, MemoryShort):
                self.tally.short += 1
            elif isinstance(said, ModelUnloaded):
                self.tally.copies += said.is_staged

    def _settle(self) -> None:
        """Until the engine holds no rows."""
        while self._engine.tick():
            pass
        self._engine.settle()
        self._absorb()

    def _drop(self, name: str) -> None:
        """Have a model leave, and a copy stay if there is a budget for such."""
        has_copies = self._engine._models.staging.budget > 0
        self._engine.handle(UnloadModel(name, stage=has_copies and self.chance.random() < _STAGED))
        self._settle()
        self._engine.tick()  # its last row was decoded: it leaves, or its copy is being made
        self._engine._warming.wait()
        self._settle()
        assert name not in self._engine._models, f"{name} didn't leave"

    def _finish(self) -> None:
        while self._waiting:
            before = len(self._waiting)
            for name in FAMILIES:
                if any(row.model == name for row, _ in self._waiting.values()):
                    self._settle()
                    if name not in self._engine._models:
                        for here in [model.name for model in self._engine._models]:
                            self._drop(here)  # by name: a model in hand would be alive
                        self._engine.load(self._loads[name])
                    self._ask()
                    self._settle()
            self._check()
            assert len(self._waiting) < before, "none of them comes"

    def _check(self) -> None:
        """What the ledger says is kept is what is alive, and within the budget."""
        while self._engine._admission._proofs:  # its samples are a pass's, and not kept
            self._engine.tick()
        self._engine.settle()
        self._absorb()
        held, alive = self._engine.accounts.held(), self._meter.bytes()
        if sum(held.values()) != alive:
            raise Unequal(f"{sum(held.values()) - alive:+} bytes: {held}, alive {alive}")
        tally, staged, most = self.tally, held[STAGED], self._engine._models.staging.budget
        tally.checks += 1
        tally.most = max(tally.most, alive - staged)
        tally.most_staged = max(tally.most_staged, staged)
        if alive - staged > tally.budget or staged > most:
            raise AssertionError(f"{held} are alive, of {tally.budget} and {most} for copies")


@contextmanager
def out_of_memory(models: list[Any], part: str, times: int) -> Iterator[None]:
    """The models' next ``part``s raise, so many times in all."""
    left = [times]

    def failing(run: Callable[..., Any]) -> Callable[..., Any]:
        def once(*args: Any) -> Any:
            if left[0] > 0:
                left[0] -= 1
                raise torch.OutOfMemoryError("out of memory, as told")
            return run(*args)

        return once

    for model in models:
        setattr(model, part, failing(getattr(model, part)))
    try:
        yield
    finally:
        for model in models:
            delattr(model, part)


def _load(name: str, folder: Path) -> LoadModel:
    path = make_model(name, folder / name)
    size = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
    return LoadModel(name, str(path), name, components=(Component(name, "model", size),))


def main(rounds: int = 1000, seed: int = 1) -> None:
    """So many rounds (a second each, about)."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            tally = Rounds(Path(folder), seed).run(rounds)
        except AssertionError as error:
            say_error(str(error))
            raise typer.Exit(1) from error
    print_table(
        (
            *("rounds", *ROUNDS, "pictures", "came", "passes made smaller", "loads without room"),
            *("copies kept", "loads from copies"),
        ),
        [
            (
                str(sum(tally.rounds.values())),
                *(str(tally.rounds[kind]) for kind in ROUNDS),
                str(tally.asked),
                str(tally.done),
                *map(str, (tally.short, tally.full, tally.copies, tally.copied)),
            )
        ],
        f"Ledger equal to tensors {tally.checks} times; {tally.most / 1e6:.2f} MB at most of "
        f"{tally.budget / 1e6:.2f} MB, copies {tally.most_staged / 1e6:.2f} MB of "
        f"{tally.staging / 1e6:.2f} MB",
    )


if __name__ == "__main__":
    typer.run(main)
