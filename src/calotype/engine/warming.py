"""Models on their way in and out, one after the other, while rows go on stepping.

Files are read in a thread, and copies in host memory are made there. What is then found out about a
model (its batch sizes proven, its previews fitted) takes passes, so it takes turns with the rows,
as one for the batch policy. A model leaves once no row needs it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from calotype.core import limits
from calotype.core.cost import Curve
from calotype.core.errors import CalotypeError, Conflict, TooMany
from calotype.core.messages import (
    DropCopy,
    LoadModel,
    LoadProgress,
    MemoryLies,
    Message,
    ModelFailed,
    ModelLoaded,
    ModelUnloaded,
    UnloadModel,
)
from calotype.core.nouns import TIER_WEIGHTS, Tier
from calotype.engine.buckets import Work
from calotype.engine.families.base import Model
from calotype.engine.memory import is_out_of_memory
from calotype.engine.resident import Models, tidy
from calotype.engine.room import Room
from calotype.policy.batch import BatchPolicy, RowAdded

Command = LoadModel | UnloadModel | DropCopy

_TURN_S = 0.05  # what a part of the work is taken to need, until one was seen
_WEIGHT = TIER_WEIGHTS[Tier.FAST]  # of its turns


@dataclass
class _Load:
    """A model that is coming: read in the thread, then worked on."""

    command: LoadModel
    begun_s: float
    needs: int  # bytes that are kept free for it
    reading: Future[Model] | None = None  # None: only what is merged into it changes
    work: Work[ModelLoaded] | None = None
    turn_s: float = _TURN_S


class Warming:
    """All methods are for the loop's thread, in inference mode."""

    def __init__(
        self,
        models: Models,
        policy: BatchPolicy,
        room: Room,
        *,
        device: torch.device,
        send: Callable[[Message], None],
        is_used: Callable[[str], bool],
        wake: Callable[[], None],
    ) -> None:
        """``is_used`` says whether rows need a model; ``wake`` and ``send`` are called from a
        thread, when there is something to ``step``, and with LoadProgress."""
        self._models, self._policy, self._room, self._device = models, policy, room, device
        self._send, self._is_used, self._wake = send, is_used, wake
        self._thread = ThreadPoolExecutor(1, "models")  # starts its thread with the first job
        self._asked: deque[Command] = deque()
        self._load: _Load | None = None
        self._copying: Future[str] | None = None  # of the model that leaves next
        self._told_s = 0.0
        self._is_untidy = False  # what failed lies about
        room.is_left = lambda: any(isinstance(it, UnloadModel) for it in self._asked)

    @property
    def bytes(self) -> int:
        """That are kept free for a model which isn't counted as held yet."""
        return self._load.needs if self._load else 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is on its way."""
        return not self._asked and self._load is None

    def ask(self, command: Command) -> None:
        """Load or unload, or drop a copy, after what was asked before."""
        self._asked.append(command)

    def is_coming(self, name: str) -> bool:
        """Whether a row of this model does well to wait for it."""
        if (
            self._load is not None
            and self._load.command.name == name
            and not self._is_leaving(name)
        ):
            return True
        moves = (it for it in reversed(self._asked) if not isinstance(it, DropCopy))
        last = next((it for it in moves if it.name == name), None)
        return isinstance(last, LoadModel)

    def is_leaving(self, name: str) -> bool:
        """Whether no further row of this model may begin."""
        return self._is_leaving(name) and not self.is_coming(name)

    def is_turn(self, name: str) -> bool:
        """Whether that is the work on a model, and no row."""
        return self._load is not None and name == _turn_of(self._load.command)

    def step(self) -> list[str]:
        """Begin what can be begun, take in what was read; models that came or failed meanwhile."""
        settled = []
        if self._is_untidy:  # not in the moment of a failure: its traceback holds the model
            self._is_untidy = False
            tidy(self._device)
        while self._load is None and self._asked:
            command = self._asked[0]
            if self._must_wait(command):
                break
            self._asked.popleft()
            if isinstance(command, UnloadModel):
                self._unload(command)
            elif isinstance(command, DropCopy):
                self._models.staging.drop(command.name)
                tidy(self._device)
            elif not self._begin(command):
                settled.append(command.name)
        if (name := self._take_in()) is not None:
            settled.append(name)
        return settled

    def turn(self) -> str | None:
        """Do a part of the work; the model's name if that was the last."""
        load = self._load
        assert load is not None, "a turn of nothing"
        assert load.work is not None, "a turn too early"
        begun_s = time.perf_counter()
        try:
            next(load.work)
        except StopIteration as end:
            return self._end(replace(end.value, seconds=time.perf_counter() - load.begun_s))
        except Exception as error:  # noqa: BLE001 - e.g. out of memory; the reason is reported
            return self._fail(error)
        self._price(load, time.perf_counter() - begun_s)
        return None

    def wait(self) -> None:
        """Until what is being read is there."""
        if self._load is not None and self._load.reading is not None:
            self._load.reading.exception()
        elif self._copying is not None:
            self._copying.exception()

    def _must_wait(self, command: Command) -> bool:
        """Whether rows need a model that is to leave, or to make way for another of its name.

        Or, once it may leave, whether its copy isn't made yet.
        """
        name = command.name
        if isinstance(command, DropCopy):
            return False
        if isinstance(command, LoadModel) and self._models.is_only_merged(command):
            return False  # refused, then
        if name in self._models and self._is_used(name):
            return True
        return isinstance(command, UnloadModel) and command.stage and not self._is_copied(name)

    def _is_copied(self, name: str) -> bool:
        if self._copying is None:
            self._copying = self._thread.submit(self._models.stage, name)
            self._copying.add_done_callback(lambda _: self._wake())
        return self._copying.done()

    def _unload(self, command: UnloadModel) -> None:
        copying, self._copying = self._copying, None
        why_not = copying.result() if copying else ""
        self._models.drop(command.name)
        is_staged = command.stage and not why_not
        self._tell_memory()
        self._send(ModelUnloaded(command.name, is_staged, why_not))

    def _begin(self, command: LoadModel) -> bool:
        needs = self._models.needs_bytes(command)
        self._load = _Load(command, time.perf_counter(), needs=0)
        if self._models.is_only_merged(command) and self._is_used(command.name):
            self._fail(Conflict(f"{command.name} has rows: nothing can be merged into it now"))
            return False
        if not self._room.make(needs):
            self._fail(self._room.refusal(command.name, needs))
            return False
        if not self._models.lay(command):
            self._fail(_no_block(command, self._models.lies()))
            return False
        self._load.needs = needs
        if not self._models.is_only_merged(command):
            future = self._thread.submit(self._models.read, command, self._progress)
            future.add_done_callback(lambda _: self._wake())
            self._load.reading = future
        return True

    def _take_in(self) -> str | None:
        """Begin to work on what was read; the model's name if it couldn't be."""
        load = self._load
        if load is None or load.work is not None or (load.reading and not load.reading.done()):
            return None
        try:
            model = load.reading.result() if load.reading else None
        except Exception as error:  # noqa: BLE001 - the reason is reported
            return self._fail(error)
        load.reading = None
        if model is not None:
            load.needs = max(load.needs, self._models.new_bytes(model))
            if not self._room.make(0):
                return self._fail(self._room.refusal(load.command.name, load.needs))
        load.work = self._models.take_in(load.command, model)
        self._policy.add(_row(load))
        return None

    def _price(self, load: _Load, seconds: float) -> None:
        """Have the work's turns cost what they take, in the currency of the rows'."""
        if 0.5 < seconds / load.turn_s < 2.0:
            return
        load.turn_s = max(seconds, 1e-6)
        self._policy.drop(_turn_of(load.command))
        self._policy.add(_row(load))

    def _fail(self, error: Exception) -> str:
        said = (
            error.detail if isinstance(error, CalotypeError) else f"{type(error).__name__}: {error}"
        )
        assert self._load is not None
        is_full = isinstance(error, TooMany) or is_out_of_memory(error)
        return self._end(ModelFailed(self._load.command.name, said[:500], is_full=is_full))

    def _end(self, answer: ModelLoaded | ModelFailed) -> str:
        assert self._load is not None
        self._policy.drop(_turn_of(self._load.command))
        self._models.staging.drop(answer.name)  # it is here now; or its copy is of no use
        self._load, self._is_untidy = None, isinstance(answer, ModelFailed)
        self._models.lay()
        self._tell_memory()
        self._send(answer)
        return answer.name

    def _tell_memory(self) -> None:
        if (lies := self._models.lies()) is not None:
            self._send(lies)

    def _progress(self, done: int, total: int) -> None:
        """Told in the reading threads, for each piece: a few of them are enough to tell."""
        load, now = self._load, time.perf_counter()
        if load is not None and (now - self._told_s >= limits.LOAD_TOLD_S or done == total):
            self._told_s = now
            self._send(LoadProgress(load.command.name, done, total))

    def _is_leaving(self, name: str) -> bool:
        return any(isinstance(it, UnloadModel) and it.name == name for it in self._asked)


def _no_block(command: LoadModel, lies: MemoryLies | None) -> TooMany:
    assert lies is not None, "where no block is too small"
    most = max(part.bytes for part in command.components)
    return TooMany(
        f"{command.name} has a part of {most:,} bytes, and of {lies.free:,} that are free the "
        f"largest block has {lies.largest:,}",
        limit=lies.largest,
    )


def _row(load: _Load) -> RowAdded:
    name = _turn_of(load.command)
    return RowAdded(name, name, 1, _WEIGHT, Curve((1,), (load.turn_s,)))


def _turn_of(command: LoadModel) -> str:
    return f"work on {command.name}"
