"""Pictures that jobs can begin from: send one, look at one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from calotype.api.bodies import input_picture_body
from calotype.api.context import CalledPlatform, CallerKey
from calotype.api.problems import WrongMediaType
from calotype.core.errors import InvalidInput

router = APIRouter(prefix="/v1", tags=["pictures"])
PATH = "/v1/pictures"
_MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
_FILE = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_SCHEMA = {  # the body is the file itself, so FastAPI can't know its shape
    "requestBody": {"required": True, "content": dict.fromkeys(_MEDIA_TYPES, _FILE)}
}


@router.post("/pictures", status_code=201, openapi_extra=_REQUEST_SCHEMA)
async def send_picture(
    platform: CalledPlatform, key: CallerKey, request: Request, response: Response
) -> dict[str, Any]:
    """Keep the picture that is the body; the same one again has the same id."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        raise WrongMediaType(
            f"the body is {media_type or 'of no type'}: send the file of a picture as it is",
            field="Content-Type",
            limit=list(_MEDIA_TYPES),
        )
    data = await request.body()
    if not data:
        raise InvalidInput("the body is empty", field="picture", limit={"min_bytes": 1})
    taken = await platform.gallery.inputs.take_in(key.tenant, data, key.user)
    body = input_picture_body(platform, key.tenant, taken)
    response.headers["Location"] = f"{PATH}/{body['id']}"
    return body


@router.get("/pictures/{picture_id}")
async def read_picture(platform: CalledPlatform, key: CallerKey, picture_id: str) -> dict[str, Any]:
    """Show a picture that was sent, or a finished image, as a job can begin from it."""
    picture = await platform.gallery.inputs.find(key.tenant, picture_id)
    return input_picture_body(platform, key.tenant, picture)
