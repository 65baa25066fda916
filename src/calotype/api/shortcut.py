"""The short way of pictures that are there: no routing, no request objects, no frame.

Most of what a server is asked for are pictures that it has served before. Those it answers here,
with the same bytes and headers as ``images`` would. Whatever is less usual (an address that isn't
good, a form that has to be made first, a part of a file) goes the long way, which says why.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from calotype.api import images
from calotype.api.frame import SECURITY_HEADERS
from calotype.core.errors import CalotypeError
from calotype.flow.platform import Platform
from calotype.flow.showing import Shown

PREFIX = "/v1/images/"
_LONG_WAY = {b"range", b"if-range"}

log = structlog.get_logger("calotype.api")


class PictureShortcut:
    """ASGI middleware: answers for pictures, and leaves all else to the app."""

    def __init__(self, app: ASGIApp, platform: Platform) -> None:
        self.app, self._gallery = app, platform.gallery
        self._framing = [
            (name.lower().encode(), it.encode()) for name, it in SECURITY_HEADERS.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "http" and scope["path"].startswith(PREFIX):
            method = scope["method"]
            if method in {"GET", "HEAD"} and await self._answered(scope, send, method):
                return
        await self.app(scope, receive, send)

    async def _answered(self, scope: Scope, send: Send, method: str) -> bool:
        asked = dict(scope["headers"])  # of headers that come twice the last counts
        if not _LONG_WAY.isdisjoint(asked):
            return False
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=8))
        try:
            shown, data = self._gallery.showing.at_hand(
                scope["path"][len(PREFIX) :],
                accept=asked.get(b"accept", b"").decode("latin-1"),
                expires=query.get("expires", ""),
                signature=query.get("signature", ""),
            )
        except (CalotypeError, ValueError):
            return False
        if shown is None or data is None:
            return False
        known = asked.get(b"if-none-match", b"").decode("latin-1")
        is_known = bool(known) and images.is_known(known, shown.etag)
        await self._send(send, shown, b"" if is_known else data, is_known, method)
        log.debug("picture", path=scope["path"], status=304 if is_known else 200)
        return True

    async def _send(
        self, send: Send, shown: Shown, data: bytes, is_known: bool, method: str
    ) -> None:
        told = images.headers_of(shown, is_shared=self._gallery.is_shared)
        headers = [(name.lower().encode(), it.encode()) for name, it in told.items()]
        if not is_known:
            headers += [
                (b"content-type", shown.media_type.encode()),
                (b"content-length", str(len(data)).encode()),
            ]
        status = 304 if is_known else 200
        await send(
            {"type": "http.response.start", "status": status, "headers": headers + self._framing}
        )
        body = b"" if method == "HEAD" else data
        await send({"type": "http.response.body", "body": body})
