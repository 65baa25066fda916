"""Signed addresses of pictures, each tenant's with a key of its own that can be revoked."""

from __future__ import annotations

import asyncio
import time

import structlog

from calotype.core import limits
from calotype.delivery.links import Links
from calotype.delivery.names import Asked
from calotype.jobs.store import JobStore

log = structlog.get_logger("calotype.delivery")


class Addresses:
    """Makes and checks addresses; knows who revoked theirs."""

    def __init__(self, store: JobStore, links: Links) -> None:
        self._store, self._links = store, links
        self._revoked: dict[str, int] = {}

    async def load(self) -> None:
        """Read whose links were revoked."""
        self._revoked = await self._store.files.links_revoked()

    async def load_for_ever(self) -> None:
        """Do so every PICTURE_KNOWN_S: the command line revokes links beside a running server."""
        while True:
            await asyncio.sleep(limits.PICTURE_KNOWN_S)
            try:
                await self.load()
            except Exception:  # what was known goes on being known
                log.exception("revoked_links_not_read")

    def path(self, tenant: str, asked: Asked) -> str:
        """The address of a tenant's picture, below the server's own."""
        revoked = self._revoked.get(tenant, 0)
        return self._links.path(asked, tenant=tenant, revoked=revoked, now=time.time())

    def check(self, tenant: str, asked: Asked, *, expires: str, signature: str) -> float:
        """How many seconds an address is good on. Raises Unauthorized."""
        return self._links.check(
            asked,
            tenant=tenant,
            revoked=self._revoked.get(tenant, 0),
            expires=expires,
            signature=signature,
            now=time.time(),
        )
