"""Jobs that are not begun (again), and why: for want of a model, or of a run that ended well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calotype.core import limits
from calotype.core.errors import CalotypeError, InternalError, InvalidInput
from calotype.core.nouns import Job
from calotype.core.states import AttemptState, JobState
from calotype.pool.registry import ModelRegistry
from calotype.pool.reports import EngineHealth
from calotype.safety.errors import SafetyUnavailable

Tries = Mapping[AttemptState, int]  # attempts of a job by how they went

# Why an attempt that nobody holds is lost: no doing of its engine.
RESTARTED, LAPSED = "the server was restarted", "its lease ran out"


def blamed(lost: Sequence[tuple[str, AttemptState, str]]) -> tuple[tuple[str, ...], int]:
    """Engines that a job should avoid, the last at the end, and how many died under it.

    ``lost`` are its failed and lost attempts: engine, state, reason.
    """
    theirs = [
        (engine, state) for engine, state, reason in lost if reason not in (RESTARTED, LAPSED)
    ]
    avoid = dict.fromkeys(engine for engine, _ in reversed(theirs))
    return tuple(reversed(avoid)), sum(state is AttemptState.LOST for _, state in theirs)


def charged(job: Job, tries: Tries) -> int:
    """Attempts that count against the job: those that failed or were lost, not the unjudged.

    One that nobody holds any more is lost, though the store has it running.
    """
    lost = tries.get(AttemptState.FAILED, 0) + tries.get(AttemptState.LOST, 0)
    return lost + (job.state is JobState.RUNNING)


def unjudged(reason: str) -> SafetyUnavailable:
    """What a job is told whose pictures couldn't be judged SAFETY_TRIES_MAX times."""
    most = limits.SAFETY_TRIES_MAX
    return SafetyUnavailable(f"its pictures were made {most} times and not judged: {reason}")


def given_up(job: Job, tries: Tries, registry: ModelRegistry, reason: str) -> CalotypeError | None:
    """Why an unfinished job that nobody runs (for this reason) doesn't go on; None if it does.

    A restart or a lease that ran out is no fault of a job, so it has another attempt, but not for
    ever: it may be what takes the server down.
    """
    try:
        registry.get(job.spec.model)
    except InvalidInput as error:
        return error
    lost = charged(job, tries)
    if lost >= limits.ATTEMPTS_TOTAL_MAX:
        return InternalError(
            f"the picture couldn't be made: {lost} attempts were lost, the last because {reason}",
            limit=limits.ATTEMPTS_TOTAL_MAX,
        )
    held = tries.get(AttemptState.HELD, 0) + (job.state is JobState.PENDING_SAFETY)
    if held >= limits.SAFETY_TRIES_MAX:
        return unjudged(reason)
    return None


def unloadable(engines: Sequence[EngineHealth]) -> dict[str, str]:
    """The models that none of these engines could load, with what the first one said of each."""
    if not engines:
        return {}
    first, *others = engines
    return {
        model: reason
        for model, reason in first.models_failed.items()
        if all(model in other.models_failed for other in others)
    }
