"""``calotype logs``: what the server and its engines wrote, and go on to write."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from calotype.cli.console import AsJson, Home
from calotype.core import limits
from calotype.core.errors import InvalidInput, OperatorError

SERVER = "server"
_POLL_S = 0.25
_TAIL_BYTES_MAX = 2 * limits.SERVER_LOG_BYTES_MAX
_SAID_FIRST = ("timestamp", "level", "event")  # of the server's lines

Name = Annotated[
    str | None, typer.Argument(help="Only what this one wrote: server, engine-0 ...; else all.")
]
Lines = Annotated[
    int,
    typer.Option("-n", "--lines", min=0, max=limits.LOG_LINES_MAX, help="Last lines of each."),
]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")]


def logs(
    *,
    name: Name = None,
    lines: Lines = 50,
    follow: Follow = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Show the logs of the server and its engines; with --json, an object a line."""
    from calotype.settings import Settings

    folder = Settings(home=home).logs_folder
    files = {path.stem: LogTail(path) for path in _paths(folder, name)}
    for source, file in files.items():
        for line in file.last(lines):
            _say(source, line, as_json=as_json)
    try:
        while follow:
            time.sleep(_POLL_S)
            for path in _paths(folder, name):  # an engine may have begun its own meanwhile
                for line in files.setdefault(path.stem, LogTail(path)).more():
                    _say(path.stem, line, as_json=as_json)
    except KeyboardInterrupt:
        pass


class LogTail:
    """A log file that grows, and may be begun anew under its name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._part = b""  # of a line that isn't ended yet

    def last(self, count: int) -> list[str]:
        """The last lines there are; ``more`` goes on after them."""
        lines = self.more()
        return lines[-count:] if count else []

    def more(self) -> list[str]:
        """What was added since, to the end of the file that was read and then to another."""
        data = self._file.read() if self._file else b""
        if self._file is None or self._is_another():
            data += self._begin()
        *whole, self._part = (self._part + data).split(b"\n")
        return [line.decode(errors="replace") for line in whole]

    def _is_another(self) -> bool:
        assert self._file is not None, "it was begun"
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:  # the next is about to be made
            return False

    def _begin(self) -> bytes:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return b""
        if self._file is not None:
            self._file.close()
        self._file = file
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES_MAX))
        return file.read()


def _paths(folder: Path, name: str | None) -> list[Path]:
    """The logs there are, the server's first. Raises OperatorError, or InvalidInput for a name."""
    found = sorted(folder.glob("*.log"), key=lambda path: (path.stem != SERVER, path.stem))
    if not found:
        raise OperatorError(f"there is no log in {folder}: no server has run on this home folder")
    known = [path.stem for path in found]
    if name is not None and name not in known:
        said = f"there is no log of {name}; there are {', '.join(known)}"
        raise InvalidInput(said, field="name", limit=known)
    return [path for path in found if name in (None, path.stem)]


def _say(source: str, line: str, *, as_json: bool) -> None:
    said = _fields(line) if source == SERVER else None
    if as_json:
        text = json.dumps({"source": source, **(said or {"text": line})}, ensure_ascii=False)
    elif said:
        more = "".join(f" {key}={value}" for key, value in said.items() if key not in _SAID_FIRST)
        text = f"{source} | {' '.join(str(said.get(key, '')) for key in _SAID_FIRST)}{more}"
    else:
        text = f"{source} | {line}"
    print(text, flush=True)


def _fields(line: str) -> dict[str, Any] | None:
    """A line of the server's; None if it isn't one."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
