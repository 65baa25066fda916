"""One attempt at a job: follows its rows from the engine to signed, stored pictures.

An attempt is fed the engine's reports, in order, through an inbox of its own, so that a slow
picture holds up no other job. It writes progress into the job's log under its lease, and it says
how it ended; what follows from that is the dispatcher's to carry out.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from calotype.core import limits
from calotype.core.errors import CallerError, InternalError
from calotype.core.messages import (
    Message,
    ParkRow,
    RowDone,
    RowFailed,
    RowParked,
    RowRefused,
    RowStarted,
    StepDone,
)
from calotype.core.nouns import Job, Lease, ModelInfo
from calotype.flow.darkroom import Darkroom, Machine, Picture
from calotype.flow.handed import Kept
from calotype.flow.ingredients import Ingredients
from calotype.flow.sweep import discard
from calotype.flow.tools import Tools
from calotype.flow.words import refused
from calotype.jobs.patience import patiently
from calotype.pool.reports import EngineDown, Report
from calotype.safety.errors import SafetyUnavailable

log = structlog.get_logger("calotype.attempt")

INBOX_MAX = 64  # reports; more wait in the pool, and then in the engine


class RowsFailed(Exception):
    """A row of the attempt can't be finished by its engine."""

    def __init__(self, reason: str, *, is_retryable: bool, short_bytes: int = 0) -> None:
        """``short_bytes`` as in ``core.events.AttemptFailed``."""
        super().__init__(reason)
        self.reason = reason
        self.is_retryable, self.short_bytes = is_retryable, short_bytes


class Send(Protocol):
    """How an engine is told something; raises EngineDown."""

    async def __call__(self, engine: str, message: Message, blob: bytes = b"") -> None:
        """Send a command and its raw bytes."""


