"""The server that is killed: started, waited for, killed, and what it left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

START_S_MAX = 300.0  # until an engine is warm, on a busy machine
LEFT_S_MAX = 20.0  # for the children of a killed server to end
_POLL_S = 0.03
_SERVE = [sys.executable, "-m", "calotype.cli", "serve"]


class Server:
    """One installation, with one engine on one thread, whichever process serves it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        """Start it; return at once."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CALOTYPE_")}
        options = ["--engine-threads", "1", "--finish-processes", "1"]
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "calotype.cli",
                    "serve",
                    "--port",
                    str(self._port),
                    *options,
                ],
                env={**inherited, "CALOTYPE_HOME": str(self.home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.starts += 1

    def wait_ready(self) -> float:
        """Wait until it has a warm engine; return the seconds that took. Raises RuntimeError."""
        begin = time.monotonic()
        while time.monotonic() - begin < START_S_MAX:
            if self._running.poll() is not None:
                raise RuntimeError(f"the server ended by itself:\n{self.log_tail()}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5.0).is_success:
                    return time.monotonic() - begin
            except httpx.TransportError:
                pass
            time.sleep(_POLL_S)
        raise RuntimeError(f"not ready after {START_S_MAX:g} s:\n{self.log_tail()}")

    def kill(self) -> list[int]:
        """SIGKILL the server; return the processes it had started, which have to end by now."""
        children = _descendants(self._running.pid)
        self._running.kill()
        self._running.wait()
        return children

    def kill_engine(self) -> bool:
        """SIGKILL its engine; False if there is none just now."""
        for pid in _descendants(self._running.pid):
            if b"calotype.engine" in _command(pid):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def stop(self) -> None:
        """End it politely."""
        self._running.terminate()
        self._running.wait(60.0)

    def end(self) -> None:
        """Leave no process, whatever happened."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log_tail(self) -> str:
        """The end of what it printed."""
        return (self.home / "server.log").read_text(errors="replace")[-2_000:]

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        return self._process


def still_alive(pids: list[int]) -> list[int]:
    """Of a killed server's processes, those that don't end."""
    deadline = time.monotonic() + LEFT_S_MAX
    while (alive := [pid for pid in pids if b"calotype" in _command(pid)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(_POLL_S)
    return alive


def _descendants(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in path.read_text().split()]
        except OSError:  # it has ended meanwhile
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
