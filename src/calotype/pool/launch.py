"""What a keeper is given to start an engine, and what it knows of the process that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calotype.core import limits
from calotype.core.cost import CostModel, Curve
from calotype.core.messages import (
    CancelRow,
    EngineReady,
    Heartbeat,
    LoadModel,
    LoadProgress,
    MemoryLies,
    Message,
    ModelFailed,
    ModelLoaded,
    RowDone,
    RowFailed,
    RowParked,
    RowRefused,
    RowStarted,
    RunRow,
    StepDone,
)
from calotype.core.nouns import ModelInfo
from calotype.policy.arena import Fragmentation
from calotype.pool.reports import Measured


@dataclass(frozen=True)
class Pace:
    """How long the pool waits for what; the defaults are the platform's limits."""

    start_s_max: float = limits.ENGINE_START_S_MAX
    load_s_max: float = limits.ENGINE_LOAD_S_MAX
    stuck_s_max: float = limits.ENGINE_STUCK_S_MAX
    heartbeat_s: float = limits.HEARTBEAT_S
    stop_s_max: float = limits.ENGINE_STOP_S_MAX
    backoff_s_min: float = limits.ENGINE_BACKOFF_S_MIN
    backoff_s_max: float = limits.ENGINE_BACKOFF_S_MAX
    healthy_s: float = limits.ENGINE_HEALTHY_S

    @property
    def suspect_s(self) -> float:
        """Without a sign of life, until an engine is suspect."""
        return limits.HEARTBEATS_SUSPECT * self.heartbeat_s

    @property
    def dead_s(self) -> float:
        """Without a sign of life, until an engine is given up."""
        return limits.HEARTBEATS_DEAD * self.heartbeat_s

    @property
    def look_s(self) -> float:
        """Between two looks at an engine's signs of life."""
        return min(1.0, self.heartbeat_s / 4)


@dataclass(frozen=True)
class Launch:
    """How to start an engine, and what it shall load."""

    command: Sequence[str]  # without ``--fd N``
    env: Mapping[str, str]  # added to our environment
    log: Path | None  # where its output goes; None: where ours goes
    models: tuple[ModelInfo, ...]
    pinned: tuple[str, ...] = ()  # names of those that are loaded first, and stay
    equip: Callable[[ModelInfo], ModelInfo] = lambda model: model  # with its checks of the moment


