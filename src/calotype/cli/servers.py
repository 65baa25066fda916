"""Find the server that runs on this home folder, or start one and end it again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

from calotype.cli.client import Server
from calotype.core.errors import OperatorError
from calotype.settings import Settings

START_S_MAX = 60.0  # for a server of ours to answer
_END_S_MAX = 20.0  # for it to end by itself: requests in flight, engines, the store
_POLL_S = 0.05


def find_server(settings: Settings) -> Server | None:
    """Return CALOTYPE_URL's server, else the one that runs on the home folder, else None."""
    if url := os.environ.get("CALOTYPE_URL"):
        return Server(url.rstrip("/"), _key(settings))
    url = find_url(settings)
    return Server(url, _key(settings)) if url and is_alive(url) else None


def find_url(settings: Settings, pid: int | None = None) -> str | None:
    """Read the server file: None if there is none, or it isn't that of process ``pid``."""
    try:
        body = json.loads(settings.server_file.read_text(encoding="utf-8"))
        matches = pid is None or body["pid"] == pid
        return str(body["url"]) if matches else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_alive(url: str) -> bool:
    """Tell whether a Calotype server answers there."""
    try:
        answer = httpx.get(f"{url}/healthz", timeout=5.0, trust_env=False)
        return answer.status_code == 200 and answer.json() == {"status": "ok"}
    except (httpx.HTTPError, ValueError):
        return False


def is_port_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError:
        return False
    return True


@contextmanager
def some_server(settings: Settings) -> Iterator[Server]:
    """Lend the running server, or one that is started on a free port and ended afterwards."""
    if found := find_server(settings):
        yield found
        return
    with own_server(settings, port=0) as (server, _):
        yield server


@contextmanager
def own_server(settings: Settings, port: int) -> Iterator[tuple[Server, subprocess.Popen[bytes]]]:
    """Start a server on this home folder, wait until it answers, and end it afterwards.

    It is in a session of its own, so that Ctrl-C reaches this process only; should this process
    be killed, the pipe to its stdin closes and it ends as well. Its log is <home>/server.log.
    """
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_path = settings.home / "server.log"
    command = [sys.executable, "-m", "calotype.cli", "serve", "--end-with-stdin"]
    command += ["--home", str(settings.home), "--port", str(port)]
    with log_path.open("wb") as log, terminating_as_interrupt():
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # it has the key: the caller reads that from its file
            stderr=log,
            start_new_session=True,
        )
        try:
            yield _await_server(settings, process, log_path), process
        finally:
            _end(process)


def _await_server(settings: Settings, process: subprocess.Popen[bytes], log_path: Path) -> Server:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise OperatorError(f"the server ended at once: {_last_line(log_path)}")
        url = find_url(settings, pid=process.pid)
        if url and is_alive(url):
            return Server(url, _key(settings))
        time.sleep(_POLL_S)
    raise OperatorError(f"the server didn't answer within {START_S_MAX:.0f} s; see {log_path}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, wait, and only then kill it."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    process.terminate()
    try:
        process.wait(_END_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def terminating_as_interrupt() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP end this process as Ctrl-C does: after cleaning up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _key(settings: Settings) -> str:
    if key := os.environ.get("CALOTYPE_KEY"):
        return key
    try:
        return settings.key_path.read_text(encoding="utf-8").strip()
    except OSError:
        raise OperatorError(
            f"no API key: {settings.key_path} can't be read and CALOTYPE_KEY isn't set; "
            "make a key with `calotype keys create`"
        ) from None


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("calotype: ") if lines else f"it says nothing; see {path}"
