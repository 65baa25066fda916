"""For load balancers and people: does the process live, and can it make pictures now?"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from calotype.api.context import CalledPlatform

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer while the process lives."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(platform: CalledPlatform) -> JSONResponse:
    """Answer 200 when every part is ready and 503 with the reasons until then."""
    readiness: dict[str, Any] = platform.installation.readiness()
    return JSONResponse(readiness, status_code=200 if readiness["ready"] else 503)
