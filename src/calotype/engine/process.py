"""The engine's process: threads around one socket.

A reader thread takes commands in and ends the process at once when the server is gone, also in
mid-pass; a heartbeat thread says that the process lives; the main thread runs the loop. It knows
nothing of models.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from calotype.core import frames, limits, messages
from calotype.core.errors import InternalError
from calotype.core.messages import Heartbeat, Message, Stop
from calotype.engine.inbox import Command, Inbox
from calotype.engine.libraries import before_libraries, without_unwanted


class Link:
    """Both directions of the inherited socket; ``send`` may be called from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._writing = threading.Lock()
        self._inbox = Inbox(limits.ENGINE_COMMANDS_MAX)

    def start(self) -> None:
        """Begin to read commands."""
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def send(self, message: Message, blob: bytes = b"") -> None:
        """Send one whole frame; if the server is gone, end the process."""
        try:
            with self._writing:
                self._socket.sendall(frames.encode(message, blob))
        except OSError:
            os._exit(0)

    def take(self, *, wait: bool) -> Command | None:
        """The next command, urgent ones first; None when there is none, unless told to wait."""
        return self._inbox.take(wait=wait)

    def wake(self) -> None:
        """End a wait for commands; may be called from any thread."""
        self._inbox.wake()

    def beat(self, state: Callable[[], Heartbeat]) -> None:
        """Send ``state()`` every so often from a thread, however long a pass takes."""
        pause = threading.Event()
        every_s = float(os.environ.get(messages.HEARTBEAT_VARIABLE, limits.HEARTBEAT_S))

        def run() -> None:
            while not pause.wait(every_s):
                self.send(state())

        threading.Thread(target=run, name="heartbeat", daemon=True).start()

    def _read(self) -> None:
        """Read frames until the server is gone, then end the process: nobody wants its work."""
        try:
            while True:
                head = self._exactly(frames.head_length(self._exactly(frames.HEAD_BYTES)))
                length = frames.blob_length(self._exactly(frames.BLOB_HEAD_BYTES))
                self._inbox.put(frames.decode(head), self._exactly(length))
        except (EOFError, OSError):
            os._exit(0)
        except InternalError as error:
            print(f"calotype engine: the server sent no frame: {error}", file=sys.stderr)
            os._exit(1)

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)


def serve(fd: int) -> None:
    """Be an engine on this inherited socket until Stop comes or the server goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then says Stop
    link = Link(socket.socket(fileno=fd))
    link.start()  # before torch, which takes seconds to import: the server may be gone by then
    before_libraries()
    without_unwanted()
    import torch

    from calotype.engine.device import prepare_device, prepare_room
    from calotype.engine.fragmentation import acts_on_arena
    from calotype.engine.room import staging_budget

    device = prepare_device()
    room = prepare_room(device)
    staging = staging_budget()
    ready = messages.EngineReady(os.getpid(), str(device), torch.__version__, room.budget, staging)
    link.send(ready)

    engine: Engine | None = None

    def state() -> Heartbeat:
        return engine.state() if engine is not None else Heartbeat(0, 0)

    link.beat(state)
    from calotype.engine.curves import FOLDER_VARIABLE
    from calotype.engine.loop import Engine  # diffusers, too, takes seconds

    name = os.environ.get(FOLDER_VARIABLE)
    folder, acts = Path(name) if name else None, acts_on_arena()
    engine = Engine(
        link.send, device, folder, link.wake, room, staging_bytes=staging, acts_on_arena=acts
    )
    gc.collect()
    gc.freeze()  # what was imported stays: it needn't be looked through whenever a model leaves
    idle = True
    while True:
        while (taken := link.take(wait=idle)) is not None:
            command, blob = taken
            if isinstance(command, Stop):
                engine.close()
                return
            engine.handle(command, blob)
            idle = False
        idle = not engine.tick()
