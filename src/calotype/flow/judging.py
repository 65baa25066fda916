"""Has pictures judged behind a breaker for each check: one that fails rests for a while.

It fails closed: while a breaker is open no picture is judged and none delivered; their jobs are
held. And since what is made meanwhile would only be dropped, nothing is started either. When the
time has come one job is, and its picture is the one try: if it is judged, all goes on. Until it is,
pictures are judged more strictly than usual, never less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from calotype.core.states import BreakerState
from calotype.flow.alarm import Alarm
from calotype.flow.finish import Finished, Raw
from calotype.flow.tools import Finishes
from calotype.policy.breaker import BreakerMoved, Breakers, check
from calotype.safety.errors import SafetyUnavailable

log = structlog.get_logger("calotype.dispatch")

PICTURES = "pictures"  # the check that is meant where the error doesn't name one


class Judging:
    """A finisher whose checks have breakers."""

    def __init__(self, finisher: Finishes, bound: Callable[[int | None], None]) -> None:
        """``bound`` is told how many jobs may run at once; None: as many as fit."""
        self._finisher, self._bound = finisher, bound
        self._breakers = Breakers()
        self._failing: dict[str, None] = {}  # checks whose last try failed
        self._down: dict[str, float] = {}  # since when a check isn't tried as usual
        self._trying = asyncio.Lock()  # while one fails, one picture at a time
        self._alarm = Alarm(self._due)
        self._now = 0.0  # the latest time a breaker was told

    @property
    def failing(self) -> dict[str, str]:
        """Checks that aren't tried for a while, with the reason."""
        keys = {name: check(name) for name in self._failing}
        return {
            name: self._breakers.reason(key)
            for name, key in keys.items()
            if self._breakers.state(key) is not BreakerState.CLOSED
        }

    @property
    def down_s(self) -> float:
        """For how long some check hasn't been what it should be; 0 while all is well."""
        return max((self._clock() - since for since in self._down.values()), default=0.0)

    async def finish(self, raw: Raw) -> Finished:
        """Judge, encode and sign one picture; raises what ``Finisher.finish`` does."""
        if not self._failing:
            return await self._try(raw)
        async with self._trying:
            for name in self._failing:
                if not self._breakers.may_try(check(name), self._clock()):
                    reason = self._breakers.reason(check(name))
                    raise SafetyUnavailable(f"{reason}; it isn't tried again yet", field=name)
            failing = {name: self._breakers.reason(check(name)) for name in self._failing}
            return await self._try(replace(raw, degraded={**raw.degraded, **failing}))

    def unread(self, error: SafetyUnavailable) -> None:
        """A check that reads prompts gave no answer, so that none was begun: it counts as well."""
        name = error.field or PICTURES
        self._breakers.may_try(check(name), self._clock())  # if it was due, that was the try
        self._failed(name, error)

    def stop(self) -> None:
        """Nothing is tried again by itself."""
        self._alarm.set(None)

    async def _try(self, raw: Raw) -> Finished:
        try:
            finished = await self._finisher.finish(raw)
        except SafetyUnavailable as error:
            self._failed(error.field or PICTURES, error)
            raise
        except BaseException:  # cancelled, or not signed: nothing is known of the check
            self._say_nothing()
            raise
        for name in list(self._failing):
            self._moved(self._breakers.succeeded(check(name)))
            if self._breakers.state(check(name)) is BreakerState.CLOSED:
                del self._failing[name]
        return finished

    def _failed(self, name: str, error: SafetyUnavailable) -> None:
        self._failing[name] = None
        self._moved(self._breakers.failed(check(name), error.detail, self._clock()))

    def _say_nothing(self) -> None:
        """A try that was to show whether a check works again told nothing: try again later."""
        for name in self._failing:
            if self._breakers.state(check(name)) is BreakerState.HALF_OPEN:
                reason = self._breakers.reason(check(name))
                self._moved(self._breakers.failed(check(name), reason, self._clock()))

    def _moved(self, moved: BreakerMoved | None) -> None:
        if moved is None:
            return
        log.error(
            "breaker_moved",
            kind=moved.key.kind,
            name=moved.key.name,
            before=moved.before.value,
            after=moved.after.value,
            reason=moved.reason,
        )
        if moved.after is BreakerState.CLOSED:
            self._down.pop(moved.key.name, None)
        else:
            self._down.setdefault(moved.key.name, self._clock())
        if moved.after is BreakerState.OPEN:
            self._bound(0)
            self._alarm.set(moved.retry_at)
        elif not self.failing:
            self._bound(None)
            self._alarm.set(None)

    def _due(self, due: float) -> None:
        self._now = max(self._now, due)  # a timer can be early
        self._bound(1)

    def _clock(self) -> float:
        self._now = max(self._now, time.monotonic())
        return self._now
