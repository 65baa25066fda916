"""What becomes of a job whose attempt brought no pictures: again, or given up.

At most ``ATTEMPTS_MAX`` attempts, each on another engine where one is up (``place`` sees to that).
The last is alone on its engine, so what is lost then is lost by the job's own doing: a job whose
every attempt ended its engine, the last one alone, is *poison*. It is quarantined: given up with
the reason, and marked, so that the same job isn't taken again as it is.
"""

from __future__ import annotations

from calotype.core.decisions import FailJob, RequeueJob
from calotype.core.limits import ATTEMPTS_MAX


def after_failure(
    job_id: str, attempt: int, reason: str, *, is_retryable: bool = True, deaths: int = 0
) -> RequeueJob | FailJob:
    """Decide after attempt number ``attempt`` (1 is the first) has failed.

    The death of an engine is such a failure: a job that kills every engine it meets must not be
    able to go on for ever. ``deaths`` counts the engines that died under it, this one included.
    """
    if not is_retryable:
        return FailJob(job_id, reason)
    if attempt >= ATTEMPTS_MAX:
        said = f"{reason} (attempt {attempt} of {ATTEMPTS_MAX})"
        return FailJob(job_id, said, is_poison=deaths >= ATTEMPTS_MAX)
    return RequeueJob(job_id, reason)
