"""What an attempt works with, and what it needs of whoever judges pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from calotype.core.messages import CheckSettled, TrialSeen
from calotype.core.nouns import Job
from calotype.delivery.store import PictureStore
from calotype.flow.finish import Finished, Raw
from calotype.flow.follow_up import FollowsUp, KeepsNothing
from calotype.flow.handed import Handed
from calotype.flow.ingredients import Larder
from calotype.flow.recorder import Recorder
from calotype.jobs.store import JobStore
from calotype.safety.builds import KnownBuilds
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.pictures import PictureCheck
from calotype.safety.policies import Policy


class Finishes(Protocol):
    """What judges, encodes and signs pictures."""

    async def finish(self, raw: Raw) -> Finished:
        """Do so with one; raises SafetyUnavailable, or SigningFailed."""


class WatchesVersions(Protocol):
    """What knows which versions of checks engines have in force."""

    builds: KnownBuilds  # whose answers are taken

    async def warm(self, engine: str) -> None:
        """An engine has begun."""

    def heard(self, engine: str, said: CheckSettled) -> None:
        """An engine says which version of a check it has in force."""

    def gone(self, engine: str) -> None:
        """An engine has ended."""


class OneVersion:
    """Where no other version comes while the server runs."""

    def __init__(self) -> None:
        self.builds = KnownBuilds()

    async def warm(self, engine: str) -> None:
        """Nothing is asked of it."""

    def heard(self, engine: str, said: CheckSettled) -> None:
        """Nothing was asked."""

    def gone(self, engine: str) -> None:
        """Nothing is known of it."""


@dataclass(frozen=True)
class Tools:
    """The rooms an attempt works with."""

    store: JobStore
    finisher: Finishes
    pictures: PictureStore
    larder: Larder
    recorder: Recorder | None = None
    policy_of: Callable[[Job], Policy | None] = lambda job: None  # None: the default policy
    tried: Callable[[TrialSeen], None] = lambda seen: None  # told what checks on trial say
    handed: Handed = field(default_factory=Handed)
    people: FollowsUp = field(default_factory=KeepsNothing)
    check: PictureCheck = field(default_factory=PictureCheck)  # of what is read first; no lists
    versions: WatchesVersions = field(default_factory=OneVersion)  # of checks, by engine
    unread: Callable[[SafetyUnavailable], None] = lambda error: None  # told of prompts nobody read
