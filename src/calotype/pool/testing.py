"""A fake engine: the same protocol over the same socket, no torch, flat pictures.

For tests of everything that talks to engines, and run beside the real one by the same contract
tests. ``python -m calotype.pool.testing --fd N``. Words in a row's prompt make it misbehave:

- ``crash``: exit with code 9 after the first step
- ``hang``: no more heartbeats, and no more of anything, after the first step
- ``stick``: heartbeats, but no more steps, after the first one
- ``forget``: heartbeats and other rows' steps, but nothing ever comes of this row
- ``drop``: its model is unloaded after the first step, though nobody said so
- ``fail``, ``fail-for-good``: RowFailed after the first step, retryable or not
- ``bulky``: RowFailed for want of room, unless its model is the only one there
- ``garbage``: bytes that are no frame
- ``preview``: 64 KiB of preview with every step
- ``doubtful``, ``offending``: its checks score 0.4, or 0.9, in place of 0
- ``unproven``: its checks' answers name versions that nobody knows
- ``slow``: from the next row on, every step takes ten times as long

A version of a check whose folder has a file ``broken`` in it fails its proof, one with ``full``
finds no room, one with ``crash`` ends the engine, and one with ``hang`` is never done.
A row that is handed back is the number of its steps, in digits. One that brings a source gives it
back as its picture, after its share of the steps.
``CALOTYPE_FAKE_STEP_S`` is a step's time in seconds (0.001). A model can be "loaded" if its folder
has a model_index.json; one with a file named ``crash`` in it ends the engine instead, and
one with ``full`` finds no room when it is read. It takes
``CALOTYPE_FAKE_LOAD_S`` seconds (0), in which rows go on. With a budget
(CALOTYPE_ENGINE_MEMORY_BYTES) it counts bytes by components, and refuses what doesn't fit. Copies
in host memory (CALOTYPE_ENGINE_STAGING_BYTES) it counts in the same way; from one a load takes a
tenth of the time. With CALOTYPE_ENGINE_ARENA=1 its memory is in blocks that don't move, of which it
tells.
"""

from __future__ import annotations

import argparse
import os
import queue
import socket
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from calotype.core import frames, limits, messages
from calotype.core.frames import BLOB_HEAD_BYTES, HEAD_BYTES
from calotype.core.messages import (
    CancelRow,
    CheckSettled,
    DropCopy,
    EngineReady,
    Heartbeat,
    LoadModel,
    LoadProgress,
    MemoryLies,
    Message,
    ModelFailed,
    ModelLoaded,
    ModelUnloaded,
    ParkRow,
    RowDone,
    RowFailed,
    RowParked,
    RowStarted,
    RunRow,
    StepDone,
    Stop,
    UnloadModel,
    UseChecks,
)
from calotype.core.picture_checks import CheckUse
from calotype.policy.arena import Arena

CRASH_CODE = 9
PREVIEW_BYTES = 64 * 1024


@dataclass(frozen=True)
class _Loaded:
    """The time that a load takes is over."""

    load: LoadModel


@dataclass
class _Row:
    command: RunRow
    blob: bytes
    step: int = 0

    @property
    def steps(self) -> int:
        run = self.command
        return run.steps if run.source is None else int(run.steps * run.strength)

    @property
    def pixels(self) -> bytes:
        run = self.command
        if run.source is None:
            return bytes([run.seed % 256]) * (run.width * run.height * 3)
        sizes = _sizes(run)
        begin = sum(sizes[: run.source])
        return self.blob[begin : begin + sizes[run.source]]


