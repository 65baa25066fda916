"""What the policy is told: facts, in the past tense. ``now`` comes beside them, never inside."""

from __future__ import annotations

from dataclasses import dataclass

from calotype.core.nouns import Component, Reserve, Tier


@dataclass(frozen=True)
class JobQueued:
    """An admitted job waits, for the first time or (``attempt`` > 0) after a lost attempt."""

    job_id: str
    tenant: str
    tier: Tier
    model: str
    rows: int  # images
    cost_s: float  # predicted device-seconds of all its rows
    attempt: int = 0  # attempts begun so far
    user: str = ""  # of the tenant, who shares it evenly with its others; "" is one of them
    # Of a job that comes back after a restart of the server: what it had behind it.
    waited_s: float = 0.0  # in the line
    avoid: tuple[str, ...] = ()  # engines where it failed or that died under it
    deaths: int = 0  # engines that died under it
    # What its LoRAs and ControlNets take on a device, by line of the ledger ("loras", "controls").
    adapters: tuple[Reserve, ...] = ()
    pool: str = ""  # whose engines alone may run it (policy/pools.py); "": those of no pool


@dataclass(frozen=True)
class JobCancelled:
    """The job will not run (any more)."""

    job_id: str


@dataclass(frozen=True)
class JobSettled:
    """The job's attempt is over, and its rows are off the engine: it is charged no more than this.

    A cancelled job may be settled as well, and one that is given up while it waits: for nothing.
    """

    job_id: str
    device_s: float  # measured, with what engines did of it that handed it back


@dataclass(frozen=True)
class AttemptFailed:
    """The job's attempt ended without its pictures."""

    job_id: str
    reason: str
    is_retryable: bool
    short_bytes: int = 0  # so much too little was free there for its adapters, at least; else 0


@dataclass(frozen=True)
class JobHandedBack:
    """A running job's rows are off an engine that is to be taken away (``HandBack``).

    It waits again for what is left to do, at its old place. That was no failed attempt.
    """

    job_id: str
    device_s: float  # measured there: what it is charged for it
    left_s: float  # predicted device-seconds of what is left; all of it, if nothing could be kept


@dataclass(frozen=True)
class EngineUp:
    """An engine is ready and holds no rows."""

    engine: str
    models: tuple[str, ...]  # warm there, the one used last at the end
    rows_max: int  # in all
    rows_spare: int = 0  # of the rows, those that lighter tiers leave to heavier ones (limits.py)
    # The device's ledger. With a budget the line decides what is loaded there (``LoadModel``).
    budget_bytes: int = 0  # for models and ``reserves`` together; 0: it loads nothing on demand
    reserves: tuple[Reserve, ...] = ()  # kept free of models
    pinned: tuple[str, ...] = ()  # models that are loaded first and never make room
    staging_bytes: int = 0  # of host memory, for copies between disk and device
    pool: str = ""  # it runs jobs of this pool alone; "": those of none


@dataclass(frozen=True)
class EngineGone:
    """An engine died or is being retired: it runs nothing any more."""

    engine: str
    reason: str = ""  # why, for the jobs' logs


@dataclass(frozen=True)
class EnginePaused:
    """An engine is suspect, or slow: what it runs goes on, but nothing more starts there."""

    engine: str


@dataclass(frozen=True)
class EngineResumed:
    """An engine that was paused is well again."""

    engine: str


@dataclass(frozen=True)
class EngineNotice:
    """An engine will be taken away (a spot machine), or began to leave: nothing more starts there.

    What doesn't end in time is handed back. Once told it goes: only EngineUp takes that back.
    """

    engine: str
    until: float  # when it goes, by the line's clock


@dataclass(frozen=True)
class ModelKnown:
    """What a model needs; told before it is first asked for, and again when it is known better.

    A model that was never told is loaded nowhere on demand.
    """

    model: str
    components: tuple[Component, ...]
    load_s: float  # to load all of it from disk
    staged_load_s: float | None = None  # from a copy in host memory; None: as long
    room_bytes: int = 0  # that its largest pass and a decode need beside its weights


@dataclass(frozen=True)
class ModelsPinned:
    """From now on these are loaded first on each engine, and never make room; no others do."""

    pinned: tuple[str, ...]


@dataclass(frozen=True)
class ModelWarmed:
    """An engine that is up has loaded another model, beside those it has."""

    engine: str
    model: str


@dataclass(frozen=True)
class LoadFailed:
    """A ``LoadModel`` came to nothing: what it evicted is gone, and the model isn't there."""

    engine: str
    model: str
    reason: str


@dataclass(frozen=True)
class ModelGone:
    """An engine that is up has a model no longer, though no ``LoadModel`` evicted it."""

    engine: str
    model: str


@dataclass(frozen=True)
class ModelRemoved:
    """A model is no longer there to be loaded, and no job that isn't over wants it."""

    model: str


@dataclass(frozen=True)
class CopyLost:
    """An engine has no copy of a model in host memory, though a ``LoadModel`` had it kept."""

    engine: str
    model: str


@dataclass(frozen=True)
class MemorySeen:
    """How the free memory of an engine's device lies; told when models came or went there."""

    engine: str
    free_bytes: int
    largest_bytes: int  # block of it
    settled: tuple[str, ...] = ()  # models that lie so that laying them anew would gain nothing


@dataclass(frozen=True)
class StartsBounded:
    """No more than so many jobs may run at once from now on; None: as many as fit.

    0 while pictures can't be judged: what is made then is dropped. 1 to see whether they can again.
    """

    running_max: int | None


@dataclass(frozen=True)
class TimePassed:
    """Nothing happened, but ``next_deadline`` has come."""


PolicyEvent = (
    JobQueued
    | JobCancelled
    | JobSettled
    | AttemptFailed
    | JobHandedBack
    | EngineUp
    | EngineGone
    | EnginePaused
    | EngineResumed
    | EngineNotice
    | ModelKnown
    | ModelsPinned
    | ModelWarmed
    | LoadFailed
    | ModelGone
    | ModelRemoved
    | CopyLost
    | MemorySeen
    | StartsBounded
    | TimePassed
)
