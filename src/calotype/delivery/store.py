"""Keeps pictures' files by name, in a folder or a bucket: each whole or not at all.

A name that holds a SHA-256 holds that content or is an error: what was damaged on disk, or changed
there, is never given out. It doesn't know whose files they are or who may see them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from calotype.core.errors import InternalError, NotFound, OperatorError
from calotype.delivery.formats import media_type
from calotype.delivery.names import id_of, pool_of, sha256_of

PAGE_FILES = 500  # files listed at a time
_CONNECT, _WAIT = "5s", "60s"  # to a bucket; a request that takes longer is tried again ...
_RETRIES_MAX, _RETRY_S_MAX = 5, timedelta(seconds=30)  # ... so often, and for as long as this


class Damaged(InternalError):
    """A stored file isn't what its name says."""

    kind = "damaged"
    title = "A stored picture is damaged"


class PictureStore:
    """Files by the names of ``delivery.names``, so that no name reaches outside the store.

    A store takes files of its pool alone, whoever hands them to it. Any failure of the storage
    itself raises OperatorError; nothing is half-written.
    """

    def __init__(self, objects: Any, *, folder: Path | None = None, pool: str = "") -> None:
        self._objects = objects  # an obstore store
        self._folder = folder  # where its files lie, if they lie on this machine
        self._pool = pool  # whose files it has; "": those of no pool

    @classmethod
    def local(cls, root: Path, *, pool: str = "") -> PictureStore:
        """A store in the folder ``root``, which is made if need be."""
        try:
            root.mkdir(parents=True, exist_ok=True)
            return cls(LocalStore(root), folder=root, pool=pool)
        except (OSError, BaseError) as error:
            raise OperatorError(f"pictures can't be kept in {root}: {error}") from error

    @classmethod
    def bucket(
        cls, url: str, *, below: str, endpoint: str | None = None, pool: str = ""
    ) -> PictureStore:
        """A store in the bucket of ``url`` (``s3://NAME`` or ``s3://NAME/FOLDER``), in ``below``.

        Keys and region come from the usual AWS_ variables of the environment, or the machine's
        role. ``endpoint`` is the address of a server that speaks S3 and isn't Amazon's.
        """
        config = {"endpoint": endpoint} if endpoint else {}
        try:
            objects = S3Store.from_url(
                f"{url.rstrip('/')}/{below}",
                config={**config, "checksum_algorithm": "sha256"},  # a damaged upload is refused
                client_options={
                    "allow_http": bool(endpoint and endpoint.startswith("http://")),
                    "connect_timeout": _CONNECT,
                    "timeout": _WAIT,
                },
                retry_config={"max_retries": _RETRIES_MAX, "retry_timeout": _RETRY_S_MAX},
            )
        except (ValueError, BaseError) as error:
            raise OperatorError(f"pictures can't be kept in {url}: {error}") from error
        return cls(objects, pool=pool)

    async def put(self, name: str, data: bytes) -> None:
        """Write the whole file or nothing; once it returns, the file outlives a power cut.

        A write can't be stopped half way. So when cancelled, this ends once the write has: what
        is deleted after that stays deleted.
        """
        writing = asyncio.ensure_future(self._write(self._checked(name), data))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            with contextlib.suppress(OperatorError):
                await writing
            raise

    async def _write(self, name: str, data: bytes) -> None:
        told = {} if self._folder else {"attributes": _attributes(name)}
        try:
            await obstore.put_async(self._objects, name, data, use_multipart=False, **told)
            if self._folder is not None:
                await asyncio.to_thread(_settle, self._folder, name)
        except (OSError, BaseError) as error:
            raise OperatorError(f"a picture can't be stored: {error}") from error

    async def get(self, name: str) -> bytes:
        """The file's bytes. Raises NotFound, and Damaged if they aren't what the name says."""
        try:
            found = await obstore.get_async(self._objects, self._checked(name))
            data = bytes(await found.bytes_async())
        except FileNotFoundError as error:
            raise NotFound("there is no such picture") from error
        except (OSError, BaseError) as error:
            raise OperatorError(f"a picture can't be read: {error}") from error
        _check_content(name, data)
        return data

    async def exists(self, name: str) -> bool:
        """Whether the file is there."""
        try:
            await obstore.head_async(self._objects, self._checked(name))
        except FileNotFoundError:
            return False
        except (OSError, BaseError) as error:
            raise OperatorError(f"a picture can't be looked up: {error}") from error
        return True

    async def names(self) -> AsyncIterator[list[str]]:
        """The names of all pictures' files, PAGE_FILES at a time; other files are passed over."""
        try:
            async for page in obstore.list(self._objects, chunk_size=PAGE_FILES):
                names = [each["path"] for each in page if id_of(each["path"])]
                yield [name for name in names if pool_of(name) == self._pool]
        except (OSError, BaseError) as error:
            raise OperatorError(f"pictures can't be listed: {error}") from error

    async def delete_drafts(self) -> None:
        """Remove what writes that were killed half way have left; only while none is going on."""
        if self._folder is not None:
            await asyncio.to_thread(_delete_drafts, self._folder)

    async def delete(self, name: str) -> None:
        """Remove the file; it is no error if it is gone already."""
        try:
            await obstore.delete_async(self._objects, self._checked(name))
        except FileNotFoundError:
            return
        except (OSError, BaseError) as error:
            raise OperatorError(f"a picture can't be deleted: {error}") from error

    async def presigned(self, name: str, *, ttl_s: float) -> str | None:
        """An address at the bucket itself that is good for ``ttl_s``; None for a folder."""
        if self._folder is not None:
            return None
        try:
            good_for = timedelta(seconds=ttl_s)
            checked = self._checked(name)
            return str(await obstore.sign_async(self._objects, "GET", checked, good_for))
        except BaseError as error:
            raise OperatorError(f"a picture's address can't be signed: {error}") from error

    async def check(self) -> None:
        """Raise OperatorError if the storage can't be reached."""
        try:
            await obstore.list_with_delimiter_async(self._objects)
        except (OSError, BaseError) as error:
            raise OperatorError(f"the store of pictures can't be used: {error}") from error

    def _checked(self, name: str) -> str:
        if id_of(name) is None:
            raise NotFound("there is no such picture", field="image_id")
        if (pool := pool_of(name)) != self._pool:
            raise InternalError(f"a file of pool {pool!r} has no place in that of {self._pool!r}")
        return name


def _check_content(name: str, data: bytes) -> None:
    wanted = sha256_of(name)
    if wanted is not None and hashlib.sha256(data).hexdigest() != wanted:
        raise Damaged(f"the stored file {name} isn't what was signed")


def _attributes(name: str) -> dict[str, str]:
    return {
        "Content-Type": media_type(name.rpartition(".")[2]),
        "Cache-Control": "private, max-age=31536000, immutable",
    }


def _delete_drafts(folder: Path) -> None:
    """``img_01JD....png#1`` is how obstore calls a file until it is whole; it never lists them."""
    for draft in folder.rglob("*#*"):
        if id_of(draft.relative_to(folder).as_posix().partition("#")[0]):
            draft.unlink(missing_ok=True)


def _settle(root: Path, name: str) -> None:
    """Have the disk hold the file and its name. obstore renames atomically but doesn't wait."""
    path = root / name
    for each in (path, *path.parents[: name.count("/") + 1]):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
