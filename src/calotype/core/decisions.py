"""What the policy answers, in the imperative. The shell carries them out, in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StartAttempt:
    """Lease the job to this engine and send it the job's rows."""

    job_id: str
    engine: str


@dataclass(frozen=True)
class RequeueJob:
    """Record that the attempt failed; the job is in the line again."""

    job_id: str
    reason: str


@dataclass(frozen=True)
class FailJob:
    """Give the job up, with this reason."""

    job_id: str
    reason: str


Decision = StartAttempt | RequeueJob | FailJob
