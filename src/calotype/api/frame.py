"""What every request gets, whatever its route: an id, security headers, a log line, and a problem
body in place of a stack trace.

Log lines carry the path only: no query (it has signatures), no headers (keys), no body (prompts).
"""

from __future__ import annotations

import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calotype.api.problems import ProblemResponse
from calotype.core.errors import InternalError
from calotype.core.ids import new_id

_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_CLIENT_WENT_AWAY = 499  # as nginx logs it; never sent
_QUIET_PATHS = ("/healthz", "/readyz")  # asked every second by load balancers

log = structlog.get_logger("calotype.api")


class Frame:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and see to its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, began = new_id("req"), time.monotonic()
        status: int | None = None

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(
                    {**SECURITY_HEADERS, "X-Request-Id": request_id}
                )
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_framed)
            except ClientDisconnect:
                status = _CLIENT_WENT_AWAY
            except Exception:
                log.exception("request_broke", method=scope["method"], path=scope["path"])
                if status is not None:
                    raise  # the answer has begun: all that's left is to break the connection
                await ProblemResponse(_unexpected(request_id))(scope, receive, send_framed)
            finally:
                _log_request(scope, status, time.monotonic() - began)


def _unexpected(request_id: str) -> InternalError:
    return InternalError(
        f"the platform failed at this; its log says why under {request_id}", request_id=request_id
    )


def _log_request(scope: Scope, status: int | None, duration_s: float) -> None:
    level = "debug" if scope["path"] in _QUIET_PATHS else "info"
    getattr(log, level)(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status,
        duration_s=round(duration_s, 4),
    )
