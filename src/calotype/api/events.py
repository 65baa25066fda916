"""A job's event log as server-sent events (WHATWG HTML, section 9.2), resumable by event id.

The stream ends after the job's final event, when the caller goes away, or when the server stops.
FastAPI writes the frames, and a comment every 15 s so that proxies keep the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from calotype.api.bodies import timestamp
from calotype.api.context import CalledPlatform, CallerKey
from calotype.core import limits
from calotype.core.errors import CallerError, TooMany
from calotype.core.nouns import Event

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

    async def until_stopping(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """Pass the events on until they end or the server stops."""
        stopping = asyncio.ensure_future(self.stopping.wait())
        following: asyncio.Future[Event | None] | None = None
        try:
            while True:
                following = asyncio.ensure_future(anext(events, None))
                await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done() or (event := following.result()) is None:
                    return
                yield event
        finally:
            stopping.cancel()
            if following is not None:
                following.cancel()


async def subscription(
    request: Request, platform: CalledPlatform, key: CallerKey, job_id: str
) -> AsyncIterator[AsyncIterator[Event]]:
    """Open the job's events, before the answer begins: what is wrong is still a problem body."""
    after = _resume_from(request)
    streams: EventStreams = request.app.state.streams
    streams.enter()
    try:
        events = await platform.events(key, job_id, after=after)
        yield streams.until_stopping(events)
    finally:
        streams.leave()


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def job_events(
    platform: CalledPlatform, events: Annotated[AsyncIterator[Event], Depends(subscription)]
) -> AsyncIterator[ServerSentEvent]:
    """Tell what happened to a job and what happens next, from the beginning or after an id."""
    async for event in events:
        data = {"at": timestamp(event.at), **event.data}
        if event.kind == "queued":
            data.setdefault("position", platform.position(event.job_id))
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
