"""The command line, run for tests as a person runs it: real processes in a home folder."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from calotype.cli import main
from calotype.cli.servers import find_server
from calotype.settings import Settings
from tests.serving import ROOT, START_S_MAX


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALOTYPE_")}
    return {**kept, "CALOTYPE_HOME": str(home)}


def calotype(
    home: Path, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "calotype.cli", *arguments],
        env={**environment(home), **(env or {})},
        cwd=cwd or home,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def here(
    home: Path, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The same in this process: a second or two sooner, where a command is no process's business.

    Not for ``serve``, which sets up a process's logging.
    """
    code: Any = 0
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["calotype", *arguments])
        patch.setattr(sys, "stdin", io.StringIO())  # nobody answers
        patch.chdir(cwd or home)
        for name, value in {"CALOTYPE_HOME": str(home), **(env or {})}.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def start(
    home: Path, *arguments: str, through: Sequence[str] = (), program: str = "calotype.cli"
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*through, sys.executable, "-m", program, *arguments],
        env=environment(home) | {"PYTHONPATH": str(ROOT)},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(home: Path) -> list[str]:
    """Command lines of the processes that serve this home folder, or were started by such."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"CALOTYPE_HOME={home}".encode() in path.read_bytes().split(b"\0"):
                found.append(path.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it has ended, or is another user's
    return found


def wait_for_server(home: Path, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        server = find_server(Settings(home=home)) if (home / "server.json").exists() else None
        if server:
            return server.url
        time.sleep(0.05)
    raise AssertionError(f"no server within {START_S_MAX:g} s")
