"""Where a picture came from: for everybody, without a key, a few files at a time."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from calotype.api.context import CalledPlatform
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
    data = await request.body()
    if not data:
        raise InvalidInput("the body is empty", field="body", limit={"min_bytes": 1})
    return body(await platform.gallery.look(data))
