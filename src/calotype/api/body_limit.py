"""The bound on a request's body, kept while it is read: chunked bodies don't say their size.

Starlette has one too; its answer is plain text, and every error here is a problem body.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calotype.api.problems import ProblemResponse
from calotype.core import limits
from calotype.core.errors import BodyTooLarge


class BodyLimit:
    """ASGI middleware: raise BodyTooLarge from ``receive``, or answer it where the size is told."""

    def __init__(self, app: ASGIApp, bytes_max: int = limits.BODY_BYTES_MAX) -> None:
        self.app = app
        self.bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, with a ``receive`` that counts."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        if told.isdecimal() and int(told) > self.bytes_max:
            await ProblemResponse(self._error())(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.bytes_max:
                raise self._error()
            return message

        await self.app(scope, receive_counted, send)

    def _error(self) -> BodyTooLarge:
        limit = self.bytes_max
        return BodyTooLarge(f"the body has more than {limit} bytes", field="body", limit=limit)
