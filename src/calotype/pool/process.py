"""One engine process and the socket to it: start, read, write, end. No rules, no restarts."""

from __future__ import annotations

import asyncio
import os
import socket
from asyncio import StreamReader, StreamWriter, subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from calotype.core import frames
from calotype.core.frames import BLOB_HEAD_BYTES, HEAD_BYTES
from calotype.core.limits import ENGINE_LOG_BYTES_MAX
from calotype.core.messages import Message
from calotype.pool.reports import EngineDown

# Our ends of the sockets. Python closes them in programs we start, but a plain fork would keep a
# copy open, and then the engine would never see that we are gone.
_our_ends: list[socket.socket] = []


def _close_our_ends() -> None:
    for end in _our_ends:
        if end.fileno() >= 0:  # not closed already, after an error
            os.close(end.fileno())
    _our_ends.clear()


os.register_at_fork(after_in_child=_close_our_ends)


class EngineProcess:
    """A running engine. Make it with ``start``; whoever starts it must ``end`` it."""

    def __init__(
        self,
        process: subprocess.Process,
        reader: StreamReader,
        writer: StreamWriter,
        our_end: socket.socket,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._our_end = our_end

    @classmethod
    async def start(
        cls, command: Sequence[str], env: Mapping[str, str], log: Path | None
    ) -> EngineProcess:
        """Run ``command --fd N`` with ``env`` added to our environment; raise OSError if it can't.

        What it prints goes to the end of ``log``, or where ours goes without one. It is a session
        of its own, so that Ctrl-C in our terminal reaches us alone and we stop it in order.
        """
        ours, theirs = socket.socketpair()
        printed = await asyncio.to_thread(_open_log, log) if log else None
        try:
            process = await subprocess.create_subprocess_exec(
                *command,
                "--fd",
                str(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                env={**os.environ, **env},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            if printed:
                printed.close()
        _our_ends.append(ours)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer, ours)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def read(self) -> tuple[Message, bytes]:
        """The next message and its raw bytes.

        Raises EngineDown when the socket is closed, InternalError when a frame isn't one of ours.
        """
        try:
            head_length = frames.head_length(await self._reader.readexactly(HEAD_BYTES))
            head = await self._reader.readexactly(head_length)
            blob_length = frames.blob_length(await self._reader.readexactly(BLOB_HEAD_BYTES))
            blob = await self._reader.readexactly(blob_length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EngineDown("the engine's process ended") from error
        return frames.decode(head), blob

    async def write(self, message: Message, blob: bytes = b"", *, wait: bool = True) -> None:
        """Send a message, waiting while the engine is slow to take it; raise EngineDown."""
        try:
            self._writer.write(frames.encode(message, blob))
            if wait:
                await self._writer.drain()
        except ConnectionError as error:
            raise EngineDown("the engine's process ended") from error

    async def wait(self) -> None:
        """Return when the process has exited."""
        await self._process.wait()

    async def end(self, wait_s: float) -> int:
        """Close the socket, wait so long for the process to exit, then kill it; the exit code.

        The code is negative if a signal ended it.
        """
        if self._our_end in _our_ends:
            _our_ends.remove(self._our_end)
        self._writer.transport.abort()  # what it didn't read it won't need
        try:
            return await asyncio.wait_for(self._process.wait(), wait_s)
        except TimeoutError:
            if self._process.returncode is None:
                self._process.kill()
            return await self._process.wait()


def _open_log(log: Path) -> IO[bytes]:
    """Open for appending; a log past its limit starts over."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > ENGINE_LOG_BYTES_MAX:
        log.unlink()
    return log.open("ab")
