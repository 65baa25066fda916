"""Starts a real Calotype server for tests: its own process, its own home, a free port.

Shared by the tests of the flow and of the page. It knows the command line and the addresses of
health, and nothing of what is inside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

START_S_MAX = 240.0  # a cold import of torch on a machine that is busy with other work
STOP_S_MAX = 15.0  # for a polite end, before it is killed
POLL_S = 0.1
ROOT = Path(__file__).parents[1]
_curves: dict[str, str] = {}  # by file name: what passes take here, as an earlier server measured


@dataclass(frozen=True)
class Server:
    """A running server. ``key`` is the secret of the key it made on its first start."""

    url: str  # http://127.0.0.1:<port>, no slash at the end
    key: str
    process: subprocess.Popen[bytes]
    home: Path

    @property
    def headers(self) -> dict[str, str]:
        """What a request with the first key carries."""
        return {"Authorization": f"Bearer {self.key}"}


@contextmanager
def running_server(
    home: Path,
    environment: dict[str, str] | None = None,
    *,
    is_warm: bool = True,
    is_drawn: bool = True,
) -> Iterator[Server]:
    """Serve from ``home`` (made if missing) until the block ends; yield once it says it is ready.

    Without ``is_warm`` once it answers: its engine still imports torch, which takes seconds.
    Without ``is_drawn`` its engine is the fake one, of flat pictures, which is there at once.
    ``environment`` is added to the process's own, from which CALOTYPE_ settings are taken out.
    A second block on the same home is the same installation started again, with the same key.
    Raises RuntimeError with the end of the server's log if it ends or isn't ready in time.
    """
    measured = home / "engine"
    measured.mkdir(parents=True, exist_ok=True)
    for name, curve in _curves.items():  # seconds of a core, at each start in a new home
        if not (measured / name).exists():
            (measured / name).write_text(curve)
    log = home / "server.log"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CALOTYPE_")}
    program = "calotype.cli" if is_drawn else "tests.faked"
    command = [sys.executable, "-m", program, "serve", "--end-with-stdin"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--port", "0", "--home", str(home)],
            env={**inherited, "CALOTYPE_HOME": str(home), **(environment or {})},
            cwd=ROOT,
            stdin=subprocess.PIPE,  # open as long as we live, whatever ends us
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        path = "readyz" if is_warm else "healthz"
        url = _wait_until_ready(home / "server.json", path, process, log)
        yield Server(url, (home / "key").read_text().strip(), process, home)
    finally:
        _end(process)
        _curves.update((it.name, it.read_text()) for it in measured.glob("curves-*.json"))


def engine_pid(server: Server) -> int:
    """The server's child that runs the engine."""
    pids = engine_pids(server)
    assert pids, "the server has no engine process"
    return pids[0]


def engine_pids(server: Server) -> list[int]:
    """The server's children that run engines; none while one is begun anew."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    pids = [int(pid) for pid in children.read_text().split()]
    return [it for it in pids if b"calotype.engine" in Path(f"/proc/{it}/cmdline").read_bytes()]


def _wait_until_ready(file: Path, path: str, process: subprocess.Popen[bytes], log: Path) -> str:
    """Its address, which it writes itself: of a port that is free now another may make use."""
    deadline = time.monotonic() + START_S_MAX
    said = "nothing"
    with httpx.Client(
        timeout=5.0, trust_env=False, verify=False
    ) as client:  # made once: it is dear
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}:\n{_tail(log)}")
            try:
                written = json.loads(file.read_text())
                if written["pid"] == process.pid:  # not one that was killed
                    answer = client.get(f"{written['url']}/{path}")
                    said = answer.text
                    if answer.is_success:
                        return str(written["url"])
            except (OSError, ValueError, httpx.TransportError) as error:  # none yet, or half of it
                said = repr(error)
            time.sleep(POLL_S)
    raise RuntimeError(f"not ready after {START_S_MAX:g} s ({said[:500]}):\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S_MAX)
