"""Which models are where: for whoever runs the machines. It shows what all tenants use."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from calotype.api.context import CalledPlatform, OperatorKey

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models/where")
async def where(platform: CalledPlatform, _key: OperatorKey) -> dict[str, Any]:
    """Say what each engine has warm, loads and holds in bytes, and how often models were warm."""
    return platform.installation.where()
