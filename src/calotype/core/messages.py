"""What the server and an engine process say to each other; ``frames`` puts it on the wire.

Commands go to the engine, in the imperative; reports come back, in the past tense.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from calotype.core.nouns import Component
from calotype.core.picture_checks import CheckUse, Trial

HEARTBEAT_VARIABLE = "CALOTYPE_ENGINE_HEARTBEAT_S"  # how often an engine says that it lives
MEMORY_VARIABLE = "CALOTYPE_ENGINE_MEMORY_BYTES"  # its budget; unset: most of its device
ENGINES_VARIABLE = "CALOTYPE_ENGINES_HERE"  # how many share this machine's memory
STAGING_VARIABLE = "CALOTYPE_ENGINE_STAGING_BYTES"  # of host memory, for copies of models; or none
ARENA_VARIABLE = "CALOTYPE_ENGINE_ARENA"  # "1": on a CPU, models lie in blocks as on a GPU


@dataclass(frozen=True)
class LoadModel:
    """Make a base model resident, while rows go on; answered by ModelLoaded or ModelFailed.

    Loads and unloads are done one after the other, in their order.
    """

    name: str
    path: str  # a folder in diffusers' layout; its weights may lie in one model.safetensors
    build: str
    dtype: str = "auto"  # of the weights: fp32, bf16, fp16, or what suits the device
    quantise: str = ""  # weights only, of the denoiser: int8, fp8, or empty
    compile: tuple[str, ...] = ()  # components for torch.compile: "denoiser", "vae"
    merged: tuple[RowLora, ...] = ()  # added to the weights: it then makes only rows with these
    checks: tuple[CheckUse, ...] = ()  # that its pictures go through; their scores come with them
    components: tuple[Component, ...] = ()  # its parts: what a resident model has of them is shared
    trials: tuple[Trial, ...] = ()  # checks that look at its pictures, and nothing follows
    decoder: str = ""  # safetensors file that takes the place of its decoder's weights; or none


@dataclass(frozen=True)
class UnloadModel:
    """Free a base model's memory once no row needs it; answered by ModelUnloaded.

    Rows that come after it are refused.
    """

    name: str
    stage: bool = False  # keep a copy in host memory, from which it is loaded again


@dataclass(frozen=True)
class DropCopy:
    """Keep no copy of a base model in host memory, after what was asked before; not answered."""

    name: str


@dataclass(frozen=True)
class RowLora:
    """A LoRA in a row's recipe. The engine reads its file once, in the background."""

    name: str
    path: str  # of the safetensors file
    build: str  # content hash
    weight: float  # -4..4; 0 does nothing


@dataclass(frozen=True)
class RowControl:
    """A ControlNet in a row's recipe, with the picture that guides it."""

    name: str
    path: str  # a ControlNet's folder in diffusers' layout
    build: str  # content hash
    picture: int  # which of the row's pictures
    weight: float = 1.0  # conditioning scale
    start: float = 0.0  # share of the steps, 0..1, from which it works ...
    end: float = 1.0  # ... and up to which
    canny: bool = False  # make the map of edges from the picture first


@dataclass(frozen=True)
class RowPicture:
    """A picture that comes with a row, raw in the frame's bytes: uint8, h x w x channels."""

    width: int
    height: int
    channels: int = 3  # 3: RGB, 1: a mask, white where the picture may change


@dataclass(frozen=True)
class RunRow:
    """Make one picture; answered by RowStarted, StepDone ..., RowDone or RowFailed, or RowRefused.

    The frame's bytes are its ``pictures``, one after the other, and behind them what another engine
    had done of it (the bytes of a ``RowParked``).
    """

    row: str  # id, unique per attempt: "<job id>/<token>/<image index>"
    model: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance: float
    sampler: str
    seed: int
    tier: str
    loras: tuple[RowLora, ...] = ()
    controls: tuple[RowControl, ...] = ()
    pictures: tuple[RowPicture, ...] = ()
    source: int | None = None  # which picture to begin from; None: from noise alone
    mask: int | None = None  # which picture says where the source may change; None: everywhere
    strength: float = 1.0  # share of the steps, and of noise, that the source is given
    keeps_colours: bool = False  # of the source: only what is fine is drawn anew
    is_coarse: bool = False  # its previews show colours and little else
    parked_bytes: int = 0  # of the frame's: it goes on where another engine left it
    refused_from: dict[str, float] = field(default_factory=dict)  # scores of what reads it first


@dataclass(frozen=True)
class CancelRow:
    """Drop a row at the next step boundary, before any command that still waits; not answered."""

    row: str


@dataclass(frozen=True)
class ParkRow:
    """Hand a row back at the next step boundary: answered by RowParked.

    One that has made its last step isn't handed back; its RowDone or RowFailed comes.
    """

    row: str


@dataclass(frozen=True)
class UseChecks:
    """Have these versions of checks judge from now on, and these be tried beside them.

    A version that isn't the one in force is loaded beside it and proven, and takes its place
    between two pictures; for each check a CheckSettled says how that went. Asked again, what
    couldn't be done is tried again.
    """

    checks: tuple[CheckUse, ...]
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Stop:
    """End the process after the step that runs."""


