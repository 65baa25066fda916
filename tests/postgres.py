"""Starts a real PostgreSQL server for tests: its own process, its own folder, no port.

It listens on a socket in its folder only, and keeps nothing past the end of the tests, so that it
needn't wait for the disk. A shell that watches a pipe of ours ends it and removes its folder: it
never outlives us, whatever ends us. Where there is none, ``python -m tests.postgres`` installs
Debian's package (``make test`` runs it). Knows nothing of what is stored.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests import debian

DEBIAN_FOLDER = Path("/usr/lib/postgresql")  # a folder a version, not on PATH
START_S_MAX = 60.0
STOP_S_MAX = 20.0
RESTART_S = 0.5
POLL_S = 0.05
# The shell: it waits for a line, or the end of its input. Nobody waits for its files to be gone.
WATCH = 'read -r _; "$0"/pg_ctl stop -s -m immediate -D "$1"/data; rm -rf "$1" &'
UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to run as root
CONNECTIONS_MAX = 200


@dataclass
class Postgres:
    """A running server."""

    programs: Path  # the folder of psql and the others
    folder: Path  # its data, and its socket
    process: subprocess.Popen[bytes]
    is_durable: bool
    _names: Iterator[int]

    def new_database(self, like: str = "") -> str:
        """Make a database; return its address, as a person would write it.

        It is empty, or a copy of that at the address ``like``, to which nobody may be connected.
        """
        name = f"test{next(self._names)}"
        template = like.partition("?")[0].rpartition("/")[2] or "template1"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def sql(self, command: str, database: str = "postgres") -> str:
        """Run SQL by hand, as an operator would; return what it printed."""
        options = ["-h", str(self.folder), "-U", "postgres", "-XAt", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(
            [str(self.programs / "psql"), *options, "-d", database, "-c", command],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def kill(self) -> None:
        """End it as a power cut would: without a word to anybody."""
        self.process.kill()
        self.process.wait(STOP_S_MAX)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it say nothing more, as one whose machine is gone, until the block ends."""
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        pids = [parent, *map(int, children)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def shut(self) -> None:
        """End it as an operator would: whoever is connected is cut off."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(STOP_S_MAX)

    def start(self) -> None:
        """Start it again on its folder; return once it answers."""
        time.sleep(RESTART_S)  # its children notice its end, and hold its memory until they do
        self.process = _start(self.programs, self.folder, is_durable=self.is_durable)
        _wait_until_ready(self)


def find() -> Path | None:
    """The folder of PostgreSQL's programs, the newest version's; None where there is no server."""
    versions = DEBIAN_FOLDER.glob("*/bin/postgres")
    found = sorted(versions, key=lambda path: int(path.parts[-3]), reverse=True)
    on_path = shutil.which("postgres")
    if found or on_path:
        return (found[0] if found else Path(str(on_path)).resolve()).parent
    return None


@contextmanager
def running_postgres(*, is_durable: bool = False) -> Iterator[Postgres]:
    """Run a server until the block ends; with ``is_durable`` its commits wait for the disk.

    Raises RuntimeError, with its log, if it isn't there or doesn't start.
    """
    programs = find()
    if programs is None:
        raise RuntimeError("no PostgreSQL: run `python -m tests.postgres` (`make test` does)")
    # Not below pytest's folder: the path of a socket has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    user = _user()
    if user:
        shutil.chown(folder, **user)
    options = ["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]
    initdb = [str(programs / "initdb"), "-D", str(folder / "data"), *options]
    watch = ["sh", "-c", WATCH, str(programs), str(folder)]
    with subprocess.Popen(watch, stdin=subprocess.PIPE, **_alone(user)) as watcher:
        try:
            subprocess.run(initdb, check=True, capture_output=True, **_as(user))
            process = _start(programs, folder, is_durable=is_durable)
            server = Postgres(programs, folder, process, is_durable, count(1))
            _wait_until_ready(server)
            yield server
        finally:
            assert watcher.stdin is not None, "it was asked for"
            watcher.stdin.write(b"\n")  # a process that was forked of ours may hold its input open
    server.process.wait(STOP_S_MAX)


def _start(programs: Path, folder: Path, *, is_durable: bool) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "max_connections": str(CONNECTIONS_MAX),
        "fsync": "on" if is_durable else "off",
        "full_page_writes": "on" if is_durable else "off",
        "synchronous_commit": "on" if is_durable else "off",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "server.log").open("ab") as log:
        command = [str(programs / "postgres"), "-D", str(folder / "data"), *options]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, **_alone(_user(), log))


def _wait_until_ready(server: Postgres) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            server.sql("SELECT 1")
        except RuntimeError:
            time.sleep(POLL_S)
        else:
            return
    log = (server.folder / "server.log").read_text(errors="replace")[-3000:]
    raise RuntimeError(f"PostgreSQL didn't start:\n{log}")


def _user() -> dict[str, str]:
    """Whom to run it as: ourselves, unless that is root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    name = next(each for each in UNPRIVILEGED if each in known)
    return {"user": name, "group": grp.getgrgid(known[name].pw_gid).gr_name}


def _as(user: dict[str, str]) -> dict[str, Any]:
    return {**user, "extra_groups": [], "cwd": "/"} if user else {}


def _alone(user: dict[str, str], log: Any = subprocess.DEVNULL) -> dict[str, Any]:
    """In a session of its own: Ctrl-C in pytest is for pytest."""
    return {"stdout": log, "stderr": log, "start_new_session": True, **_as(user)}


if __name__ == "__main__":
    sys.exit(debian.ready(find, "postgresql", "PostgreSQL", "tests need its server."))
