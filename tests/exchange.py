"""A hash exchange on a port of this machine, in ThreatExchange's shape: real HTTP, or HTTPS."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


def update(key: int, digits: str = "", *, at: int = 1, kind: str = "HASH_PDQ") -> dict[str, Any]:
    """An entry as it is sent; one without a hash is a deletion."""
    return {
        "id": str(key),
        "indicator": digits,
        "type": kind,
        "last_updated": at,
        "should_delete": not digits,
    }


@dataclass
class StandIn:
    """What it knows, what it was asked, and how it answers."""

    url: str = ""
    updates: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 2  # entries, whatever is asked for
    asked: list[str] = field(default_factory=list)  # paths with their questions
    tokens: list[str | None] = field(default_factory=list)
    # Instead of a page, by how many requests came before: (status, body), or None.
    instead: Callable[[int], tuple[int, bytes] | None] = lambda count: None

    @property
    def etag(self) -> str:
        return f'"{len(self.updates)}"'

    def page(self, path: str) -> bytes:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        since, after = int(asked["start_time"]), int(asked.get("after", 0))
        wanted = [each for each in self.updates if each["last_updated"] >= since]
        body: dict[str, Any] = {"data": wanted[after : after + self.page_size]}
        if after + self.page_size < len(wanted):
            more = f"?start_time={since}&after={after + self.page_size}"
            body["paging"] = {"next": self.url + more}
        return json.dumps(body).encode()


@contextmanager
def exchanging(context: ssl.SSLContext | None = None) -> Iterator[StandIn]:
    """An exchange that knows nothing yet."""
    standin = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            count = len(standin.asked)
            standin.asked.append(self.path)
            standin.tokens.append(self.headers.get("Authorization"))
            status, body = standin.instead(count) or (200, b"")
            is_same = self.headers.get("If-None-Match") == standin.etag
            if status == 200 and is_same:
                status = 304
            elif status == 200 and not body:
                body = standin.page(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status in (200, 304):
                self.send_header("ETag", standin.etag)
            if 300 < status < 304:
                self.send_header("Location", standin.url)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing: tests look at what was asked."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    standin.url = (
        f"http{'s' if context else ''}://127.0.0.1:{server.server_port}/v1/9/threat_updates"
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield standin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