@dataclass(frozen=True)
class EngineReady:
    """First message: the process is up. ``pid`` is its process id."""

    pid: int
    device: str  # "cpu", "cuda:0"
    torch: str  # version
    budget_bytes: int = 0  # of the device's memory, for all that it holds; 0: it doesn't say
    staging_bytes: int = 0  # of host memory, for copies of models


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life, sent every so often from a thread of its own; counts for health."""

    rows: int  # held now
    steps: int  # forward passes done so far: grows while the engine works
    bytes: dict[str, int] = field(default_factory=dict)  # of device memory, by line of the ledger
    staged: int = 0  # bytes of host memory: copies of models
    free: int = 0  # bytes of device memory, as far as it is known how they lie ...
    largest: int = 0  # ... and the largest block of them


@dataclass(frozen=True)
class ModelLoaded:
    """The model is warm."""

    name: str
    seconds: float
    bytes: int  # of its weights
    buckets: tuple[int, ...]  # forward batch sizes proven to give the same bits
    pass_s: tuple[float, ...] = ()  # seconds of a pass in each, at the model's own size
    size_px: int = 0  # that size: a side of its pictures
    image_s: float = 0.0  # to encode a text and decode a picture, at that size
    room_bytes: int = 0  # that its largest pass and a decode need there, beside weights and rows
    staged: int = 0  # bytes of its weights that came from copies in host memory


@dataclass(frozen=True)
class LoadProgress:
    """How far the reading of a model is; told now and then."""

    name: str
    done: int  # bytes
    total: int  # bytes


@dataclass(frozen=True)
class ModelFailed:
    """The model can't be loaded here."""

    name: str
    reason: str
    is_full: bool = False  # nothing is wrong with it, but there is no room now


@dataclass(frozen=True)
class ModelUnloaded:
    """The model's memory is free; also the answer for one that wasn't there."""

    name: str
    is_staged: bool = False  # a copy of it is in host memory
    why_not: str = ""  # a copy was wanted, and there is none


@dataclass(frozen=True)
class MemoryLies:
    """How the free memory of a device lies, where that can be torn; told when models come or go."""

    free: int  # bytes
    largest: int  # block of them
    settled: tuple[str, ...] = ()  # models that lie at its beginning, without gaps


@dataclass(frozen=True)
class MemoryShort:
    """A pass found no room. Its rows lost nothing, and go on in smaller ones."""

    model: str
    width: int
    height: int
    forwards: int  # of the pass
    buckets: tuple[int, ...]  # that are left for pictures of this size
    reason: str


@dataclass(frozen=True)
class RowStarted:
    """The row's text is encoded and its first step is next."""

    row: str
    tokens_cut: int = 0  # of prompt and negative prompt, that didn't fit the model and do nothing


@dataclass(frozen=True)
class StepDone:
    """Step ``step`` of ``steps`` is absorbed. The frame's bytes: a WebP preview, or none."""

    row: str
    step: int  # 1..steps
    steps: int


@dataclass(frozen=True)
class RowParked:
    """The row was handed back, and is here no longer.

    The frame's bytes: the row, for another engine to go on with (``engine.parked``). None if it
    hadn't begun here, or can't be kept.
    """

    row: str
    step: int  # steps that are done; 0: it hadn't begun here
    steps: int
    device_s: float  # this row's share of what was done for it here
    reason: str = ""  # why it can't be kept, though it had begun


@dataclass(frozen=True)
class RowDone:
    """The picture. The frame's bytes: raw RGB, uint8, height x width x 3, C order."""

    row: str
    width: int
    height: int
    scores: dict[str, float]  # classifier scores for safety, by check name
    device_s: float  # this row's share of the forward passes, encode and decode
    unchecked: dict[str, str] = field(default_factory=dict)  # picture checks that failed: why
    degraded: dict[str, str] = field(default_factory=dict)  # those with a place down: why
    builds: dict[str, str] = field(default_factory=dict)  # which version of each check answered


@dataclass(frozen=True)
class CheckSettled:
    """Which version of a check is in force here, now that another was asked for, or the same."""

    name: str
    wanted: str  # build that was asked for
    build: str  # that is in force; "" if no model here needs the check
    why_not: str = ""  # why it isn't the one that was asked for
    is_full: bool = False  # nothing is wrong with that, but there is no room for both now


@dataclass(frozen=True)
class TrialSeen:
    """What a check on trial said of a finished picture; its RowDone waits for nothing of it."""

    row: str
    check: str  # in whose place it is tried
    build: str  # its own
    current: dict[str, float]  # what the check in force said, by label; empty if it said nothing
    scores: dict[str, float]  # the same of the one on trial
    failed: str = ""  # why it said nothing
    took_s: float = 0.0
    current_build: str = ""  # of the check in force, if it said something


@dataclass(frozen=True)
class RowFailed:
    """The row can't be finished. ``retryable``: another attempt may succeed."""

    row: str
    reason: str
    retryable: bool
    short_bytes: int = 0  # so many were too few for what it needs beside its model; else 0


@dataclass(frozen=True)
class RowRefused:
    """No step was made: what reads the prompt first said too much, or nothing (``unchecked``)."""

    row: str
    scores: dict[str, float]
    unchecked: dict[str, str] = field(default_factory=dict)  # checks that failed: why
    degraded: dict[str, str] = field(default_factory=dict)  # those with a place down: why
    builds: dict[str, str] = field(default_factory=dict)  # which version of each check answered


Message = (
    LoadModel
    | UnloadModel
    | DropCopy
    | RunRow
    | CancelRow
    | ParkRow
    | UseChecks
    | Stop
    | EngineReady
    | Heartbeat
    | ModelLoaded
    | LoadProgress
    | ModelFailed
    | ModelUnloaded
    | MemoryShort
    | MemoryLies
    | RowStarted
    | StepDone
    | RowParked
    | RowDone
    | RowFailed
    | RowRefused
    | CheckSettled
    | TrialSeen
)
