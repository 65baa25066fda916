"""What a route gets handed: the platform, and the key that the caller showed."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from calotype.core.errors import Forbidden, Unauthorized
from calotype.core.nouns import Key
from calotype.flow.platform import Platform


def platform_of(request: Request) -> Platform:
    """Return the platform that this app was made for."""
    platform: Platform = request.app.state.platform
    return platform


async def key_of(request: Request) -> Key:
    """Return the key in ``Authorization: Bearer KEY``; raise Unauthorized without a good one."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized(
            "send an API key as 'Authorization: Bearer KEY'",
            field="Authorization",
            limit="Bearer KEY",
        )
    return await platform_of(request).authenticate(secret.strip())


async def jobs_key_of(request: Request) -> Key:
    """The same, of a key that may ask for pictures; raise Forbidden of another."""
    return _with_scope(await key_of(request), "jobs")


async def review_key_of(request: Request) -> Key:
    """The same, of a key whose owner decides on pictures."""
    return _with_scope(await key_of(request), "review")


async def operator_key_of(request: Request) -> Key:
    """The same, of a key for whoever runs the machines."""
    return _with_scope(await key_of(request), "operator")


def _with_scope(key: Key, scope: str) -> Key:
    if scope not in key.scopes:
        raise Forbidden(
            f"this key may not do that: it is for {', '.join(key.scopes) or 'nothing'}",
            field="Authorization",
            limit=scope,
        )
    return key


CalledPlatform = Annotated[Platform, Depends(platform_of)]
CallerKey = Annotated[Key, Depends(jobs_key_of)]
ReviewerKey = Annotated[Key, Depends(review_key_of)]
OperatorKey = Annotated[Key, Depends(operator_key_of)]
