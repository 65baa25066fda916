"""Pictures, by signed addresses: whoever has the address may see the picture while it is good."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from calotype.api.context import CalledPlatform
from calotype.core.errors import NotFound, Unauthorized

router = APIRouter(prefix="/v1", tags=["images"])
_MEDIA_TYPES = {"png": "image/png", "webp": "image/webp"}


@router.head("/images/{name}", include_in_schema=False)
@router.get("/images/{name}", response_class=Response)
async def read_image(
    platform: CalledPlatform, request: Request, name: str, expires: str = "", signature: str = ""
) -> Response:
    """Serve ``<id>.png`` or ``<id>.webp``; a delivered picture never changes."""
    image_id, _, form = name.rpartition(".")
    if not image_id or form not in _MEDIA_TYPES:
        raise NotFound(
            f"there is no picture {name}: ask for <id>.png or <id>.webp",
            field="name",
            limit="<id>.png or <id>.webp",
        )
    for field, value in (("expires", expires), ("signature", signature)):
        if not value:
            raise Unauthorized(
                f"a picture's address needs its {field}",
                field=field,
                limit="as a job's body has it",
            )
    picture = await platform.picture(image_id, form, expires=expires, signature=signature)
    headers = {
        "ETag": f'"{name}"',
        "Cache-Control": f"private, max-age={request.app.state.link_ttl_s}, immutable",
        "Content-Disposition": f'inline; filename="{name}"',
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(picture, media_type=_MEDIA_TYPES[form], headers=headers)
