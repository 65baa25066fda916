"""The key of this machine's own command line: in a file of the home folder, and always a good one.

Commands find it there, so nothing has to be copied to make a first picture. A key that was made by
hand before the first start, a lost file and a revoked key all end the same way: the next start of
the server makes another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calotype.core.errors import OperatorError, Unauthorized
from calotype.files.private import write_private
from calotype.jobs.store import JobStore

NAME = "local"


async def ensure(store: JobStore, path: Path, *, tenant: str, scopes: Sequence[str]) -> str | None:
    """Return the secret of the key made now, or None when the file's own is good.

    One that may do less than these ``scopes`` is none. A new secret is written at once: a crash
    between here and the first request doesn't lose it.
    Raises OperatorError when the file can't be written.
    """
    if await _is_good(store, _kept(path), scopes):
        return None
    _, secret = await store.create_key(tenant=tenant, name=NAME, scopes=scopes)
    try:
        write_private(path, secret)
    except OSError as error:
        raise OperatorError(f"the key file {path} can't be written: {error.strerror}") from error
    return secret


def _kept(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


async def _is_good(store: JobStore, secret: str, scopes: Sequence[str]) -> bool:
    try:
        key = await store.authenticate(secret)
    except Unauthorized:
        return False
    return set(scopes) <= set(key.scopes)
