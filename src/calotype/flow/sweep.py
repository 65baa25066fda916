"""No picture without a job: deletes the files that no record names.

An attempt deletes what it stored in vain. A server that is killed can't, nor one whose disk fails
at that moment: their files go with the sweep of the next start.

Only files of pictures that this database has heard of are deleted. Of all that was made here it
has: a picture is logged before its files are stored. What it never heard of is another database's,
or its own from after the backup that it was restored from, and may be evidence.
"""

from __future__ import annotations

from collections.abc import Collection

import structlog

from calotype.delivery.names import id_of
from calotype.delivery.store import PictureStore
from calotype.jobs.store import JobStore

log = structlog.get_logger("calotype.sweep")


async def sweep(store: JobStore, pictures: PictureStore) -> int:
    """Delete the files that no image has, and return how many; before anything makes new ones.

    Not those of a withdrawn picture, which a crash may have kept from being moved apart.
    """
    await pictures.delete_drafts()
    withdrawn, swept, left = await store.files.withdrawn(), 0, 0
    async for page in pictures.names():
        unnamed = set(page) - await store.files.named(page) - withdrawn
        ours = await _of_known(store, unnamed)
        for name in sorted(ours):
            await discard(pictures, name)
        swept, left = swept + len(ours), left + len(unnamed - ours)
    if swept:
        log.warning("files_swept", count=swept)
    _tell("pictures", left)
    return swept


async def sweep_apart(store: JobStore, pictures: PictureStore, apart: PictureStore) -> int:
    """Delete what lies apart though it is delivered again, and return how many; as above.

    A release that was killed leaves such. Whatever else lies there was withdrawn, if not by this
    database as it is.
    """
    await apart.delete_drafts()
    withdrawn, swept, left = await store.files.withdrawn(), 0, 0
    async for page in apart.names():
        unnamed = set(page) - withdrawn
        delivered = await store.files.named(unnamed)
        for name in sorted(unnamed):
            if name in delivered and await pictures.exists(name):
                await discard(apart, name)
                swept += 1
            else:
                left += 1
    _tell("apart", left)
    return swept


async def discard(pictures: PictureStore, name: str) -> None:
    """Delete a file. Never raises: what stays is logged, and for the next sweep."""
    try:
        await pictures.delete(name)
    except Exception:  # whoever cleans up must get to the end of it
        log.exception("file_left", name=name)


async def _of_known(store: JobStore, names: Collection[str]) -> set[str]:
    """Those of the files whose picture this database has heard of."""
    ids = {name: id_of(name) or "" for name in names}
    known = await store.files.known(set(ids.values()))
    return {name for name, image_id in ids.items() if image_id in known}


def _tell(where: str, left: int) -> None:
    if left:
        why = "this database never heard of their pictures: another's, or from after its backup"
        log.warning("files_left", where=where, count=left, reason=why)
