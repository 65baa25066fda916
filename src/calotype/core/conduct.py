"""What refusals add up to: the nouns of strikes and suspensions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class StrikeRule:
    """After how many strikes an account is suspended, and for how long."""

    name: str  # as people are told it
    strikes: int  # of one user, within the window
    tenant_strikes: int  # of all users of a tenant together: then all of it is suspended
    window_s: float
    suspended_s: float | None  # None: until a person lifts it


@dataclass(frozen=True)
class Strike:
    """One refusal that counts."""

    tenant: str
    user: str
    category: str
    is_severe: bool
    check: str
    policy: str  # its version
    job_id: str | None = None  # of words that were refused there is none
    index: int | None = None  # of the picture within its job


@dataclass(frozen=True)
class Suspension:
    """An account that may make no pictures for a while."""

    id: str
    tenant: str
    user: str | None  # None: all of the tenant
    rule: str  # the name of the rule
    at: datetime
    until: datetime | None  # None: until a person lifts it
    lifted_at: datetime | None = None
