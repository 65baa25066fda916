"""Which models are where: for people and for whoever watches the warm pool."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from calotype.api.context import CalledPlatform, CallerKey

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models/where")
async def where(platform: CalledPlatform, _key: CallerKey) -> dict[str, Any]:
    """Say what each engine has warm, loads and holds in bytes, and how often models were warm."""
    return platform.where()
