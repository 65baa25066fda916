"""What reads a prompt on the engine, before the first step: whether its refusal is one."""

from __future__ import annotations

from calotype.core.errors import InternalError
from calotype.core.messages import RowRefused
from calotype.core.nouns import ModelInfo, Verdict, VerdictKind
from calotype.safety.builds import KnownBuilds
from calotype.safety.pictures import PictureCheck, Scored
from calotype.safety.policies import Policy


class WordsRefused(Exception):
    """The words of a job are refused after all, and no step was made."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.detail)
        self.verdict = verdict


def refused(
    told: RowRefused,
    model: ModelInfo,
    check: PictureCheck,
    policy: Policy | None,
    *,
    known: KnownBuilds,
) -> Exception:
    """Why the engine didn't begin a row, judged by the policy as it is now, as what to raise.

    InternalError if nothing speaks against it any more: it is to be tried again. Raises
    SafetyUnavailable where the engine's check gave no answer, or not one of the ``known`` versions.
    """
    reading = [use for use in model.checks if use.reads]
    uses, unchecked = known.judged(reading, told.builds, told.unchecked)
    scored = Scored(told.scores, uses, unchecked, is_degraded=bool(told.degraded))
    verdict = check.judge_read(scored, policy)
    if verdict.kind is VerdictKind.ALLOW:
        return InternalError("its engine didn't begin it, by a policy that was another")
    return WordsRefused(verdict)
