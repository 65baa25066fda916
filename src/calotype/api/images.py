"""Pictures, by signed addresses: whoever has the address may see the picture while it is good.

``<id>.<form>``, ``<id>-<size>.<form>``, or without a form, and the Accept header chooses. A
delivered picture never changes, so it is kept as long as its address is good; ETag, HEAD and Range
are those of RFC 9110.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from calotype.api.context import CalledPlatform, CallerKey
from calotype.core.errors import CallerError
from calotype.flow.platform import Platform
from calotype.flow.showing import Shown

router = APIRouter(prefix="/v1", tags=["images"])
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_ETAG = re.compile(r'(?:W/)?"([^"]*)"')


class RangeNotSatisfiable(CallerError):
    """The picture ends before what was asked for begins."""

    kind = "range-not-satisfiable"
    title = "The picture has no such part"
    status = 416


async def serve_image(request: Request) -> Response:
    """Serve a picture's file, a part of it, or the news that nothing changed."""
    platform: Platform = request.app.state.platform
    shown = await platform.gallery.showing.show(
        request.path_params["name"],
        accept=request.headers.get("accept", ""),
        expires=request.query_params.get("expires", ""),
        signature=request.query_params.get("signature", ""),
    )
    headers = headers_of(shown, is_shared=platform.gallery.is_shared)
    if is_known(request.headers.get("if-none-match", ""), shown.etag):
        return Response(status_code=304, headers=headers)
    if shown.presigned is not None:
        # The address at the bucket is good for less long than ours: the redirect isn't kept.
        return Response(
            status_code=307, headers={"Location": shown.presigned, "Cache-Control": "no-store"}
        )
    data = await shown.read()
    return _answer(request, shown, data, headers)


@router.delete("/images/{image_id}")
async def delete_image(
    platform: CalledPlatform,
    key: CallerKey,
    image_id: str,
    reason: Annotated[str, Query(max_length=500)] = "",
) -> dict[str, Any]:
    """Delete a delivered picture for good, and return the signed receipt; again, the same one.

    One that the operator has withdrawn can't be: 409.
    """
    return await platform.gallery.removals.delete(
        image_id, tenant=key.tenant, by=f"key {key.id}", reason=reason
    )


@router.get("/images/{image_id}/receipt")
async def read_receipt(platform: CalledPlatform, key: CallerKey, image_id: str) -> dict[str, Any]:
    """Show the receipt of a picture that was deleted."""
    return await platform.gallery.removals.receipt(image_id, tenant=key.tenant)


def headers_of(shown: Shown, *, is_shared: bool) -> dict[str, str]:
    """What is told beside a picture's file."""
    kept_by = "public" if is_shared else "private"
    cached = f"{kept_by}, max-age={int(shown.good_for_s)}, immutable"
    headers = {
        "ETag": f'"{shown.etag}"',
        "Cache-Control": "private, no-store" if shown.is_apart else cached,
        "Content-Disposition": f'inline; filename="{shown.name}"',
        "Accept-Ranges": "bytes",
    }
    if is_shared and not shown.is_apart:  # by which a purge finds all that was kept of a picture
        headers |= {"Cache-Tag": shown.picture_id, "Surrogate-Key": shown.picture_id}
    if shown.is_chosen:
        headers["Vary"] = "Accept"
    return headers


def is_known(if_none_match: str, etag: str) -> bool:
    """Weak comparison (RFC 9110, section 13.1.2); ``*`` is any picture."""
    return if_none_match.strip() == "*" or etag in _ETAG.findall(if_none_match)


def _answer(request: Request, shown: Shown, data: bytes, headers: dict[str, str]) -> Response:
    """The whole file, or the one range of it that is asked for; of several ranges, the whole."""
    asked = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if_range = request.headers.get("if-range")
    is_same = if_range is None or if_range == headers["ETag"]
    if asked is None or not any(asked.groups()) or not is_same or request.method == "HEAD":
        return Response(data, media_type=shown.media_type, headers=headers)
    first, last = asked.groups()
    if not first:  # the last so many bytes
        start, end = max(0, len(data) - int(last)), len(data)
    else:
        start, end = int(first), min(int(last) + 1, len(data)) if last else len(data)
    if last and first and int(last) < int(first):  # no range at all: as if none were there
        return Response(data, media_type=shown.media_type, headers=headers)
    if start >= len(data):
        raise RangeNotSatisfiable(
            f"the picture has {len(data)} bytes", field="Range", limit=f"bytes=0-{len(data) - 1}"
        )
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Response(data[start:end], 206, media_type=shown.media_type, headers=headers)


# Not a route of FastAPI's: its way from request to arguments and back takes longer than the rest.
router.add_route("/v1/images/{name}", serve_image, methods=["GET", "HEAD"], include_in_schema=False)
