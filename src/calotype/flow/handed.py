"""What engines that go had done of jobs: rows half made, pictures finished. Kept until they end.

A row lies in a private file of the home, and the job's next attempt has an engine go on with it.
What can't be kept (all of it is bounded in bytes, and disks get full) is made again from the
beginning. So is everything once the server ends: the next one finds nothing here.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from calotype.core import limits
from calotype.core.hash_log import LogEntry
from calotype.core.messages import RowParked
from calotype.delivery.store import PictureStore
from calotype.files.private import write_private_bytes
from calotype.flow.sweep import discard

if TYPE_CHECKING:
    from calotype.flow.darkroom import Picture

log = structlog.get_logger("calotype.handed")


@dataclass(frozen=True)
class Half:
    """A row half made."""

    path: Path  # of its file, as an engine wrote it
    bytes: int
    step: int  # steps that are done ...
    steps: int  # ... of these


@dataclass
class Kept:
    """What was done of one job, by the indices of its images."""

    rows: dict[int, Half] = field(default_factory=dict)
    pictures: dict[int, Picture] = field(default_factory=dict)  # finished, judged and stored
    logged: list[LogEntry] = field(default_factory=list)  # of those that may be delivered
    stored: list[str] = field(default_factory=list)  # names of their files
    device_s: float = 0.0  # measured, by all engines that handed it back

    def shares(self) -> dict[int, float]:
        """How much of each image is done, 0..1; those of which nothing is are left out."""
        half = {index: row.step / row.steps for index, row in self.rows.items()}
        return half | dict.fromkeys(self.pictures, 1.0)

    def share(self, images: int) -> float:
        """How much of a job of so many images is done, 0..1."""
        return sum(self.shares().values()) / images


class Handed:
    """By job. For one server, which has the folder to itself."""

    def __init__(self, folder: Path | None = None, pictures: PictureStore | None = None) -> None:
        """Empties the folder; without one no row is kept."""
        self._folder, self._pictures = folder, pictures
        self._kept: dict[str, Kept] = {}
        self._bytes = 0
        self._discarding: set[asyncio.Task[None]] = set()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def of(self, job_id: str) -> Kept:
        """What is kept of a job; empty if nothing is."""
        return self._kept.get(job_id) or Kept()

    async def keep(self, job_id: str, index: int, parked: RowParked, raw: bytes) -> str:
        """Keep a row that was handed back; else why it can't be.

        What was kept of it before stays, if nothing came.
        """
        if not raw:
            return parked.reason
        kept = self._kept.setdefault(job_id, Kept())
        before = kept.rows.pop(index, None)
        self._bytes += len(raw) - (before.bytes if before else 0)
        why, path = "", None
        if self._folder is None:
            why = "there is no folder to keep it in"
        elif self._bytes > limits.PARKED_BYTES_MAX:
            why = f"more than {limits.PARKED_BYTES_MAX:,} bytes would be kept"
        else:
            path = self._folder / f"{job_id}-{index}.safetensors"
            try:
                await asyncio.to_thread(_write, path, raw)
            except OSError as error:
                why = f"it can't be written: {error.strerror}"
        if why or path is None:
            self._bytes -= len(raw)
            if before is not None:
                before.path.unlink(missing_ok=True)
            log.warning("row_not_kept", job=job_id, image=index, reason=why)
            return why
        kept.rows[index] = Half(path, len(raw), parked.step, parked.steps)
        return ""

    async def row(self, job_id: str, index: int) -> bytes:
        """A kept row, as an engine wrote it; empty if there is none (any more)."""
        half = self.of(job_id).rows.get(index)
        if half is None:
            return b""
        try:
            return await asyncio.to_thread(half.path.read_bytes)
        except OSError as error:
            log.warning("row_lost", job=job_id, image=index, reason=error.strerror)
            self._drop(self._kept[job_id], [index])
            return b""

    def ended(
        self,
        job_id: str,
        pictures: Collection[Picture],
        logged: Collection[LogEntry],
        stored: Collection[str],
        device_s: float,
    ) -> None:
        """An attempt has handed its job back, with these pictures finished."""
        kept = self._kept.setdefault(job_id, Kept())
        kept.pictures |= {picture.index: picture for picture in pictures}
        kept.logged += logged
        kept.stored += stored
        kept.device_s += device_s
        self._drop(kept, [index for index in kept.rows if index in kept.pictures])

    def forget(self, job_id: str, *, are_delivered: bool = False) -> None:
        """The job is over, or begins again from nothing; its files go unless they are delivered."""
        kept = self._kept.pop(job_id, None)
        if kept is None:
            return
        self._drop(kept, list(kept.rows))
        if not are_delivered and self._pictures is not None:
            for name in kept.stored:
                task = asyncio.create_task(discard(self._pictures, name))
                self._discarding.add(task)
                task.add_done_callback(self._discarding.discard)

    def _drop(self, kept: Kept, indices: Collection[int]) -> None:
        for index in indices:
            half = kept.rows.pop(index)
            self._bytes -= half.bytes
            half.path.unlink(missing_ok=True)


def _write(path: Path, raw: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private_bytes(path, raw)
