"""One server process: its lock, its socket, its signals, and what it leaves for clients to find.

The socket listens before the platform starts, so that early requests wait instead of being
refused. SIGINT, SIGTERM or (if asked for) the end of stdin stop it: event streams end, requests in
flight get SHUTDOWN_S_MAX, then the platform stops, in STOP_S_MAX or not in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI

from calotype.api.app import create_app
from calotype.cli.home import keep_private, prepare_home
from calotype.cli.logging_setup import log_file
from calotype.core.errors import InternalError, OperatorError
from calotype.files.private import write_private
from calotype.flow.platform import Platform
from calotype.settings import Settings

SHUTDOWN_S_MAX = 5
STOP_S_MAX = 8.0  # for engines to end (they get 5 s) and for what the store has yet to write
_BACKLOG = 1024  # connections that wait to be accepted

log = structlog.get_logger("calotype.server")


def run_server(
    settings: Settings, announce: Callable[[str, str | None], None], *, end_with_stdin: bool = False
) -> None:
    """Serve until told to stop; ``announce(url, new_key)`` once requests are taken.

    Raises OperatorError when the home folder is no use or has a server already, or the port is
    taken, and InternalError when the dispatcher broke: whoever started us should start us again.
    """
    prepare_home(settings)
    keep_private(settings)
    with _only_server(settings), _listening(settings) as listener:
        log_file.open(settings.logs_folder / "server.log")
        asyncio.run(_serve(settings, listener, announce, end_with_stdin=end_with_stdin))


class _Server(uvicorn.Server):
    """Uvicorn, without its signal handlers: ours stop the streams and the platform as well."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_for(app: FastAPI) -> uvicorn.Server:
    """What serves the app, by whatever parser of HTTP is quickest here."""
    return _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S_MAX,
        )
    )


async def _serve(
    settings: Settings,
    listener: socket.socket,
    announce: Callable[[str, str | None], None],
    *,
    end_with_stdin: bool,
) -> None:
    stopping = asyncio.Event()
    _stop_on_signals(stopping, end_with_stdin=end_with_stdin)
    platform = await Platform.start(settings)
    try:
        app = create_app(platform)
        server = server_for(app)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        url = _url(listener)
        _write_server_file(settings.server_file, url)
        announce(url, platform.new_key)
        told = asyncio.create_task(stopping.wait())
        broken = asyncio.create_task(platform.broken())
        await asyncio.wait({serving, told, broken}, return_when=asyncio.FIRST_COMPLETED)
        fault = broken.result() if broken.done() else None
        for task in (told, broken):
            task.cancel()
        app.state.streams.stopping.set()
        server.should_exit = True
        await serving
        if fault is not None:
            raise InternalError(f"{fault}. Every job is stored: the next start goes on with them")
    finally:
        settings.server_file.unlink(missing_ok=True)
        await _stop(platform)


async def _stop(platform: Platform) -> None:
    """Stop the platform, but not for ever: its database may be gone for good.

    What a task of ours still waits for then is dropped: nobody was told that it is stored. Engines
    end with this process, whatever happens.
    """
    try:
        async with asyncio.timeout(STOP_S_MAX):
            await platform.stop()
    except TimeoutError:
        log.error("not_stopped_in_order", after_s=STOP_S_MAX)


def _stop_on_signals(stopping: asyncio.Event, *, end_with_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    if not end_with_stdin:
        return

    def on_stdin() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stopping.set()

    loop.add_reader(sys.stdin.fileno(), on_stdin)


@contextmanager
def _only_server(settings: Settings) -> Iterator[None]:
    """Hold the home folder's lock. A POSIX lock: it goes with its process, and no child has it."""
    path = settings.home / "server.lock"
    with path.open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OperatorError(
                f"a Calotype server already runs on {settings.home}", field="home"
            ) from error
        yield


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    host, port = settings.host, settings.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With its protocol: without, asyncio lets answers wait for the client's, 40 ms each.
        listener = socket.socket(family, kind, protocol)
        with contextlib.closing(listener):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
            yield listener
    except OSError as error:
        raise OperatorError(
            f"can't listen on {host} port {port}: {error.strerror or error}; "
            "choose another with --port (0 takes a free one)",
            field="port",
        ) from error


def _url(listener: socket.socket) -> str:
    """Where a client on this machine reaches the server."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _write_server_file(path: Path, url: str) -> None:
    body = {"pid": os.getpid(), "url": url, "started_at": datetime.now(UTC).isoformat()}
    write_private(path, json.dumps(body))
