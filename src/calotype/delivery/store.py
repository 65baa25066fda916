"""Keeps the signed files of pictures. It doesn't know whose they are or who may see them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from calotype.core.errors import NotFound, OperatorError
from calotype.delivery.names import file_name, image_id_of

PAGE_FILES = 500  # files listed at a time


class PictureStore:
    """Files by image id and form. Every name is checked, so no id reaches outside the store.

    Any failure of the storage itself raises OperatorError; nothing is half-written.
    """

    def __init__(self, objects: Any, *, folder: Path | None = None) -> None:
        self._objects = objects  # an obstore store
        self._folder = folder  # where its files lie, if they lie on this machine

    @classmethod
    def local(cls, root: Path) -> PictureStore:
        """A store in the folder ``root``, which is made if need be."""
        try:
            root.mkdir(parents=True, exist_ok=True)
            return cls(LocalStore(root), folder=root)
        except (OSError, BaseError) as error:
            raise OperatorError(f"pictures can't be kept in {root}: {error}") from error

    async def put(self, image_id: str, form: str, data: bytes) -> None:
        """Write the whole file or nothing; once it returns, the file outlives a power cut.

        A write can't be stopped half way. So when cancelled, this ends once the write has: what
        is deleted after that stays deleted.
        """
        writing = asyncio.ensure_future(self._write(_path(image_id, form), data))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            with contextlib.suppress(OperatorError):
                await writing
            raise

    async def _write(self, path: str, data: bytes) -> None:
        try:
            await obstore.put_async(self._objects, path, data, use_multipart=False)
            if self._folder is not None:
                await asyncio.to_thread(_settle, self._folder / path)
        except (OSError, BaseError) as error:
            raise OperatorError(f"a picture can't be stored: {error}") from error

    async def get(self, image_id: str, form: str) -> bytes:
        """The file's bytes; raises NotFound if there is none."""
        try:
            found = await obstore.get_async(self._objects, _path(image_id, form))
            return bytes(await found.bytes_async())
        except FileNotFoundError as error:
            raise NotFound("there is no such picture") from error
        except (OSError, BaseError) as error:
            raise OperatorError(f"a picture can't be read: {error}") from error

    async def exists(self, image_id: str, form: str) -> bool:
        """Whether the file is there."""
        try:
            await obstore.head_async(self._objects, _path(image_id, form))
        except FileNotFoundError:
            return False
        except (OSError, BaseError) as error:
            raise OperatorError(f"a picture can't be looked up: {error}") from error
        return True

    async def ids(self) -> AsyncIterator[set[str]]:
        """The ids of all pictures, in sets of those of PAGE_FILES files; some come twice.

        Files of other names, or in other places, are passed over.
        """
        try:
            async for page in obstore.list(self._objects, chunk_size=PAGE_FILES):
                paths = [each["path"] for each in page]
                found = {image_id_of(path): path for path in paths}
                yield {one for one, path in found.items() if one and path.startswith(_folder(one))}
        except (OSError, BaseError) as error:
            raise OperatorError(f"pictures can't be listed: {error}") from error

    async def delete_drafts(self) -> None:
        """Remove what writes that were killed half way have left; only while none is going on."""
        if self._folder is not None:
            await asyncio.to_thread(_delete_drafts, self._folder)

    async def delete(self, image_id: str, form: str) -> None:
        """Remove the file; it is no error if it is gone already."""
        try:
            await obstore.delete_async(self._objects, _path(image_id, form))
        except FileNotFoundError:
            return
        except (OSError, BaseError) as error:
            raise OperatorError(f"a picture can't be deleted: {error}") from error


def _path(image_id: str, form: str) -> str:
    name = file_name(image_id, form)  # checks both
    return _folder(image_id) + name


def _folder(image_id: str) -> str:
    # The end of an id is chance, so its last two characters spread the files over 1,024 folders.
    return f"{image_id[-2:]}/"


def _delete_drafts(folder: Path) -> None:
    """``img_01JD....png#1`` is how obstore calls a file until it is whole; it never lists them."""
    for draft in folder.glob("*/*#*"):
        if image_id_of(draft.name.partition("#")[0]):
            draft.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Have the disk hold the file and its name. obstore renames atomically but doesn't wait."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
