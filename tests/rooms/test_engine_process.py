"""The engine as the pool meets it: a process of its own at the end of a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from calotype.core import frames, limits, messages
from calotype.core.messages import (
    EngineReady,
    Heartbeat,
    LoadModel,
    Message,
    ModelLoaded,
    RowDone,
    RowStarted,
    StepDone,
    Stop,
)
from tests.rooms.engine_bench import EMBEDDED, SIZE, run_row

pytestmark = pytest.mark.usefixtures("kept_curves")
ROW = replace(run_row("job/1/0"), model="vignette", sampler="dpmpp_2m")


class Server:
    """The server's end of an engine process."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(limits.ENGINE_START_S_MAX)
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - what it prints, until the end
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "calotype.engine", "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stderr=self.errors,
                env=os.environ
                | {"CALOTYPE_ENGINE_THREADS": "1", messages.HEARTBEAT_VARIABLE: "1.0"},
            )

    def close(self) -> None:
        self.socket.close()
        self.process.kill()  # ours, and only this one
        self.process.wait()
        self.errors.seek(0)
        print(self.errors.read().decode(errors="replace"), file=sys.stderr)
        self.errors.close()

    def say(self, message: Message) -> None:
        self.socket.sendall(frames.encode(message))

    def hear(self) -> tuple[Message, bytes]:
        head = self._exactly(frames.head_length(self._exactly(frames.HEAD_BYTES)))
        blob = self._exactly(frames.blob_length(self._exactly(frames.BLOB_HEAD_BYTES)))
        return frames.decode(head), blob

    def hear_until(self, kind: type[Message]) -> list[tuple[Message, bytes]]:
        heard = [self.hear()]
        while not isinstance(heard[-1][0], kind):
            heard.append(self.hear())
        return heard

    def _exactly(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            part = self.socket.recv(count - len(parts))
            assert part, "the engine went away"
            parts += part
        return parts


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_ready_load_run_done_stop(server: Server) -> None:
    ready, _ = server.hear()
    assert isinstance(ready, EngineReady)
    assert ready.pid == server.process.pid
    server.say(LoadModel("vignette", str(EMBEDDED), "b"))
    loaded, _ = server.hear_until(ModelLoaded)[-1]
    assert isinstance(loaded, ModelLoaded)
    assert loaded.bytes > 0
    server.say(ROW)
    heard = server.hear_until(RowDone)
    told = [type(message) for message, _ in heard if not isinstance(message, Heartbeat)]
    assert told == [RowStarted, *[StepDone] * ROW.steps, RowDone]
    assert len(heard[-1][1]) == SIZE * SIZE * 3
    mapped = Path(f"/proc/{ready.pid}/maps").read_text()
    assert "libtorch" in mapped
    assert "/scipy/" not in mapped, "it is installed, for those who train"
    server.say(Stop())
    assert server.process.wait(timeout=60) == 0
    server.errors.seek(0)
    assert server.errors.read() == b"", "advice of libraries is for nobody"


def test_it_shows_life_and_work_while_it_steps(server: Server) -> None:
    server.say(LoadModel("vignette", str(EMBEDDED), "b"))
    for index in range(limits.ENGINE_ROWS_MAX):  # long enough for two heartbeats on a fast machine
        server.say(replace(ROW, row=f"job/1/{index}", width=128, height=128, steps=100))
    server.hear_until(RowStarted)
    beats: list[Heartbeat] = []
    while not beats or beats[-1].steps == beats[0].steps:  # however long a step takes
        message, _ = server.hear()
        assert not isinstance(message, RowDone), "it was through before it had shown any work"
        if isinstance(message, Heartbeat) and message.rows:
            beats.append(message)
    assert beats[-1].steps > beats[0].steps > 0


def test_when_the_server_goes_the_engine_ends_in_mid_run(server: Server) -> None:
    server.say(LoadModel("vignette", str(EMBEDDED), "b"))
    server.say(replace(ROW, steps=100))
    server.hear_until(StepDone)
    began_s = time.monotonic()
    server.socket.close()
    server.process.wait(timeout=30)
    assert time.monotonic() - began_s < limits.ENGINE_STOP_S_MAX


@pytest.mark.parametrize("head", [b"{}", b"5", b"null", b'"x"'])
def test_a_frame_that_is_none_ends_the_process_with_a_fault(server: Server, head: bytes) -> None:
    server.socket.sendall(len(head).to_bytes(4, "big") + head + bytes(8))
    assert server.process.wait(timeout=60) == 1
