"""Tells caches in front of the server that pictures were taken away, until they have heard it.

One request of the kind that content delivery networks take: POST, the pictures' ids as ``tags`` in
a JSON body and as a Surrogate-Key header. Each answer that is served has its picture's id as
Cache-Tag and Surrogate-Key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import httpx
import structlog

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.jobs.store import JobStore

log = structlog.get_logger("calotype.purges")


class Purges:
    """The operator's caches, by the address that purges them."""

    def __init__(self, url: str, headers: Mapping[str, str], *, wait_s: float = 0.0) -> None:
        """``wait_s``: how long a server beside may still show what was taken away here.

        Caches are told after that, or they would ask it and keep the picture again.
        """
        self._url, self._headers, self._wait_s = url, dict(headers), wait_s
        self._telling = asyncio.Lock()

    async def tell(self, store: JobStore, forget: Callable[[str], None]) -> None:
        """Tell of all pictures of which caches weren't told; what fails is told the next time.

        ``forget`` is told first: another process may have taken them away just now.
        """
        async with self._telling:
            await asyncio.sleep(self._wait_s)
            while removals := await store.files.unpurged(limits.PURGED_AT_ONCE_MAX):
                ids = [removal.image_id for removal in removals]
                for image_id in ids:
                    forget(image_id)
                if not await self._told(ids):
                    return
                for image_id in ids:
                    await store.files.purged(image_id)

    async def _told(self, ids: list[str]) -> bool:
        try:
            async with httpx.AsyncClient(timeout=limits.PURGE_S_MAX, trust_env=False) as client:
                answer = await client.post(
                    self._url,
                    json={"tags": ids},
                    headers={**self._headers, "Surrogate-Key": " ".join(ids)},
                )
        except httpx.HTTPError as error:
            log.error("caches_not_purged", reason=repr(error), count=len(ids))
            return False
        if not answer.is_success:
            log.error("caches_not_purged", status=answer.status_code, count=len(ids))
        return answer.is_success


def headers_of(text: str | None) -> dict[str, str]:
    """``Name: value`` of each line (or part, by semicolons). Raises OperatorError."""
    found = {}
    for part in (text or "").replace("\n", ";").split(";"):
        if part.strip():
            name, colon, value = part.partition(":")
            if not colon or not name.strip() or not value.strip():
                raise OperatorError("write purge_headers as Name: value", field="purge_headers")
            found[name.strip()] = value.strip()
    return found
