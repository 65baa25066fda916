"""A job's event log as server-sent events (WHATWG HTML, section 9.2), resumable by event id.

While the job waits, its ``queued`` event and then ``eta`` events say its place in the line, when it
will be done and what it waits for (``eta`` of the job's body). That is of the moment and no part
of the log: of a job that waits no more the place is null. ``eta`` events have no id and are never
resumed.

The stream ends after the job's final event, when the caller goes away, or when the server stops.
FastAPI writes the frames, and a comment every 15 s so that proxies keep the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from calotype.api.bodies import eta_body, timestamp
from calotype.api.context import CalledPlatform, CallerKey
from calotype.core import limits
from calotype.core.errors import CallerError, TooMany
from calotype.core.nouns import Event, Job

router = APIRouter(prefix="/v1", tags=["jobs"])
_ID_DIGITS_MAX = 12


class EventStreams:
    """The open streams of one app: counted, bounded, and ended together when the server stops."""

    def __init__(self, streams_max: int = limits.EVENT_STREAMS_MAX) -> None:
        self.streams_max = streams_max
        self.open = 0
        self.stopping = asyncio.Event()

    def enter(self) -> None:
        """Count one more; raise TooMany at the bound."""
        if self.open >= self.streams_max:
            raise TooMany("too many event streams are open at this time", limit=self.streams_max)
        self.open += 1

    def leave(self) -> None:
        """Count one less."""
        self.open -= 1

    async def until_stopping(
        self, events: AsyncIterator[Event], quiet_s: float | None = None
    ) -> AsyncIterator[Event | None]:
        """Pass the events on until they end or the server stops; None after each ``quiet_s``."""
        stopping = asyncio.ensure_future(self.stopping.wait())
        following: asyncio.Future[Event | None] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(events, None))
                waits: set[asyncio.Future[Any]] = {following, stopping}
                await asyncio.wait(waits, timeout=quiet_s, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done() and not following.done():
                    return
                if not following.done():
                    yield None
                    continue
                if (event := following.result()) is None:
                    return
                following = None
                yield event
        finally:
            stopping.cancel()
            if following is not None:
                following.cancel()


@dataclass(frozen=True)
class Subscription:
    """An open stream: the job as it was then, and its events; None says that none has come."""

    job: Job
    events: AsyncIterator[Event | None]


async def subscription(
    request: Request, platform: CalledPlatform, key: CallerKey, job_id: str
) -> AsyncIterator[Subscription]:
    """Open the job's events, before the answer begins: what is wrong is still a problem body."""
    after = _resume_from(request)
    streams: EventStreams = request.app.state.streams
    streams.enter()
    try:
        job = await platform.job(key, job_id)
        events = await platform.events(key, job_id, after=after)
        yield Subscription(job, streams.until_stopping(events, limits.ETA_EVENTS_S))
    finally:
        streams.leave()


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def job_events(
    platform: CalledPlatform, opened: Annotated[Subscription, Depends(subscription)]
) -> AsyncIterator[ServerSentEvent]:
    """Tell what happened to a job and what happens next, from the beginning or after an id."""
    told: dict[str, Any] | None = None
    async for event in opened.events:
        position = platform.position(opened.job.id)
        # Of a job that doesn't wait its own events tell enough.
        eta = eta_body(platform, opened.job) if position is not None else None
        if event is None:
            if eta is not None and eta != told:
                told = eta
                yield ServerSentEvent(event="eta", data=eta)
            continue
        data = {"at": timestamp(event.at), **event.data}
        if event.kind == "queued":
            data["position"] = position
            if eta is not None:
                data["eta"] = told = eta
        yield ServerSentEvent(id=str(event.seq), event=event.kind, data=data)


def _resume_from(request: Request) -> int:
    """The last event the caller has seen; 0 for none. The header wins: browsers resend the URL."""
    for name, value in (
        ("Last-Event-ID", request.headers.get("last-event-id")),
        ("after", request.query_params.get("after")),
    ):
        if value:
            if not (value.isascii() and value.isdecimal() and len(value) <= _ID_DIGITS_MAX):
                raise CallerError(
                    f"{name} has to be the id of an event (0, 1, 2 ...), not {value[:40]!r}",
                    field=name,
                    limit={"min": 0, "max": 10**_ID_DIGITS_MAX - 1},
                )
            return int(value)
    return 0
