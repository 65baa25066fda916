"""One attempt at a job: follows its rows from the engine to signed, stored pictures.

An attempt is fed the engine's reports, in order, through an inbox of its own, so that a slow
picture holds up no other job. It writes progress into the job's log under its lease, and it says
how it ended; what follows from that is the dispatcher's to carry out.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
from dataclasses import dataclass, field

from calotype import __version__
from calotype.core.errors import InternalError
from calotype.core.ids import new_id
from calotype.core.messages import RowDone, RowFailed, RowStarted, RunRow, StepDone
from calotype.core.nouns import Image, Job, Lease, ModelInfo, Verdict, VerdictKind
from calotype.delivery import formats
from calotype.delivery.store import PictureStore
from calotype.flow.finish import Finished, Finisher, Raw
from calotype.jobs.store import JobStore
from calotype.pool.reports import Report
from calotype.provenance.manifest import Manifest

INBOX_MAX = 64  # reports; more wait in the pool, and then in the engine


class RowsFailed(Exception):
    """A row of the attempt can't be finished by its engine."""

    def __init__(self, reason: str, *, is_retryable: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_retryable = is_retryable


@dataclass(frozen=True)
class Machine:
    """What made a picture, for its manifest."""

    torch: str  # version
    device: str


@dataclass(frozen=True)
class Picture:
    """One judged picture of the attempt; ``image`` is None unless it may be delivered."""

    index: int
    verdict: Verdict
    image: Image | None


@dataclass(frozen=True)
class Tools:
    """The rooms an attempt works with."""

    store: JobStore
    finisher: Finisher
    pictures: PictureStore


@dataclass
class Attempt:
    """A leased job on an engine. ``follow`` runs until all its pictures are done."""

    job: Job
    lease: Lease
    model: ModelInfo
    machine: Machine
    tools: Tools
    device_s: float = 0.0  # measured so far
    steps_done: dict[int, int] = field(default_factory=dict)  # by image index
    inbox: asyncio.Queue[Report] = field(default_factory=lambda: asyncio.Queue(INBOX_MAX))
    task: asyncio.Task[None] | None = None

    def rows(self) -> list[RunRow]:
        """The rows to send to the engine, one an image."""
        spec = self.job.spec
        return [
            RunRow(
                row=self.row_id(index),
                model=spec.model,
                prompt=spec.prompt,
                negative_prompt=spec.negative_prompt,
                width=spec.width,
                height=spec.height,
                steps=spec.steps,
                guidance=spec.guidance,
                sampler=spec.sampler,
                seed=spec.image_seed(index),
                tier=self.job.tier,
            )
            for index in range(spec.n)
        ]

    def row_id(self, index: int) -> str:
        """Names a row across attempts: reports of an older attempt can't be mistaken for ours."""
        return f"{self.lease.job_id}/{self.lease.token}/{index}"

    @property
    def progress(self) -> float:
        """Steps done of all steps, 0..1."""
        spec = self.job.spec
        return min(1.0, sum(self.steps_done.values()) / (spec.n * spec.steps))

    async def follow(self) -> list[Picture]:
        """Return every picture, judged; the allowed ones are signed and stored.

        Raises RowsFailed when the engine gives up on one, and what ``Finisher.finish`` raises. A
        picture stored by an attempt that doesn't get to its end is deleted again.
        """
        stored: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                pending: list[asyncio.Task[Picture]] = []
                while len(pending) < self.job.spec.n:
                    report = await self.inbox.get()
                    index = int(report.message.row.rpartition("/")[2])  # type: ignore[union-attr]
                    match report.message:
                        case StepDone(step=step, steps=steps):
                            await self._step(index, step, steps, report.blob)
                        case RowDone() as done:
                            finishing = self._finish(index, done, report.blob, stored)
                            pending.append(group.create_task(finishing))
                        case RowFailed(reason=reason, retryable=retryable):
                            raise RowsFailed(reason, is_retryable=retryable)
                        case RowStarted():
                            pass
                        case other:
                            raise InternalError(f"a row can't be told {type(other).__name__}")
        except BaseException as error:
            # Also when cancelled: a picture that no job names would lie there for ever.
            for image_id, form in itertools.product(stored, formats.FORMS):
                await self.tools.pictures.delete(image_id, form)
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from error
            raise
        return sorted((task.result() for task in pending), key=lambda picture: picture.index)

    async def _step(self, index: int, step: int, steps: int, preview: bytes) -> None:
        self.steps_done[index] = step
        data: dict[str, object] = {"image": index, "step": step, "steps": steps}
        if preview:
            data["preview"] = "data:image/webp;base64," + base64.b64encode(preview).decode()
        await self.tools.store.append(self.lease, "step", data)

    async def _finish(self, index: int, done: RowDone, pixels: bytes, stored: list[str]) -> Picture:
        self.device_s += done.device_s
        image_id = new_id("img")
        manifest = Manifest.of(
            self.job.spec,
            self.model,
            image=image_id,
            index=index,
            calotype=__version__,
            torch=self.machine.torch,
            device=self.machine.device,
            pixels_sha256="",
        )
        raw = Raw(pixels, done.width, done.height, done.scores, manifest)
        finished = await self.tools.finisher.finish(raw)
        image = None
        if finished.verdict.kind is VerdictKind.ALLOW:
            stored.append(image_id)
            image = await self._store(image_id, index, done, finished)
        data = {"image": index, "id": image_id, "verdict": finished.verdict.kind.value}
        await self.tools.store.append(self.lease, "image_finished", data)
        return Picture(index, finished.verdict, image)

    async def _store(self, image_id: str, index: int, done: RowDone, finished: Finished) -> Image:
        for form, data in finished.files.items():
            await self.tools.pictures.put(image_id, form, data)
        return Image(
            id=image_id,
            index=index,
            seed=self.job.spec.image_seed(index),
            width=done.width,
            height=done.height,
            sha256=hashlib.sha256(finished.files["png"]).hexdigest(),
            pixels_sha256=finished.pixels_sha256,
            formats=tuple(finished.files),
        )
