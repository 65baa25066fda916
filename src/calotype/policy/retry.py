"""What becomes of a job whose attempt brought no pictures: again, or given up."""

from __future__ import annotations

from calotype.core.decisions import FailJob, RequeueJob
from calotype.core.limits import ATTEMPTS_MAX


def after_failure(
    job_id: str, attempt: int, reason: str, *, is_retryable: bool = True
) -> RequeueJob | FailJob:
    """Decide after attempt number ``attempt`` (1 is the first) has failed.

    The death of an engine is such a failure: a job that kills every engine it meets must not be
    able to go on for ever.
    """
    if not is_retryable:
        return FailJob(job_id, reason)
    if attempt >= ATTEMPTS_MAX:
        return FailJob(job_id, f"{reason} (attempt {attempt} of {ATTEMPTS_MAX})")
    return RequeueJob(job_id, reason)
