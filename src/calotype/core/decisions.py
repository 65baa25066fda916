"""What the policy answers, in the imperative. The shell carries them out, in order."""

from __future__ import annotations

from dataclasses import dataclass

# Why a job starts; anything but its turn goes into the job's log.
WHY = {
    "turn": "its tier, its tenant and its user were furthest behind their shares",
    "reserved": "its tier had fewer devices than are reserved for it",
    "promoted": "it had waited its tier's maximum",
    "guaranteed": "its tier had fallen behind the share it gets at least",
}


@dataclass(frozen=True)
class StartAttempt:
    """Lease the job to this engine and send it the job's rows."""

    job_id: str
    engine: str
    why: str = "turn"  # of WHY


@dataclass(frozen=True)
class PromoteJob:
    """Record that the job has waited its tier's maximum and goes before others from now on."""

    job_id: str
    waited_s: float


@dataclass(frozen=True)
class RequeueJob:
    """Record that the attempt failed; the job is in the line again."""

    job_id: str
    reason: str


@dataclass(frozen=True)
class HandBack:
    """Have the engine, which is to be taken away, give the job's rows back at their next step.

    It is answered by JobHandedBack, with what is left to do, or by any other end of the attempt.
    """

    job_id: str
    engine: str


@dataclass(frozen=True)
class ReturnJob:
    """Record that the job is in the line again since its engine goes; no attempt has failed."""

    job_id: str
    reason: str


@dataclass(frozen=True)
class FailJob:
    """Give the job up, with this reason."""

    job_id: str
    reason: str
    is_poison: bool = False  # it ended its engines: quarantined, never to be tried again as it is


# Why a model is loaded.
LOAD_WHY = {
    "pinned": "it is to be warm there always",
    "queued": "a job waits for it",
    "predicted": "jobs for it are to be expected",
    "anew": "free memory there is in pieces: what lies loose leaves, and comes back in order",
    "room": "it is warm there, and what leaves makes room for a job's LoRAs and ControlNets",
}


@dataclass(frozen=True)
class LoadModel:
    """Have the engine unload ``evict``, then load ``model``, while it goes on with its rows.

    No evicted model has rows there; the model itself may be one of them. It is answered by
    ModelWarmed, LoadFailed or EngineGone; until then no other load is decided for the engine. Jobs
    wait in the line meanwhile.
    """

    engine: str
    model: str
    evict: tuple[str, ...] = ()  # unloaded first, in this order
    why: str = "queued"  # of LOAD_WHY
    load_s: float = 0.0  # expected, from what is on the device, staged, or on disk
    stage: tuple[str, ...] = ()  # of the evicted: a copy stays in host memory
    unstage: tuple[str, ...] = ()  # copies in host memory that make room for those; dropped first


Decision = StartAttempt | PromoteJob | RequeueJob | HandBack | ReturnJob | FailJob | LoadModel
