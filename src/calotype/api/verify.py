"""Where a picture came from: for everybody, without a key, a few files at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from calotype.api.context import CalledPlatform
from calotype.api.problems import BodyTooSlow
from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.flow.verify import body

router = APIRouter(prefix="/v1", tags=["images"])
PATH = "/v1/images/verify"
_REQUEST_SCHEMA = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/images/verify", openapi_extra=_REQUEST_SCHEMA)
async def verify_image(platform: CalledPlatform, request: Request) -> dict[str, Any]:
    """Tell of the file that is the body, whatever it is: made here, changed since, or not ours."""
    return body(await platform.gallery.look(lambda: _sent(request)))


async def _sent(request: Request) -> bytes:
    """The body, whole; it holds a place of few while it comes. Raises BodyTooSlow, InvalidInput."""
    most_s = limits.VERIFY_BODY_S_MAX
    try:
        async with asyncio.timeout(most_s):
            data = await request.body()
    except TimeoutError as error:
        told = f"the body didn't come whole within {most_s:g} s"
        raise BodyTooSlow(told, field="body", limit=most_s) from error
    if not data:
        raise InvalidInput("the body is empty", field="body", limit={"min_bytes": 1})
    return data
