"""The hash log for auditors: its signed head, and proofs. For everybody, without a key."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from calotype.api.bodies import Fields
from calotype.api.context import CalledPlatform

router = APIRouter(prefix="/v1/log", tags=["log"])

_COUNT_MAX = 2**62
Count = Annotated[int, Field(ge=0, le=_COUNT_MAX)]


class HeadAsked(Fields):
    """Against which head: of the log when it had ``count`` entries; left out: as it is."""

    count: Count | None = None


class ConsistencyAsked(HeadAsked):
    """The same, and ``first``: how many entries the head had that was kept."""

    first: Count


@router.get("/head")
async def read_head(platform: CalledPlatform) -> dict[str, Any]:
    """Show how many entries the log has and the hash over them all, signed."""
    return await platform.gallery.log_proofs.head()


@router.get("/consistency")
async def prove_consistency(
    platform: CalledPlatform, asked: Annotated[ConsistencyAsked, Query()]
) -> dict[str, Any]:
    """Show that the log begins with its ``first`` entries as they were."""
    return await platform.gallery.log_proofs.consistency(asked.first, asked.count)


@router.get("/entries/{sha256}")
async def prove_entry(
    platform: CalledPlatform, sha256: str, asked: Annotated[HeadAsked, Query()]
) -> dict[str, Any]:
    """Show that the picture one of whose files has this SHA-256 is in the log."""
    return await platform.gallery.log_proofs.of_file(sha256, asked.count)
