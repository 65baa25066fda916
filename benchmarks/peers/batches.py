"""What servers that batch whole requests share: one pipeline call a group, and the steps told.

These servers answer once a picture is done and tell nothing of its steps. So that the time to the
first step is measured for them as for all, the process that draws reports steps by datagram, on a
Unix socket that their servers know nothing of.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from calotype.core.frames import decode
from calotype.core.messages import RunRow
from calotype.engine.plain_server import OnStep, Plain, alike

BATCH_MAX = 4  # requests: a whole batch is answered together, so a larger one delays more of them
BATCH_WAIT_S = 0.05  # for a batch to fill
WORKERS = 512  # requests handed over at a time: more than the benchmark asks
_DATAGRAM_BYTES_MAX = 4096


def to_json(row: RunRow) -> str:
    """A row as text, for servers that take JSON or want to know no types of ours."""
    return json.dumps({"type": "RunRow", **asdict(row)})


def from_json(text: str) -> RunRow:
    """The row that ``to_json`` wrote."""
    row = decode(text.encode())
    assert isinstance(row, RunRow)
    return row


def draw_batch(plain: Plain, texts: Sequence[str], steps_at: str) -> list[bytes]:
    """Draw the rows of a batch, in their order; those that are alike in one call."""
    rows = [from_json(text) for text in texts]
    groups: dict[object, list[RunRow]] = {}
    for row in rows:
        groups.setdefault(alike(row), []).append(row)
    pictures: dict[str, bytes] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        for group in groups.values():
            drawn = plain.draw(group, lambda step, group=group: _tell(told, steps_at, group, step))  # type: ignore[misc]
            pictures |= {row.row: picture for row, picture in zip(group, drawn, strict=True)}
    return [pictures[row.row] for row in rows]


def _tell(told: socket.socket, steps_at: str, rows: Sequence[RunRow], step: int) -> None:
    for row in rows:
        told.sendto(f"{step} {row.row}".encode(), steps_at)


class Steps:
    """Where the drawing process reports steps; ``at`` is the socket's path."""

    def __init__(self, at: str, listening: socket.socket) -> None:
        self.at = at
        self._listening = listening
        self._waiting: dict[str, OnStep] = {}

    @contextmanager
    def of(self, row: RunRow, on_step: OnStep) -> Iterator[None]:
        """While inside, steps of this row go to ``on_step``."""
        self._waiting[row.row] = on_step
        try:
            yield
        finally:
            del self._waiting[row.row]

    def listen(self) -> None:
        """Hand steps on for as long as the process lives."""
        while True:
            step, _, row = self._listening.recv(_DATAGRAM_BYTES_MAX).decode().partition(" ")
            if on_step := self._waiting.get(row):
                on_step(int(step))


@contextmanager
def steps() -> Iterator[Steps]:
    """Open the socket and listen to it in a thread of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="calotype-steps-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
    ):
        at = str(Path(folder) / "steps")
        listening.bind(at)
        opened = Steps(at, listening)
        threading.Thread(target=opened.listen, name="steps", daemon=True).start()
        yield opened
