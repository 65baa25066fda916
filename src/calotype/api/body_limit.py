"""The bound on a request's body, kept while it is read: chunked bodies don't say their size.

Starlette has one too; its answer is plain text, and every error here is a problem body.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calotype.api.problems import ProblemResponse
from calotype.core import limits
from calotype.core.errors import BodyTooLarge


class BodyLimit:
    """ASGI middleware: raise BodyTooLarge from ``receive``, or answer it where the size is told.

    ``others`` are the paths whose bodies may be of another size, with it.
    """

    def __init__(
        self,
        app: ASGIApp,
        bytes_max: int = limits.BODY_BYTES_MAX,
        others: Mapping[str, int] | None = None,
    ) -> None:
        self.app = app
        self.bytes_max, self.others = bytes_max, dict(others or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, with a ``receive`` that counts."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        bytes_max = self.others.get(scope["path"], self.bytes_max)
        told = Headers(scope=scope).get("content-length", "")
        if told.isdecimal() and int(told) > bytes_max:
            await ProblemResponse(_error(bytes_max))(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > bytes_max:
                raise _error(bytes_max)
            return message

        await self.app(scope, receive_counted, send)


def _error(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes", field="body", limit=limit)