class FakeEngine:
    """One process's engine: a thread reads commands, one beats, and ``run`` steps the rows."""

    def __init__(self, wire: socket.socket, step_s: float) -> None:
        self._wire = wire
        self._writing = threading.Lock()
        self._commands: queue.Queue[tuple[Message | _Loaded | None, bytes]] = queue.Queue()
        self._is_hanging = threading.Event()  # doesn't beat
        self._is_stuck = threading.Event()  # doesn't step
        self._step_s = step_s
        self._models: dict[str, LoadModel] = {}
        self._budget = int(os.environ.get(messages.MEMORY_VARIABLE) or 0)
        self._staging = int(os.environ.get(messages.STAGING_VARIABLE) or 0)
        self._copies: dict[str, LoadModel] = {}
        is_torn = os.environ.get(messages.ARENA_VARIABLE) == "1"
        self._arena = Arena(self._budget) if is_torn else None
        self._load_s = float(os.environ.get("CALOTYPE_FAKE_LOAD_S", "0"))
        self._uses: dict[str, tuple[CheckUse, ...]] = {}  # checks, by model, as they were loaded
        self._checks: dict[str, CheckUse] = {}  # in force, by name
        self._rows: dict[str, _Row] = {}
        self._steps = 0

    def run(self) -> None:
        """Until Stop, or until the socket is closed."""
        self._send(EngineReady(os.getpid(), "cpu", "none", self._budget, self._staging))
        for work in (self._read, self._beat):
            threading.Thread(target=work, daemon=True).start()
        while self._take_commands():
            for row in list(self._rows.values()):
                self._step(row)

    def _take_commands(self) -> bool:
        """Carry out what has come; wait for more when there is nothing to do. False: the end."""
        while not (self._rows and self._commands.empty()):
            command, blob = self._commands.get()
            match command:
                case None | Stop():
                    return False
                case LoadModel() as load:
                    self._load(load)
                case UnloadModel() as unload:
                    self._unload(unload)
                case DropCopy(name=name):
                    self._copies.pop(name, None)
                case UseChecks() as asked:
                    self._use_checks(asked)
                case RunRow() as run:
                    self._begin(run, blob)
                case ParkRow(row=name):
                    self._park(name)
                case _Loaded(load=load):
                    self._loaded(load)
                case CancelRow() as cancel:
                    self._rows.pop(cancel.row, None)
        return True

    def _load(self, load: LoadModel) -> None:
        if not (Path(load.path) / "model_index.json").is_file():
            self._send(ModelFailed(load.name, f"{load.path} has no model_index.json"))
            return
        if (Path(load.path) / "crash").exists():
            os._exit(CRASH_CODE)
        if load_s := self._load_s * (0.1 if load.name in self._copies else 1.0):
            self._send(LoadProgress(load.name, 0, _bytes([load])))
            timer = threading.Timer(load_s, self._commands.put, [(_Loaded(load), b"")])
            timer.daemon = True
            timer.start()
        else:
            self._loaded(load)

    def _unload(self, unload: UnloadModel) -> None:
        load = self._models.pop(unload.name, None)
        is_staged = unload.stage and load is not None
        if is_staged and load is not None:
            is_staged = _bytes([*self._copies.values(), load]) <= self._staging
            self._copies |= {load.name: load} if is_staged else {}
        why_not = "" if is_staged or not unload.stage else "there is no room for a copy"
        self._lie()
        self._send(ModelUnloaded(unload.name, is_staged, why_not))

    def _lie(self) -> bool:
        """Have blocks for what is loaded, and tell of them; False if something finds none."""
        if self._arena is None:
            return True
        is_whole = self._arena.hold(_parts([*self._models.values()]))
        memory, lies = self._arena.fragmentation, self._arena.settled()
        settled = [it for it, load in self._models.items() if _parts([load]).keys() <= {*lies}]
        self._send(MemoryLies(memory.free, memory.largest, tuple(settled)))
        return is_whole

    def _loaded(self, load: LoadModel) -> None:
        copy = self._copies.pop(load.name, None)
        needed = _bytes([*self._models.values(), load])
        has_no_room = (Path(load.path) / "full").exists()
        if has_no_room or (self._budget and needed > self._budget):
            self._send(ModelFailed(load.name, f"{needed} bytes are needed", is_full=True))
            return
        self._models[load.name] = load
        if not self._lie():
            del self._models[load.name]
            self._lie()
            self._send(ModelFailed(load.name, "no block is large enough", is_full=True))
            return
        self._uses[load.name] = load.checks
        for use in load.checks:
            self._checks.setdefault(use.name, use)
        staged, load_s = (0, self._load_s) if copy is None else (_bytes([copy]), self._load_s / 10)
        self._send(ModelLoaded(load.name, load_s, _bytes([load]), (1,), staged=staged))

    def _begin(self, run: RunRow, blob: bytes) -> None:
        if run.model not in self._models:
            self._send(RowFailed(run.row, f"model {run.model!r} isn't loaded", retryable=True))
            return
        if sum(_sizes(run)) != len(blob):
            self._send(RowFailed(run.row, "other pictures than it names", retryable=False))
            return
        if "forget" in run.prompt.split():
            return
        if "bulky" in run.prompt.split() and len(self._models) > 1:
            self._send(RowFailed(run.row, "its adapters lack a byte", True, short_bytes=1))
            return
        parked = blob[len(blob) - run.parked_bytes :]
        self._rows[run.row] = _Row(run, blob, int(parked or b"0"))
        self._send(RowStarted(run.row))

    def _park(self, name: str) -> None:
        if (row := self._rows.pop(name, None)) is not None:
            device_s = row.step * self._step_s
            parked = str(row.step).encode() if row.step else b""
            self._send(RowParked(name, row.step, row.steps, device_s), parked)

    def _step(self, row: _Row) -> None:
        time.sleep(self._step_s)
        run, words = row.command, row.command.prompt.split()
        row.step += 1
        self._steps += 1
        preview = bytes(PREVIEW_BYTES) if "preview" in words else b""
        self._send(StepDone(run.row, row.step, row.steps), preview)
        self._misbehave(run, words)
        if row.step >= row.steps and run.row in self._rows:
            del self._rows[run.row]
            device_s = row.steps * self._step_s
            if "slow" in words:
                self._step_s *= 10
            scores = {"finite": 1.0} | self._scored(run.model, words)
            done = RowDone(run.row, run.width, run.height, scores, device_s)
            self._send(replace(done, builds=self._builds(run.model, words)), row.pixels)
            print(f"done {run.row}", file=sys.stderr, flush=True)

    def _scored(self, model: str, words: list[str]) -> dict[str, float]:
        """What each of the model's checks would say."""
        said = 0.9 if "offending" in words else 0.4 if "doubtful" in words else 0.0
        uses = self._uses[model]
        return {use.score_name(label): said for use in uses for label in use.labels}

    def _builds(self, model: str, words: list[str]) -> dict[str, str]:
        """Which version of each would say it."""
        every = {use.name: self._checks[use.name].build for use in self._uses[model]}
        return dict.fromkeys(every, "0" * 16) if "unproven" in words else every

    def _use_checks(self, asked: UseChecks) -> None:
        for use in asked.checks:
            faults = {it.name for it in Path(use.path).glob("*")}
            current = self._checks.get(use.name)
            if "crash" in faults:
                os._exit(CRASH_CODE)
            if current is None or current == use:
                self._send(CheckSettled(use.name, use.build, current.build if current else ""))
            elif "broken" in faults or "full" in faults:
                why_not = "it is broken" if "broken" in faults else "there is no room"
                settled = CheckSettled(use.name, use.build, current.build, why_not)
                self._send(replace(settled, is_full="full" in faults))
            elif "hang" not in faults:
                self._checks[use.name] = use
                self._send(CheckSettled(use.name, use.build, use.build))

    def _misbehave(self, run: RunRow, words: list[str]) -> None:
        if "crash" in words:
            print("crashing as told", file=sys.stderr, flush=True)
            os._exit(CRASH_CODE)
        if "hang" in words:
            self._is_hanging.set()
        if "hang" in words or "stick" in words:
            self._is_stuck.set()
            threading.Event().wait()
        if "garbage" in words:
            self._wire.sendall(b"\0\0\0\2[]" + bytes(BLOB_HEAD_BYTES))
        if "drop" in words and self._models.pop(run.model, None) is not None:
            self._send(ModelUnloaded(run.model))
        if "fail" in words or "fail-for-good" in words:
            del self._rows[run.row]
            self._send(RowFailed(run.row, "failed as told", "fail" in words))

    def _beat(self) -> None:
        every_s = float(os.environ.get(messages.HEARTBEAT_VARIABLE, limits.HEARTBEAT_S))
        while not self._is_hanging.wait(every_s):
            held = {"weights": _bytes([*self._models.values()])}
            staged = _bytes([*self._copies.values()])
            self._send(Heartbeat(len(self._rows), self._steps, held, staged))

    def _send(self, message: Message, blob: bytes = b"") -> None:
        with self._writing:
            try:
                self._wire.sendall(frames.encode(message, blob))
            except OSError:  # nobody is there any more
                os._exit(0)

    def _read(self) -> None:
        with self._wire.makefile("rb") as stream:
            while head := stream.read(HEAD_BYTES):
                body = stream.read(frames.head_length(head))
                blob = stream.read(frames.blob_length(stream.read(BLOB_HEAD_BYTES)))
                self._commands.put((frames.decode(body), blob))
        self._commands.put((None, b""))
        if self._is_stuck.is_set():  # run() doesn't listen; leave nothing behind
            os._exit(0)


def _bytes(loads: list[LoadModel]) -> int:
    """Of these models' components, each once."""
    return sum(_parts(loads).values())


def _parts(loads: list[LoadModel]) -> dict[str, int]:
    """The same, each by its content."""
    return {part.id: part.bytes for load in loads for part in load.components}


def _sizes(run: RunRow) -> list[int]:
    """Bytes of each of the row's pictures, and of what another engine had done of it."""
    pictures = [each.width * each.height * each.channels for each in run.pictures]
    return [*pictures, run.parked_bytes]


def main() -> None:
    """Run on the socket whose file descriptor is given."""
    parser = argparse.ArgumentParser(description="A fake engine, for tests")
    parser.add_argument("--fd", type=int, required=True)
    step_s = float(os.environ.get("CALOTYPE_FAKE_STEP_S", "0.001"))
    FakeEngine(socket.socket(fileno=parser.parse_args().fd), step_s).run()


if __name__ == "__main__":
    main()
