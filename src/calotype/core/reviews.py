"""Who decides on a picture that a check didn't allow, and when it is decided. Pure.

One person decides on an ordinary picture. On a severe one two have to say the same, under different
keys: until then it is undecided, and what is undecided is never delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from calotype.core.nouns import Verdict
from calotype.core.states import ReviewState


@dataclass(frozen=True)
class Person:
    """Who acts: a key, and whose it is."""

    key: str  # id of the API key
    who: str  # "tenant/user"


@dataclass(frozen=True)
class Vote:
    """What one person said of a picture."""

    by: Person
    is_allowed: bool
    reason: str


@dataclass(frozen=True)
class Withheld:
    """A picture that a check didn't allow, when its job ends."""

    index: int  # 0..n-1 within its job
    image: str  # the id that it has if it is delivered after all
    verdict: Verdict  # BLOCK or REVIEW
    pixels_sha256: str
    is_severe: bool
    sealed: str = ""  # its name in the sealed store; "": it isn't kept


@dataclass(frozen=True)
class Review:
    """The same once its job has ended, and what became of it."""

    id: str
    job_id: str
    index: int
    image: str
    tenant: str
    asker: str  # "tenant/user", who asked for it
    category: str | None
    is_severe: bool
    state: ReviewState
    check: str
    version: str  # of the check
    policy: str  # its version
    score: float | None  # 0..1
    pixels_sha256: str
    sealed: str
    opened_at: datetime
    closed_at: datetime | None  # when it was decided
    appeal: str  # what the tenant says; "" if there was none

    @property
    def is_open(self) -> bool:
        """Whether people have to decide on it now."""
        return self.state in (ReviewState.HELD, ReviewState.APPEALED)

    @property
    def round(self) -> int:
        """1 of the first decision, 2 of that on its appeal."""
        return 2 if self.appeal else 1


def counted(votes: Iterable[Vote]) -> list[Vote]:
    """One vote of each person and each key: the first."""
    keys: set[str] = set()
    people: set[str] = set()
    found = []
    for vote in votes:
        if vote.by.key not in keys and vote.by.who not in people:
            found.append(vote)
        keys.add(vote.by.key)
        people.add(vote.by.who)
    return found


def outcome(votes: Sequence[Vote], *, is_severe: bool) -> bool | None:
    """What was decided: True to allow, False to refuse; None while it is undecided."""
    needed = 2 if is_severe else 1
    said = {True: 0, False: 0}
    for vote in counted(votes):
        said[vote.is_allowed] += 1
        if said[vote.is_allowed] == needed:
            return vote.is_allowed
    return None


def why_not(
    person: Person, *, asker: str, before: Collection[Person], votes: Sequence[Vote]
) -> str:
    """Why this person may not decide, in words; "" if they may.

    ``before`` are those who decided the first time, where this is an appeal.
    """
    if person.who == asker:
        return "nobody decides on a picture that they asked for"
    if any(person.key == one.key or person.who == one.who for one in before):
        return "an appeal is decided by others than those who decided first"
    if any(person.key == one.by.key or person.who == one.by.who for one in votes):
        return "each person decides once"
    return ""