@dataclass
class Life:
    """What is known of one process; of the next nothing is known. Times are the loop's."""

    heard_at: float = 0.0  # last message, or the start
    has_spoken: bool = False
    # Two things that it may get on with, and be stuck with, each for itself.
    stepped_at: float = 0.0  # last step or end of a row, or when it last had no rows to run
    loaded_at: float = 0.0  # when a load last got on or was over, or it last had none to do
    ready_at: float | None = None
    is_reader_slow: bool = False  # a report waits for the pool's reader: silence is our doing
    device: str | None = None
    torch: str | None = None
    budget_bytes: int = 0  # of its device's memory; 0: it names none
    loading: str = ""  # a model, told to and not answered yet
    costs: dict[str, CostModel] = field(default_factory=dict)  # of models loaded there, by name
    measured: dict[str, Measured] = field(default_factory=dict)  # the same
    bytes: dict[str, int] = field(default_factory=dict)  # by line, by the last heartbeat
    staging_bytes: int = 0  # of host memory, for copies of models
    staged: int = 0  # bytes of those, by the last heartbeat
    lies: MemoryLies | None = None  # the same, where it matters, when a model came or went last
    memory: Fragmentation | None = None  # how its free memory lies, by the last heartbeat
    rows: int = 0  # by the last heartbeat
    steps: int = 0  # by the last heartbeat
    rows_owed: dict[str, str] = field(default_factory=dict)  # sent there, not cancelled, end not
    # heard of; the model of each

    @property
    def is_busy(self) -> bool:
        """True when there is something it must get on with: models to load, or rows."""
        return self.is_to_load or self.rows > 0 or bool(self.rows_owed)

    @property
    def is_to_load(self) -> bool:
        """True when there is a model that it must get on with."""
        return self.ready_at is None or bool(self.loading)

    @property
    def is_to_step(self) -> bool:
        """True when there are rows that it must get on with; not those that wait for a load."""
        if self.loading:
            return any(model != self.loading for model in self.rows_owed.values())
        return self.rows > 0 or bool(self.rows_owed)

    def sent(self, message: Message, now: float) -> None:
        """A command is on its way."""
        if isinstance(message, RunRow):
            self._idle_until(now)
            self.rows_owed[message.row] = message.model
        elif isinstance(message, LoadModel):
            self._idle_until(now)
            self.loading = message.name
        elif isinstance(message, CancelRow):
            self.rows_owed.pop(message.row, None)
            self._idle_until(now)

    def unsent(self, message: Message) -> None:
        """It didn't get on its way: nothing is owed for it."""
        if isinstance(message, RunRow):
            self.rows_owed.pop(message.row, None)

    def heard(self, message: Message, now: float) -> None:
        """It said something. A heartbeat shows life; only steps, or nothing to do, show health."""
        self.heard_at, self.has_spoken = now, True
        if isinstance(message, Heartbeat):
            if message.steps > self.steps:  # a load's proofs are steps, too, where no row makes any
                self.stepped_at = now
                self.loaded_at = self.loaded_at if self.is_to_step else now
            self.rows, self.steps, self.bytes = message.rows, message.steps, message.bytes
            self.staged = message.staged
            self.memory = Fragmentation(message.free, message.largest) if message.free else None
        elif isinstance(message, RowStarted | StepDone):
            self.stepped_at = now
        elif isinstance(message, RowDone | RowFailed | RowParked | RowRefused):
            self.stepped_at = now
            self.rows_owed.pop(message.row, None)
        elif isinstance(message, MemoryLies):
            self.lies = message
        elif isinstance(message, EngineReady | LoadProgress):
            self.loaded_at = now
        elif isinstance(message, ModelLoaded | ModelFailed):
            self._answered(message, now)
        self._idle_until(now)

    def _idle_until(self, now: float) -> None:
        """What there is nothing to do of isn't late."""
        if not self.is_to_step:
            self.stepped_at = now
        if not self.is_to_load:
            self.loaded_at = now

    def _answered(self, model: ModelLoaded | ModelFailed, now: float) -> None:
        if not self.is_to_step:  # rows that waited for it begin now
            self.stepped_at = now
        self.loading, self.loaded_at = "", now
        if not isinstance(model, ModelLoaded):
            return
        self.measured[model.name] = Measured(
            model.name, model.seconds, model.bytes, model.room_bytes, model.staged
        )
        if model.pass_s:
            curve = Curve(model.buckets, model.pass_s)
            self.costs[model.name] = CostModel.measured(curve, model.size_px, model.image_s)

    def is_silent(self, now: float, pace: Pace) -> bool:
        """Whether it missed signs of life, though it may yet give one."""
        return not self.is_reader_slow and now - self.heard_at > pace.suspect_s

    def overdue(self, now: float, pace: Pace) -> str:
        """What we have waited for too long; empty if all is well."""
        if self.is_reader_slow:
            return ""
        wait_s = pace.dead_s if self.has_spoken else pace.start_s_max
        if now - self.heard_at > wait_s:
            return f"it gave no sign of life for {wait_s:g} s"
        if self.is_to_load and now - self.loaded_at > pace.load_s_max:
            return f"it is stuck: it loaded no model for {pace.load_s_max:g} s"
        if self.is_to_step and now - self.stepped_at > pace.stuck_s_max:
            return f"it is stuck: it made no step with rows to run for {pace.stuck_s_max:g} s"
        return ""

    def begin_waiting(self, now: float) -> None:
        """What is due is due from now on: the process has just begun, or had to wait for us."""
        self.heard_at = self.stepped_at = self.loaded_at = now
