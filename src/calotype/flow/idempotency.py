"""One job for one request, however often it is sent: idempotency keys.

The first request under a key makes the job, and the key is stored with it. The same request again
gets that job; another request under that key is refused, and so is any while the first is still
being looked at. A refused request makes no job and leaves no key: sent again, it is judged anew.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from calotype.core import limits
from calotype.core.errors import InvalidInput, KeyInFlight, KeyReused
from calotype.core.nouns import IdempotencyKey, Job
from calotype.jobs.store import JobStore

HEADER = "Idempotency-Key"

log = structlog.get_logger("calotype.idempotency")

_VISIBLE = re.compile(rf"[!-~]{{1,{limits.IDEMPOTENCY_KEY_CHARS_MAX}}}")

Make = Callable[[IdempotencyKey], Awaitable[Job]]


class Once:
    """Makes jobs by key; ``kept_s`` is how long a key is good, in seconds."""

    def __init__(self, store: JobStore, *, kept_s: float) -> None:
        self._store, self._kept = store, timedelta(seconds=kept_s)
        self._in_flight: dict[tuple[str, str], asyncio.Task[tuple[Job, bool]]] = {}

    async def job(self, tenant: str, key: str, body_sha256: str, make: Make) -> tuple[Job, bool]:
        """The job that this request makes, or made before (then True).

        Raises InvalidInput for an unfit key, KeyInFlight, KeyReused, and what ``make`` does.
        """
        check_key(key)
        mine = (tenant, key)
        if mine in self._in_flight:
            raise KeyInFlight(
                f"the first request with this {HEADER} is still being looked at: send it again",
                field=HEADER,
                limit="one request at a time",
            )
        # In a task of its own: a caller that goes away doesn't make the key free too early.
        task = asyncio.create_task(self._job(tenant, key, body_sha256, make))
        self._in_flight[mine] = task
        task.add_done_callback(lambda _: self._in_flight.pop(mine))
        return await asyncio.shield(task)

    async def _job(self, tenant: str, key: str, body_sha256: str, make: Make) -> tuple[Job, bool]:
        good_after = datetime.now(UTC) - self._kept
        used = await self._store.idempotency_keys.find(tenant, key, after=good_after)
        if used is None:
            return await make(IdempotencyKey(key, body_sha256, good_after)), False
        if used.body_sha256 != body_sha256:
            raise KeyReused(
                f"this {HEADER} was used for another request; its job is {used.job_id}",
                field=HEADER,
                limit="one request for each key",
                job_id=used.job_id,
            )
        return await self._store.get(used.job_id, tenant=tenant), True

    async def forget(self) -> int:
        """Forget the keys that are good no longer; return how many there were."""
        return await self._store.idempotency_keys.forget(before=datetime.now(UTC) - self._kept)

    async def forget_for_ever(self) -> None:
        """Do so every IDEMPOTENCY_SWEEP_S."""
        while True:
            try:
                if count := await self.forget():
                    log.info("idempotency_keys_forgotten", count=count)
            except Exception:  # what can't be deleted now is looked at again in an hour
                log.exception("idempotency_keys_not_forgotten")
            await asyncio.sleep(limits.IDEMPOTENCY_SWEEP_S)


def check_key(key: str) -> None:
    """Raise InvalidInput for what can't be an idempotency key."""
    if not _VISIBLE.fullmatch(key):
        most = limits.IDEMPOTENCY_KEY_CHARS_MAX
        raise InvalidInput(
            f"{HEADER} has to be 1 to {most} visible ASCII characters, without spaces",
            field=HEADER,
            limit={"min_chars": 1, "max_chars": most, "characters": "! to ~"},
        )
