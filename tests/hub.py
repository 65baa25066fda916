"""A hub of the Hugging Face kind, as far as pulling a model goes: real HTTP, on this machine.

By the API that huggingface_hub 2 speaks: ``/api/models/NAME/revision/REVISION``, and files at
``/NAME/resolve/REVISION/FILE``, large ones behind a redirect to another host.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_somebody_who_may"
COMMIT = "c0ffee" * 6 + "c0ff"
_LARGE_BYTES = 1024  # from here on a file lies elsewhere, and is known by its SHA-256


@dataclass
class Repo:
    """What a repository has, and how it behaves."""

    files: Mapping[str, bytes]
    licence: str | None = "apache-2.0"
    is_gated: bool = False
    commit: str = COMMIT  # as it is told
    lies: Mapping[str, bytes] = field(default_factory=dict)  # sent in place of a file's bytes
    stops_at: int | None = None  # bytes of a large file after which nothing comes any more, once


@dataclass
class Asked:
    """A request, as it came."""

    method: str
    path: str
    range: str | None
    token: str | None


class Hub(ThreadingHTTPServer):
    """Serves ``repos`` by their names; what was asked of it is in ``asked``."""

    daemon_threads = True

    def __init__(self, repos: Mapping[str, Repo]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.asked = dict(repos), list[Asked]()
        self.has_stopped = threading.Event()  # a file was left in the middle
        self.may_end = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def elsewhere(self) -> str:
        """Another host, where large files lie."""
        return f"http://localhost:{self.server_port}"


@contextmanager
def running(repos: Mapping[str, Repo]) -> Iterator[Hub]:
    hub = Hub(repos)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.may_end.set()
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def _answer(self) -> None:
        token = self.headers.get("Authorization")
        self.server.asked.append(Asked(self.command, self.path, self.headers.get("Range"), token))
        parts = [unquote(it) for it in urlsplit(self.path).path.strip("/").split("/")]
        is_api, is_elsewhere = parts[:2] == ["api", "models"], parts[0] == "elsewhere"
        parts = parts[2:] if is_api else parts[1:] if is_elsewhere else parts
        repo = self.server.repos.get("/".join(parts[:2]))
        if repo is None:
            self._send(401, {"X-Error-Code": "RepoNotFound"})
        elif is_api:
            self._tell(repo, "/".join(parts[:2]), parts[3] if len(parts) > 3 else "main")
        elif is_elsewhere:
            self._file(repo, "/".join(parts[2:]))
        elif repo.is_gated and token != f"Bearer {TOKEN}":
            self._send(403 if token else 401, {"X-Error-Code": "GatedRepo"})
        else:
            self._resolve(repo, parts)

    def _tell(self, repo: Repo, name: str, revision: str) -> None:
        if revision not in ("main", COMMIT):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
            return
        body = {
            "id": name,
            "sha": repo.commit,
            "private": False,
            "gated": "manual" if repo.is_gated else False,
            "tags": [],
            "cardData": {"license": repo.licence} if repo.licence else None,
            "siblings": [_sibling(file, data) for file, data in repo.files.items()],
        }
        self._send(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _resolve(self, repo: Repo, parts: list[str]) -> None:
        file = "/".join(parts[4:])
        if parts[2:4] != ["resolve", COMMIT] or file not in repo.files:
            self._send(404, {"X-Error-Code": "EntryNotFound"})
            return
        data = repo.files[file]
        known = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        if len(data) < _LARGE_BYTES:
            self._send(200, known, repo.lies.get(file, data))
            return
        known |= {
            "X-Linked-Size": str(len(data)),
            "X-Linked-ETag": hashlib.sha256(data).hexdigest(),
        }
        place = f"{self.server.elsewhere}/elsewhere/{'/'.join(parts[:2])}/{file}"
        self._send(302, {**known, "Location": place})

    def _file(self, repo: Repo, file: str) -> None:
        data = repo.lies.get(file, repo.files[file])
        said = self.headers.get("Range")
        begin = int(said.removeprefix("bytes=").rstrip("-")) if said else 0
        headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if said else {}
        stop, repo.stops_at = repo.stops_at, None
        if stop is None or self.command == "HEAD":
            self._send(206 if said else 200, headers, data[begin:])
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:stop])
        self.wfile.flush()
        self.server.has_stopped.set()
        self.server.may_end.wait()
        self.close_connection = True

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    told: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git}
    if len(data) >= _LARGE_BYTES:
        digest = hashlib.sha256(data).hexdigest()
        told["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
    return told