@dataclass
class Attempt:
    """A leased job on an engine. ``follow`` runs until all its pictures are done."""

    job: Job
    lease: Lease
    model: ModelInfo
    machine: Machine
    tools: Tools
    device_s: float = 0.0  # measured so far
    kept: Kept = field(init=False)  # what engines that went had done of the job before
    begun: float = field(init=False)  # the same as a share of all of it, 0..1
    steps_done: dict[int, float] = field(init=False)  # by image index: share, 0..1
    returned: dict[int, dict[str, object]] = field(default_factory=dict)  # rows, for the log
    sent: list[str] = field(default_factory=list)  # names of rows
    is_leaving: bool = False  # its engine goes, and hands its rows back
    tokens_cut: dict[int, int] = field(default_factory=dict)  # the same; told with the next step
    ingredients: Ingredients = field(default_factory=Ingredients)  # once they are gathered
    darkroom: Darkroom = field(init=False)  # where its pictures are finished
    is_kept: bool = False  # the job store was told of them: whether they stay is its to say
    inbox: asyncio.Queue[Report] = field(default_factory=lambda: asyncio.Queue(INBOX_MAX))
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        """Begin where an engine left it that went."""
        self.kept = self.tools.handed.of(self.job.id)
        self.begun, self.steps_done = self.kept.share(self.job.spec.n), self.kept.shares()
        self.darkroom = Darkroom(self.job, self.lease, self.model, self.machine, self.tools)

    def row_ids(self) -> list[str]:
        """Names of its rows, one an image."""
        return [self.row_id(index) for index in range(self.job.spec.n)]

    def row_id(self, index: int) -> str:
        """Names a row across attempts: reports of an older attempt can't be mistaken for ours."""
        return f"{self.lease.job_id}/{self.lease.token}/{index}"

    @property
    def _is_coarse(self) -> bool:
        """Whether previews, which nobody judges, may show colours at most."""
        policy = self.tools.policy_of(self.job)
        return not self.model.domain and (policy is None or policy.coarse_previews)

    @property
    def progress(self) -> float:
        """Steps done of all steps, 0..1; how many there are is the engine's to say."""
        return min(1.0, sum(self.steps_done.values()) / self.job.spec.n)

    async def hear(self, report: Report) -> None:
        """Take a report of one of its rows; waits while the inbox is full, but not past its end."""
        if self.task is None:
            return
        putting = asyncio.ensure_future(self.inbox.put(report))
        # A full inbox of an attempt that ends would never be emptied: stop at whichever is first.
        await asyncio.wait({putting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()

    async def send(self, send: Send) -> None:
        """Gather what the rows need, and send them to the engine.

        Raises RowsFailed for what is gone or may not be used (any more), and what
        ``Larder.gather`` raises.
        """
        try:
            await self.tools.people.check(self.job)
            self.ingredients = await self.tools.larder.gather(self.job.spec)
        except CallerError as error:
            raise RowsFailed(error.detail, is_retryable=False) from error
        try:
            for index in self._unfinished:
                await self._send_row(index, send)
        except EngineDown:
            # Its loss is on its way as a report, and brings the job back into the line.
            log.warning("engine_down", engine=self.lease.engine, job=self.job.id)

    async def hand_back(self, send: Send) -> None:
        """Have the engine, which goes, hand the rows back; those that are through come anyway.

        Raises EngineDown.
        """
        self.is_leaving = True
        for name in list(self.sent):
            await send(self.lease.engine, ParkRow(name))

    async def follow(self) -> list[Picture]:
        """Return every picture, judged; the allowed ones are signed and stored.

        Raises RowsFailed when the engine gives up on one, WordsRefused when it wouldn't begin one,
        and what ``Finisher.finish`` raises.
        Whoever calls it has to call ``clean_up`` in the end.
        """
        try:
            async with asyncio.TaskGroup() as group:
                pending: list[asyncio.Task[Picture]] = []
                while len(pending) + len(self.returned) < len(self._unfinished):
                    report = await self.inbox.get()
                    index = int(report.message.row.rpartition("/")[2])  # type: ignore[union-attr]
                    match report.message:
                        case StepDone(step=step, steps=steps):
                            await self._step(index, step, steps, report.blob)
                        case RowDone() as done:
                            self.device_s += done.device_s
                            finishing = self.darkroom.finish(
                                index, done, report.blob, self.ingredients
                            )
                            pending.append(group.create_task(finishing))
                        case RowParked() as parked:
                            await self._take_back(index, parked, report.blob)
                        case RowFailed(_, reason, retryable, short):
                            raise RowsFailed(reason, is_retryable=retryable, short_bytes=short)
                        case RowRefused() as told:
                            raise self._not_begun(told)
                        case RowStarted(tokens_cut=tokens_cut):
                            self.tokens_cut[index] = tokens_cut
                        case other:
                            raise InternalError(f"a row can't be told {type(other).__name__}")
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        pictures = [*self.kept.pictures.values(), *(task.result() for task in pending)]
        return sorted(pictures, key=lambda picture: picture.index)

    async def record(self, pictures: list[Picture]) -> None:
        """End the job in the store: with its pictures, refused, or for people to look at.

        Pictures are in the hash log before anybody can have them.

        From here on the files are the job's, though this raises: a write that failed may have been
        done. If it wasn't, they go with the next start's sweep.
        """
        self.is_kept = True
        images = [picture.image for picture in pictures if picture.image is not None]
        withheld = [picture.withheld for picture in pictures if picture.withheld is not None]
        store = self.tools.store
        if images:
            await patiently(
                lambda: store.hash_log.append([*self.kept.logged, *self.darkroom.logged])
            )
        if withheld:
            await patiently(lambda: store.people.reviews.end(self.lease, images, withheld))
        else:
            await patiently(lambda: store.succeed(self.lease, images))

    async def clean_up(self) -> None:
        """Delete what was stored in vain: pictures that no job names would lie there for ever."""
        if not self.is_kept:
            for name in self.darkroom.stored:
                await discard(self.tools.pictures, name)

    @property
    def _unfinished(self) -> list[int]:
        """The images that were not finished before."""
        return [index for index in range(self.job.spec.n) if index not in self.kept.pictures]

    async def _send_row(self, index: int, send: Send) -> None:
        """Send a row; where its engine has been told to hand rows back meanwhile, this one, too."""
        name, raw = self.row_id(index), await self.tools.handed.row(self.job.id, index)
        if len(self.ingredients.blob) + len(raw) > limits.ENGINE_MESSAGE_BYTES_MAX:
            raw = b""  # with all its pictures that is more than an engine takes
        if not raw:
            self.steps_done.pop(index, None)
        policy = self.tools.policy_of(self.job)
        row = self.ingredients.row(
            *(name, self.job, index),
            is_coarse=self._is_coarse,
            parked_bytes=len(raw),
            refused_from=self.tools.check.refused_from(self.model.checks, policy),
        )
        self.sent.append(name)
        await send(self.lease.engine, row, self.ingredients.blob + raw)
        if self.is_leaving:
            await send(self.lease.engine, ParkRow(name))

    def _not_begun(self, told: RowRefused) -> Exception:
        tools = self.tools
        try:
            policy, known = tools.policy_of(self.job), tools.versions.builds
            return refused(told, self.model, tools.check, policy, known=known)
        except SafetyUnavailable as error:
            tools.unread(error)
            return error

    async def _take_back(self, index: int, parked: RowParked, raw: bytes) -> None:
        self.device_s += parked.device_s
        handed, job_id = self.tools.handed, self.job.id
        why = await handed.keep(job_id, index, parked, raw)
        kept = handed.of(job_id).rows.get(index)
        step, steps = (kept.step, kept.steps) if kept else (0, parked.steps)
        told: dict[str, object] = {"image": index, "step": step, "steps": steps}
        self.returned[index] = told | ({"not_kept": why} if why else {})

    async def _step(self, index: int, step: int, steps: int, preview: bytes) -> None:
        self.steps_done[index] = step / steps
        data: dict[str, object] = {"image": index, "step": step, "steps": steps}
        if preview:
            data["preview"] = "data:image/webp;base64," + base64.b64encode(preview).decode()
        if tokens_cut := self.tokens_cut.pop(index, 0):
            data["tokens_cut"] = tokens_cut
        await self.darkroom.tell("step", data)
