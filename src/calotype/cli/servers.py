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
from typing import IO

import httpx

from calotype.cli.client import Server
from calotype.cli.home import prepare_home
from calotype.core.errors import OperatorError
from calotype.settings import Settings

START_S_MAX = 60.0  # for a server of ours to answer
_END_S_MAX = 20.0  # for it to end by itself: requests in flight, engines, the store
_POLL_S = 0.05
_LOG_BYTES_MAX = 1024 * 1024  # of server.log; past it, it starts over with the next server


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
    be killed, the pipe to its stdin closes and it ends as well. Its log is <home>/server.log, and
    its key the one of that folder, whatever CALOTYPE_KEY says of other servers.
    """
    log_path = prepare_home(settings) / "server.log"
    command = [sys.executable, "-m", "calotype.cli", "serve", "--end-with-stdin"]
    command += ["--home", str(settings.home), "--port", str(port)]
    with _open_log(log_path) as log, terminating_as_interrupt():
        logged_before = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,  # it has the key: the caller reads that from its file
            stderr=log,
            start_new_session=True,
        )
        try:
            yield _await_server(settings, process, log_path, logged_before), process
        finally:
            _end(process)


def _open_log(path: Path) -> IO[bytes]:
    """Open the server's log to add to it, or to begin anew where it has grown long."""
    is_long = path.is_file() and path.stat().st_size > _LOG_BYTES_MAX
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if is_long else os.O_APPEND)
    log = os.fdopen(os.open(path, flags, 0o600), "wb" if is_long else "ab")
    log.seek(0, os.SEEK_END)
    return log


def _await_server(
    settings: Settings, process: subprocess.Popen[bytes], log_path: Path, logged_before: int
) -> Server:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise OperatorError(f"the server ended at once: {_last_line(log_path, logged_before)}")
        url = find_url(settings, pid=process.pid)
        if url and is_alive(url):
            return Server(url, _local_key(settings))
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
    """The key for a server that is there already."""
    return os.environ.get("CALOTYPE_KEY") or _local_key(settings)


def _local_key(settings: Settings) -> str:
    """The home folder's own key, which each start of its server sees to."""
    try:
        return settings.key_path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise OperatorError(
            f"no API key: {settings.key_path} can't be read and CALOTYPE_KEY isn't set; start the "
            "server again, which makes one, or set CALOTYPE_KEY to one of `calotype keys create`"
        ) from None


def _last_line(path: Path, after: int) -> str:
    """The last line the server wrote, ``after`` bytes of earlier servers."""
    lines = path.read_bytes()[after:].decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("calotype: ") if lines else f"it says nothing; see {path}"
