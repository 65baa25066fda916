"""Engines: for whoever runs the machines."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import ConfigDict

from calotype.api.bodies import Fields
from calotype.api.context import CalledPlatform, OperatorKey

router = APIRouter(prefix="/v1", tags=["engines"])


class Notice(Fields):
    """``POST /v1/engines/{name}/notice``: how soon its machine is taken away."""

    model_config = ConfigDict(strict=True)

    seconds: float = 120.0


@router.post("/engines/{name}/notice", status_code=202)
async def give_notice(
    platform: CalledPlatform, _key: OperatorKey, name: str, asked: Notice
) -> dict[str, Any]:
    """Say that an engine is to be taken away: it gets no more work, and hands back what is left."""
    await platform.installation.give_notice(name, asked.seconds)
    return {"engine": name, "seconds": asked.seconds}
