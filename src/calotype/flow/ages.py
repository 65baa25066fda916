"""Who is known to be of age: asked of a provider when it matters, and remembered for a while.

Asked only of people whose tenant has a policy for adults, before their prompt is judged. Nothing is
kept over a restart: whoever isn't known counts as not of age until they ask again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from calotype.core import limits
from calotype.core.errors import CalotypeError
from calotype.safety.ages import AgeProvider

log = structlog.get_logger("calotype.ages")


class Ages:
    """What the provider said lately."""

    def __init__(
        self, provider: AgeProvider | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._provider, self._clock = provider, clock
        # By "tenant/user", the oldest answer first: until when of age (0: not), and when to ask.
        self._known: dict[str, tuple[float, float]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def is_adult(self, tenant: str, user: str) -> bool:
        """Whether this person is known to be of age now."""
        until, _ = self._known.get(f"{tenant}/{user}", (0.0, 0.0))
        return bool(user) and self._clock() < until

    async def learn(self, tenant: str, user: str) -> None:
        """Ask of a person of whom nothing is known, or not any more; never raises."""
        subject = f"{tenant}/{user}"
        _, again_at = self._known.get(subject, (0.0, 0.0))
        if self._provider is None or not user or self._clock() < again_at:
            return
        if subject not in self._asking:
            if len(self._asking) >= limits.AGES_ASKED_MAX:
                log.warning("ages_not_asked", waiting=len(self._asking))
                return
            self._asking[subject] = asyncio.create_task(self._ask(self._provider, subject))
        await asyncio.shield(self._asking[subject])

    async def _ask(self, provider: AgeProvider, subject: str) -> None:
        now, until = self._clock(), 0.0
        try:
            async with asyncio.timeout(2 * limits.AGE_S_MAX):
                said = await provider.adult_until(subject, now)
            until = said if isinstance(said, float | int) and now < said else 0.0  # NaN isn't
        except (CalotypeError, TimeoutError) as error:
            log.warning("age_unknown", reason=str(error) or "it took too long")
        except Exception as error:  # noqa: BLE001 - a plug-in's: nobody is of age for it
            log.warning("age_unknown", reason=f"{type(error).__name__}: {error}"[:300])
        finally:
            del self._asking[subject]
        self._known.pop(subject, None)
        while len(self._known) >= limits.AGES_KNOWN_MAX:
            del self._known[next(iter(self._known))]
        until = min(until, now + limits.AGE_GOOD_S_MAX)
        self._known[subject] = (until, max(until, now + limits.AGE_ASKED_AGAIN_S))
