"""The whole HTTP application, put together from its routes."""

from __future__ import annotations

from fastapi import FastAPI

import calotype
from calotype.api import (
    engines,
    events,
    health,
    images,
    jobs,
    log,
    metrics,
    review,
    uploads,
    verify,
    webhooks,
    where,
)
from calotype.api.body_limit import BodyLimit
from calotype.api.events import EventStreams
from calotype.api.frame import Frame
from calotype.api.page import install_page
from calotype.api.problems import install_handlers
from calotype.api.shortcut import PictureShortcut
from calotype.core import limits
from calotype.flow.platform import Platform


def create_app(platform: Platform) -> FastAPI:
    """Make the app that serves ``platform``, which its caller starts and stops.

    ``app.state.streams.stopping`` is the caller's to set when the server is to end: open event
    streams end then.
    """
    app = FastAPI(
        title="Calotype",
        version=calotype.__version__,
        docs_url=None,  # FastAPI's pages fetch scripts from elsewhere
        redoc_url=None,
    )
    app.state.platform = platform
    app.state.streams = EventStreams()
    pictures = dict.fromkeys((uploads.PATH, verify.PATH), limits.PICTURE_BYTES_MAX)
    app.add_middleware(BodyLimit, files=pictures)
    app.add_middleware(Frame)
    app.add_middleware(PictureShortcut, platform=platform)  # the last one added is the outermost
    install_handlers(app)
    of_people = (jobs, events, review, verify, log, images, uploads, webhooks)
    for room in (*of_people, where, engines, metrics, health):
        app.include_router(room.router)
    install_page(app)
    return app
