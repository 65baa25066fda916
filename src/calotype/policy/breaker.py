"""Whether what failed again and again is tried again: circuit breakers (Nygard, "Release It!").

A breaker stands before anything that can fail by itself: loading a component on a device, a safety
check. While it is *closed* all goes through. ``BREAKER_FAILURES_MAX`` failures in a row open it:
nothing is tried for a while. Then it is *half open*: one try is let through. If that works the
breaker closes; if it fails, or says nothing, it is open for twice as long.

A breaker never lets a picture through: where a required check stands behind it, *not tried* means
that the job waits for its verdict. It is pure: times come in, in seconds, and what changed goes
out.

    closed -> open -> half_open -> closed
                ^         |
                |_________|  the try failed
"""

from __future__ import annotations

from dataclasses import dataclass, field

from calotype.core import limits
from calotype.core.states import BREAKER_MOVES, BreakerState, move


@dataclass(frozen=True)
class Key:
    """What a breaker stands before."""

    kind: str  # "load" or "check"
    name: str  # the component, or the check
    device: str = ""  # where; the same component may load elsewhere


def load(device: str, component: str) -> Key:
    """The breaker for loading a component on a device."""
    return Key("load", component, device)


def check(name: str) -> Key:
    """The breaker for a safety check."""
    return Key("check", name)


@dataclass(frozen=True)
class BreakerMoved:
    """For logs, metrics and the jobs that wait."""

    key: Key
    before: BreakerState
    after: BreakerState
    reason: str
    retry_at: float | None  # when it is tried next, if it is open


@dataclass
class _Breaker:
    state: BreakerState = BreakerState.CLOSED
    failures: int = 0  # in a row
    # How long it is, or would be, open.
    open_s: float = field(default_factory=lambda: limits.BREAKER_OPEN_S_MIN)
    until: float = 0.0  # open: then it is tried; half open: then the try has failed
    reason: str = ""


class Breakers:
    """All breakers that have something to remember; any other is closed."""

    def __init__(self) -> None:
        self._breakers: dict[Key, _Breaker] = {}

    def state(self, key: Key) -> BreakerState:
        """Where the breaker is."""
        breaker = self._breakers.get(key)
        return breaker.state if breaker else BreakerState.CLOSED

    def reason(self, key: Key) -> str:
        """Of the last failure, in words for those that wait; empty when there was none."""
        breaker = self._breakers.get(key)
        return breaker.reason if breaker else ""

    def retry_at(self, key: Key) -> float | None:
        """When it is tried again; None if it may be tried now."""
        breaker = self._breakers.get(key)
        return None if breaker is None or breaker.state is BreakerState.CLOSED else breaker.until

    def may_try(self, key: Key, now: float) -> bool:
        """Whether it may be tried now. If it was open and is tried, nobody else may meanwhile.

        So ask only when about to try, and tell how it went.
        """
        breaker = self._breakers.get(key)
        if breaker is None or breaker.state is BreakerState.CLOSED:
            return True
        if breaker.state is BreakerState.HALF_OPEN and now >= breaker.until:
            self._open(key, breaker, "the last try said nothing", now)
        if breaker.state is BreakerState.HALF_OPEN or now < breaker.until:
            return False
        breaker.state = move(BREAKER_MOVES, breaker.state, BreakerState.HALF_OPEN)
        breaker.until = now + limits.BREAKER_PROBE_S_MAX
        return True

    def failed(self, key: Key, reason: str, now: float) -> BreakerMoved | None:
        """A try failed; the breaker's move, if it made one. Late words change nothing."""
        breaker = self._breakers.get(key)
        if breaker is None:
            if len(self._breakers) >= limits.BREAKERS_KEPT_MAX:
                del self._breakers[next(iter(self._breakers))]
            breaker = self._breakers[key] = _Breaker()
        if breaker.state is BreakerState.OPEN:
            return None
        breaker.failures += 1
        breaker.reason = reason
        is_probe = breaker.state is BreakerState.HALF_OPEN
        if is_probe or breaker.failures >= limits.BREAKER_FAILURES_MAX:
            return self._open(key, breaker, reason, now)
        return None

    def succeeded(self, key: Key) -> BreakerMoved | None:
        """A try worked: what was remembered is forgotten. Late words change nothing."""
        breaker = self._breakers.get(key)
        if breaker is None or breaker.state is BreakerState.OPEN:
            return None
        del self._breakers[key]
        if breaker.state is BreakerState.CLOSED:
            return None
        after = move(BREAKER_MOVES, breaker.state, BreakerState.CLOSED)
        return BreakerMoved(key, breaker.state, after, "it works again", None)

    def _open(self, key: Key, breaker: _Breaker, reason: str, now: float) -> BreakerMoved:
        before = breaker.state
        if before is BreakerState.HALF_OPEN:
            breaker.open_s = min(2 * breaker.open_s, limits.BREAKER_OPEN_S_MAX)
        breaker.state = move(BREAKER_MOVES, before, BreakerState.OPEN)
        breaker.until = now + breaker.open_s
        breaker.reason = reason
        return BreakerMoved(key, before, breaker.state, reason, breaker.until)
