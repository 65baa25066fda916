"""API keys: made, checked, listed, revoked. Knows nothing of what a key allows.

Only the SHA-256 digest of a secret is stored. A slow password hash would add nothing: a secret has
256 bits of chance, so it can't be guessed from its digest, nor can the time that the look-up of a
digest takes tell anything of the secret.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from sqlalchemy import insert, select, update

from calotype.core import limits
from calotype.core.errors import InvalidInput, NotFound, Unauthorized
from calotype.core.ids import new_id
from calotype.core.nouns import Key
from calotype.jobs import tables
from calotype.jobs.database import Database
from calotype.jobs.rows import key_of, utc_now

SECRET_PREFIX = "ct_"  # noqa: S105 - lets people and secret scanners recognise a key
_SECRET_BYTES = 32  # of chance: 43 url-safe characters


async def create(
    database: Database, *, tenant: str, name: str, scopes: Sequence[str], user: str | None = None
) -> tuple[Key, str]:
    """Make a key; the secret is returned this once. Raises InvalidInput for an unfit name.

    A key without a ``user`` is a user of its own, by its id.
    """
    key_id = new_id("key")
    user = key_id if user is None else user
    for field, value in (("tenant", tenant), ("user", user), ("name", name)):
        if not 1 <= len(value) <= limits.KEY_NAME_CHARS_MAX:
            raise InvalidInput(
                f"{field} must have 1 to {limits.KEY_NAME_CHARS_MAX} characters",
                field=field,
                limit=limits.KEY_NAME_CHARS_MAX,
            )
    secret = SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    key = Key(key_id, tenant, user, name, tuple(scopes), utc_now(), None)
    values = {
        "id": key.id,
        "tenant": tenant,
        "user": user,
        "name": name,
        "scopes": list(scopes),
        "created_at": key.created_at,
        "digest": _digest(secret),
    }
    async with database.writing() as conn:
        await conn.execute(insert(tables.keys).values(values))
    return key, secret


async def authenticate(database: Database, secret: str) -> Key:
    """The key of this secret. Raises Unauthorized for one that is unknown or revoked."""
    query = select(tables.keys).where(
        tables.keys.c.digest == _digest(secret), tables.keys.c.revoked_at.is_(None)
    )
    async with database.reading() as conn:
        row = (await conn.execute(query)).one_or_none()
    if row is None:
        raise Unauthorized(
            "the API key is unknown or revoked", field="Authorization", limit="Bearer KEY"
        )
    return key_of(row)


async def every(database: Database) -> list[Key]:
    """All keys, oldest first, the revoked ones too."""
    query = select(tables.keys).order_by(tables.keys.c.created_at, tables.keys.c.id)
    async with database.reading() as conn:
        return [key_of(row) for row in await conn.execute(query)]


async def revoke(database: Database, key_id: str) -> Key:
    """End a key; one that is revoked already stays as it is. Raises NotFound."""
    one = tables.keys.c.id == key_id
    ended = update(tables.keys).where(one, tables.keys.c.revoked_at.is_(None))
    async with database.writing() as conn:
        await conn.execute(ended.values(revoked_at=utc_now()))
        row = (await conn.execute(select(tables.keys).where(one))).one_or_none()
    if row is None:
        raise NotFound(f"there is no key {key_id}")
    return key_of(row)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
