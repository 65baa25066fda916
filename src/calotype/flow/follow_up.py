"""What an attempt asks of those who follow up what isn't allowed: ``conduct``, or nobody."""

from __future__ import annotations

from typing import Protocol

from calotype.core.errors import Refused
from calotype.core.nouns import Job, Verdict
from calotype.core.reviews import Withheld
from calotype.flow.finish import Finished, Raw


class FollowsUp(Protocol):
    """What a picture that isn't allowed leads to, and where it is kept."""

    async def check(self, job: Job) -> None:
        """Raise Suspended while whoever asked for the job may make no pictures."""

    async def withhold(self, job: Job, index: int, raw: Raw, finished: Finished) -> Withheld:
        """See to it; doing so again counts nothing twice."""

    async def refuse(self, job: Job, verdict: Verdict) -> None:
        """The same of a job whose words were refused once it was let in."""


class KeepsNothing:
    """Where nobody looks at pictures: what isn't allowed is dropped."""

    async def check(self, job: Job) -> None:
        """Nobody is suspended."""

    async def withhold(self, job: Job, index: int, raw: Raw, finished: Finished) -> Withheld:
        """Keep no picture."""
        name, digest = raw.manifest.image, finished.pixels_sha256
        return Withheld(index, name, finished.verdict, digest, is_severe=False)

    async def refuse(self, job: Job, verdict: Verdict) -> None:
        """Nothing follows."""


def refusal(verdict: Verdict) -> Refused:
    """What whoever asked is told: the rule, and not the words or the score."""
    return Refused(
        verdict.detail,
        field=verdict.field,
        category=verdict.category,
        check=verdict.check,
        version=verdict.version,
        policy=verdict.policy,
    )
