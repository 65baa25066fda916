"""Writes down what the line is told and decides, and the jobs it is asked for, in order.

One file, appended to by every start of the server. It is for replaying and simulating, not for
going on after a crash: that is the job store's. So a line that is torn by a crash is cut off by the
next start, and a disk that is full ends the recording, not the server.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from calotype.core import limits
from calotype.core.decisions import Decision
from calotype.core.errors import OperatorError
from calotype.core.events import PolicyEvent
from calotype.core.nouns import Job
from calotype.policy import history
from calotype.policy.rules import Rules

log = structlog.get_logger("calotype.recorder")

_CHUNK_BYTES = 64 * 1024  # read from the end, to find the last line


class Recorder:
    """Appends to one file, a line for each fact."""

    def __init__(self, path: Path) -> None:
        """Open for appending; raise OperatorError where that can't be, or it is another file."""
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            written_at = path.stat().st_mtime if path.exists() else time.time()
            self._file: BinaryIO | None = path.open("a+b")
            last_s = _last_s(self._file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OperatorError(f"{path} can't be recorded to: {error}", field="record") from error
        self._begin_s = last_s + max(0.0, time.time() - written_at) - time.monotonic()
        self._bytes = path.stat().st_size

    def began(self, rules: Rules, standing: Mapping[str, Any] | None) -> None:
        """A line was made, with these."""
        self._write(history.began(self._at_s(time.monotonic()), rules, standing))

    def told(self, event: PolicyEvent, now: float, decisions: Sequence[Decision]) -> None:
        """The line was told this, and decided that."""
        self._write(history.told(self._at_s(now), now, event, decisions))

    def asked(self, job: Job) -> None:
        """A job was let in."""
        self._write(history.asked(self._at_s(time.monotonic()), job))

    def close(self) -> None:
        """The end of the recording; later calls write nothing."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _at_s(self, now: float) -> float:
        return round(self._begin_s + now, 6)

    def _write(self, line: str) -> None:
        if self._file is None:
            return
        data = f"{line}\n".encode()
        self._bytes += len(data)
        if self._bytes > limits.RECORD_BYTES_MAX:
            log.warning("recording_ended", file=str(self._path), limit=limits.RECORD_BYTES_MAX)
            self.close()
            return
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            log.error("recording_ended", file=str(self._path), reason=error.strerror)
            self._file = None  # not closed: that would write what couldn't be written again


def _last_s(file: BinaryIO) -> float:
    """``at_s`` of the last whole line, after which the file is cut; 0 if there is none."""
    at = end = file.seek(0, os.SEEK_END)
    tail = b""
    while at > 0 and tail.count(b"\n") < 2:  # the last line's end, and that of the one before
        size = min(_CHUNK_BYTES, at)
        at = file.seek(at - size)
        tail = file.read(size) + tail
        if len(tail) > limits.RECORD_LINE_BYTES_MAX:
            raise ValueError("its last line is longer than one of a recording")
    if not tail:
        return 0.0
    whole, _, torn = tail.rpartition(b"\n")
    last_s = float(json.loads(whole.rpartition(b"\n")[2])["at_s"])  # or it is another file: kept
    file.truncate(end - len(torn))
    return last_s
