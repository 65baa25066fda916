"""The bounds on requests' bodies, kept while they are read: size, time, pace, and memory in all.

Chunked bodies don't say their size, and a sender that is slow on purpose would hold what it was
given for ever. So a body has to come whole in its time and at a least pace, and files (the only
bodies that are large) may not hold more than so much memory together. Starlette bounds the size
too; its answer is plain text, and every error here is a problem body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calotype.api.problems import BodyTooSlow, ProblemResponse
from calotype.core import limits
from calotype.core.errors import BodyTooLarge, TooMany


class BodyLimit:
    """ASGI middleware: raise from ``receive`` what a body does wrong, or answer what a head tells.

    ``files`` are the paths whose bodies are files, with how large they may be.
    """

    def __init__(
        self,
        app: ASGIApp,
        bytes_max: int = limits.BODY_BYTES_MAX,
        files: Mapping[str, int] | None = None,
    ) -> None:
        self.app = app
        self.bytes_max, self.files = bytes_max, dict(files or {})
        self._held = 0  # bytes of files, of all requests that aren't over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, with a ``receive`` that counts."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_file = scope["path"] in self.files
        bytes_max = self.files.get(scope["path"], self.bytes_max)
        told = Headers(scope=scope).get("content-length", "")
        if told.isdecimal() and int(told) > bytes_max:
            await ProblemResponse(_too_large(bytes_max))(scope, receive, send)
            return
        body = _Body(receive, bytes_max)

        async def receive_counted() -> Message:
            before = body.received
            message = await body.receive()
            if is_file:
                self._held += body.received - before
                if self._held > limits.LARGE_BODIES_BYTES_MAX:
                    raise _too_many()
            return message

        try:
            await self.app(scope, receive_counted, send)
        finally:
            if is_file:
                self._held -= body.received


class _Body:
    """One body as it comes."""

    def __init__(self, receive: Receive, bytes_max: int) -> None:
        self._receive, self._bytes_max = receive, bytes_max
        self._now = asyncio.get_running_loop().time
        self._end_at = self._now() + limits.BODY_S_MAX
        self._part_at, self._part = self._now() + limits.BODY_PART_S_MAX, 0
        self.received, self._is_whole = 0, False

    async def receive(self) -> Message:
        """What comes next. Raises BodyTooLarge, BodyTooSlow."""
        if self._is_whole:  # what comes now is that the client goes away, whenever that is
            return await self._receive()
        try:
            async with asyncio.timeout_at(min(self._end_at, self._part_at)):
                message = await self._receive()
        except TimeoutError as error:
            raise self._too_slow() from error
        came = len(message.get("body", b""))
        self.received += came
        if self.received > self._bytes_max:
            raise _too_large(self._bytes_max)
        self._part += came
        if self._part >= limits.BODY_PART_BYTES:
            self._part_at, self._part = self._now() + limits.BODY_PART_S_MAX, 0
        self._is_whole = not message.get("more_body", False)
        return message

    def _too_slow(self) -> BodyTooSlow:
        if self._end_at <= self._part_at:
            most_s = limits.BODY_S_MAX
            told = f"the body didn't come whole within {most_s:g} s"
            return BodyTooSlow(told, field="body", limit={"max_s": most_s})
        part, part_s = limits.BODY_PART_BYTES, limits.BODY_PART_S_MAX
        told = f"less than {part} bytes of the body came in {part_s:g} s"
        return BodyTooSlow(told, field="body", limit={"min_bytes": part, "max_s": part_s})


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes", field="body", limit=limit)


def _too_many() -> TooMany:
    most = limits.LARGE_BODIES_BYTES_MAX
    return TooMany("other files are being sent", limit=most, retry_after_s=2)
