"""From raw pixels to signed files, off the event loop: judge, mark, encode, sign; stores nothing.

The same for the pictures that people send: read, judge, bring to size; a stranger's file is decoded
here, and not where the server's secrets are. The work is done in a small pool of processes. Nothing
comes back from it without its verdict, and only an allowed picture is encoded at all. A process
that dies or hangs is replaced and its picture done again; what can't be judged, marked or signed
raises, and the job is held or fails: never delivered.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.hash_log import LogEntry
from calotype.core.nouns import Verdict, VerdictKind
from calotype.delivery import formats, inputs
from calotype.provenance import fingerprint
from calotype.provenance.certificates import SigningIdentity
from calotype.provenance.manifest import Manifest
from calotype.provenance.signing import Signer
from calotype.provenance.watermark import MarkKey, embed, payload_of
from calotype.safety import phash
from calotype.safety.pictures import PictureCheck

Given = TypeVar("Given")
Done = TypeVar("Done")

TRIES = 3  # of one picture when the process that works on it dies or hangs


@dataclass(frozen=True)
class Raw:
    """A picture as the engine delivered it."""

    pixels: bytes  # RGB, uint8, height x width x 3, C order
    width: int
    height: int
    scores: dict[str, float]  # classifier scores by check name
    manifest: Manifest  # its pixels_sha256 is filled in here


@dataclass(frozen=True)
class Finished:
    """A judged picture; without files unless its verdict allows it."""

    verdict: Verdict
    files: dict[str, bytes]  # signed, by format
    pixels_sha256: str  # before it was marked: what the same recipe gives again
    entry: LogEntry | None = None  # to be logged before it is delivered; None unless allowed


@dataclass(frozen=True)
class TakenIn:
    """A picture that was sent, judged; without a file unless its verdict allows it."""

    verdict: Verdict
    png: bytes
    width: int  # pixels
    height: int  # pixels
    pixels_sha256: str


@dataclass(frozen=True)
class Wanted:
    """A kept picture, and how a row wants it."""

    file: bytes  # PNG
    width: int  # pixels
    height: int  # pixels
    channels: int  # 3: RGB, 1: grey, for a mask


@dataclass(frozen=True)
class Brought:
    """A kept picture as a row wants it; without bytes unless its verdict allows it."""

    verdict: Verdict
    raw: bytes  # uint8, height x width x channels
    pixels_sha256: str  # of all of the kept picture, RGB


class Finisher:
    """The pool of finishing processes."""

    def __init__(
        self,
        processes: int,
        identity: SigningIdentity,
        mark_key: MarkKey,
        bank: Path | None = None,
    ) -> None:
        self._processes = processes
        self._tools = (identity, mark_key, bank)
        self._at_once = asyncio.Semaphore(max(processes, limits.FINISHES_MAX))
        self._executor = self._started()

    async def finish(self, raw: Raw) -> Finished:
        """Judge, mark, encode and sign one picture.

        Raises SafetyUnavailable (it can't be judged), SigningFailed, or InternalError when the
        processes keep dying on it, or take more than FINISH_S_MAX.
        """
        return await self._work(_finish, raw)

    async def take_in(self, data: bytes) -> TakenIn:
        """Read and judge the file of a picture that was sent.

        Raises InvalidInput for what can't be taken, else as ``finish`` does.
        """
        return await self._work(_take_in, data)

    async def bring(self, wanted: Wanted) -> Brought:
        """Judge a kept picture again, by what is known now, and bring it to size.

        Raises what ``take_in`` does.
        """
        return await self._work(_bring, wanted)

    async def _work(self, work: Callable[[Given], Done], given: Given) -> Done:
        loop = asyncio.get_running_loop()
        async with self._at_once:
            for _ in range(TRIES):
                executor = self._executor
                try:
                    async with asyncio.timeout(limits.FINISH_S_MAX):
                        return await loop.run_in_executor(executor, work, given)
                except (BrokenProcessPool, TimeoutError):
                    self._replace(executor)
        raise InternalError("the processes that work on pictures died or hung on it, every time")

    def stop(self) -> None:
        """End the processes; what they worked on is lost."""
        _kill(self._executor)
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _replace(self, executor: Executor) -> None:
        """Start other processes; pictures that were in the old ones are done again."""
        if executor is not self._executor:  # another picture has replaced it already
            return
        self._executor = self._started()
        _kill(executor)
        executor.shutdown(wait=False)  # what waits in it raises BrokenProcessPool

    def _started(self) -> Executor:
        executor = ProcessPoolExecutor(
            self._processes,
            # Spawned: a fork would copy the sockets of the engines, and hold them open.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare,
            initargs=self._tools,
        )
        executor.submit(os.getpid)  # so that the first picture doesn't wait for imports
        return executor


def _kill(executor: Executor) -> None:
    """End its processes: one that hangs would not by itself, and there is no public way to."""
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        process.kill()


@dataclass(frozen=True)
class _Tools:
    """What one finishing process works with."""

    check: PictureCheck
    signer: Signer
    mark_key: MarkKey


_tools: list[_Tools] = []  # one, once the process is prepared


def _prepare(identity: SigningIdentity, mark_key: MarkKey, bank: Path | None) -> None:
    """Set up a process: its tools, and how it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    check = PictureCheck.from_file(bank) if bank else PictureCheck.default()
    _tools[:] = [_Tools(check, Signer(identity), mark_key)]


def _end_with_parent() -> None:
    """Don't outlive a server that was killed: an idle worker waits for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _finish(raw: Raw) -> Finished:
    tools = _tools[0]
    pixels = np.frombuffer(raw.pixels, np.uint8).reshape(raw.height, raw.width, 3)
    digest = hashlib.sha256(raw.pixels).hexdigest()
    verdict = tools.check.judge(pixels, raw.scores)
    if verdict.kind is not VerdictKind.ALLOW:
        return Finished(verdict, {}, digest)
    manifest = replace(raw.manifest, pixels_sha256=digest)
    payload = payload_of(digest, tools.mark_key)
    marked = embed(pixels, payload, tools.mark_key)
    files = {
        form: tools.signer.sign(formats.encode(marked, form), form, manifest, mark=payload)
        for form in formats.FORMS
    }
    entry = LogEntry(
        image=manifest.image,
        mark=payload,
        mark_key=tools.mark_key.id,
        files={form: hashlib.sha256(data).hexdigest() for form, data in files.items()},
        phash=phash.hashes(phash.small(marked))[0],
        width=raw.width,
        height=raw.height,
        sketch=fingerprint.to_bytes(fingerprint.sketch(marked)),
        at=datetime.now(UTC),
    )
    return Finished(verdict, files, digest, entry)


def _take_in(data: bytes) -> TakenIn:
    pixels = inputs.read(data)
    height, width, _ = pixels.shape
    verdict = _tools[0].check.judge_input(pixels)
    allowed = verdict.kind is VerdictKind.ALLOW
    png = formats.encode(pixels, "png") if allowed else b""
    return TakenIn(verdict, png, width, height, _digest(pixels))


def _bring(wanted: Wanted) -> Brought:
    pixels = inputs.read(wanted.file, is_kept=True)
    verdict = _tools[0].check.judge_input(pixels)
    allowed = verdict.kind is VerdictKind.ALLOW
    size = (wanted.width, wanted.height, wanted.channels)
    return Brought(verdict, inputs.brought(pixels, *size) if allowed else b"", _digest(pixels))


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()
