"""What the pool tells its reader: reports of engines, and the health of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from calotype.core.cost import CostModel
from calotype.core.errors import InternalError
from calotype.core.messages import MemoryLies, Message
from calotype.core.nouns import Reserve
from calotype.core.states import EngineState
from calotype.policy.arena import Fragmentation


class EngineDown(InternalError):
    """The engine isn't there to be spoken to, or its process ended while it was."""

    kind = "engine-down"
    title = "The engine is down"


@dataclass(frozen=True)
class Measured:
    """What a load has shown of a model."""

    model: str
    load_s: float  # from disk, or as much of it as wasn't there
    bytes: int  # of its weights
    room_bytes: int  # that its largest pass and a decode need beside them
    staged: int = 0  # bytes of its weights that came from copies in host memory


@dataclass(frozen=True)
class EngineWarm:
    """The engine has loaded what it can and holds no rows."""

    models: tuple[str, ...]  # warm there
    rows_max: int  # rows it may hold at once
    rows_spare: int = 0  # of them, those that lighter tiers leave to heavier ones
    costs: Mapping[str, CostModel] = field(default_factory=dict)  # measured there, by model
    budget_bytes: int = 0  # of its device's memory; 0: it loads nothing on demand
    reserves: tuple[Reserve, ...] = ()  # of the budget, what is kept free of models
    staging_bytes: int = 0  # of host memory, for copies of models
    lies: MemoryLies | None = None  # how its device's free memory lies, where that matters
    pinned: tuple[str, ...] = ()  # models that are to be warm always
    measured: tuple[Measured, ...] = ()  # of the warm models


@dataclass(frozen=True)
class EngineLost:
    """The engine's process is gone, and all rows it held with it. It is started again."""

    reason: str
    exit_code: int | None  # negative: the signal's number; None: it never started


@dataclass(frozen=True)
class ModelWarm:
    """The engine, warm before, has loaded another model."""

    model: str
    cost: CostModel | None  # if it was measured
    measured: Measured | None = None
    is_asked: bool = False  # by ``EnginePool.load``; else it had failed before


@dataclass(frozen=True)
class ModelNotLoaded:
    """What was asked of the engine by ``EnginePool.load`` came to nothing."""

    model: str
    reason: str
    is_full: bool = False  # it only had no room
    rests: bool = False  # it failed again and again there, and isn't tried for a while


@dataclass(frozen=True)
class EngineSuspect:
    """The engine gave no sign of life for a while. It may yet, and keeps its rows until then."""

    reason: str


@dataclass(frozen=True)
class EngineBack:
    """A suspect engine gave a sign of life."""


Said = Message | EngineWarm | EngineLost | ModelWarm | ModelNotLoaded | EngineSuspect | EngineBack


@dataclass(frozen=True)
class Report:
    """One report of one engine; an engine's reports come in the order it made them."""

    engine: str
    message: Said
    blob: bytes = b""  # the frame's raw bytes: pixels, a preview, or none


@dataclass(frozen=True)
class LoadState:
    """A model that an engine is loading."""

    model: str
    since_s: float  # how long it has been
    done: int  # bytes that were read
    total: int  # bytes; 0: that isn't known yet


@dataclass(frozen=True)
class EngineHealth:
    """How one engine is, for readiness and doctor."""

    name: str
    state: EngineState
    since: datetime  # of the state; UTC
    pid: int | None  # None while no process runs
    device: str | None  # "cpu", "cuda:0"; None until it has said so
    torch: str | None  # version; None until it has said so
    models: tuple[str, ...]  # warm there
    models_failed: Mapping[str, str] = field(default_factory=dict)  # name -> reason
    rows: int = 0  # held, by the last heartbeat
    steps: int = 0  # forward passes, by the last heartbeat
    reason: str = ""  # why it isn't ready, or was lost the last time
    budget_bytes: int = 0  # of its device's memory; 0: it names none
    bytes: Mapping[str, int] = field(default_factory=dict)  # of it, by line, by the last heartbeat
    reserves: tuple[Reserve, ...] = ()  # of the budget, what is kept free of models
    pinned: tuple[str, ...] = ()  # models that are loaded first, and never make room
    models_planned: tuple[str, ...] = ()  # that it loads at its start
    models_resting: frozenset[str] = frozenset()  # that failed, and aren't tried for a while
    loading: LoadState | None = None
    models_staged: tuple[str, ...] = ()  # with a copy in host memory
    staging_bytes: int = 0  # of host memory, for such copies
    staged_bytes: int = 0  # that they take, by the last heartbeat
    memory: Fragmentation | None = None  # how the device's free memory lies, by the last heartbeat
    pool: str = ""  # whose jobs alone it runs; "": those of none
