"""The hash log, shown to others: its signed head, and proofs against it or an earlier one.

Whoever has a picture's file may have its entry shown, whoever kept a head that the log still begins
with it. Nothing is told of pictures that the asker doesn't have.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from calotype.core import limits
from calotype.core.errors import InvalidInput, NotFound
from calotype.jobs.hash_log import HashLog, Kept
from calotype.provenance import log_proofs
from calotype.provenance.certificates import SigningIdentity

_SHA256_CHARS = 64


class LogProofs:
    """Of one installation's log."""

    def __init__(self, log: HashLog, identity: SigningIdentity) -> None:
        self._log, self._identity = log, identity
        self._signing = asyncio.Lock()
        self._newest: tuple[int, float, dict[str, Any]] | None = None  # count, when, head

    async def head(self) -> dict[str, Any]:
        """The signed head of the log as it is now.

        The same one until an entry is added, or LOG_HEAD_S pass: however many ask, the key signs
        no more often. Raises OperatorError.
        """
        async with self._signing:
            count, root = await self._log.head()
            now, newest = time.monotonic(), self._newest
            if newest and newest[0] == count and now - newest[1] < limits.LOG_HEAD_S:
                return newest[2]
            signed = await self._signed(count, root)
            self._newest = count, now, signed
            return signed

    async def head_of(self, count: int) -> dict[str, Any]:
        """The head of the log when it had so many entries, signed now. Raises InvalidInput."""
        return await self._signed(*await self._log.head(count))

    async def of_file(self, sha256: str, count: int | None = None) -> dict[str, Any]:
        """The proof of the entry of the picture one of whose files has this hash.

        Raises NotFound, InvalidInput.
        """
        kept = await self._log.of_file(sha256) if len(sha256) == _SHA256_CHARS else None
        if kept is None:
            raise NotFound(
                "no picture in the log has a file of this SHA-256",
                field="sha256",
                limit="the SHA-256 of a file as it was delivered",
            )
        return await self._inclusion(kept, count)

    async def of_image(self, image_id: str, count: int | None = None) -> dict[str, Any]:
        """The same of an image, by its id; for the operator. Raises NotFound, InvalidInput."""
        kept = await self._log.of_image(image_id)
        if kept is None:
            raise NotFound(f"{image_id[:40]} isn't in the log", field="image", limit="a logged one")
        return await self._inclusion(kept, count)

    async def consistency(self, first: int, count: int | None = None) -> dict[str, Any]:
        """That the log begins with its ``first`` entries as they were. Raises InvalidInput."""
        told, path = await self._log.consistency(first, count)
        return log_proofs.consistency(first, told, path)

    async def _inclusion(self, kept: Kept, count: int | None) -> dict[str, Any]:
        if count is not None and count <= kept.number:
            least = kept.number + 1
            raise InvalidInput(
                f"the entry came later: it is number {least}", field="count", limit={"min": least}
            )
        proof = await self._log.proof(kept.number, count)
        return log_proofs.inclusion(kept.entry, kept.leaf, kept.number, proof.count, proof.path)

    async def _signed(self, count: int, root: bytes) -> dict[str, Any]:
        now = datetime.now(UTC)
        return await asyncio.to_thread(log_proofs.head, count, root, now, self._identity)
