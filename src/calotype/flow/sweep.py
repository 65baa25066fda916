"""No picture without a job: deletes the files that no record names.

An attempt deletes what it stored in vain. A server that is killed can't, nor one whose disk fails
at that moment: their files go with the sweep of the next start.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from calotype.delivery.names import id_of
from calotype.delivery.store import PictureStore
from calotype.jobs.store import JobStore

log = structlog.get_logger("calotype.sweep")


async def sweep(store: JobStore, pictures: PictureStore) -> int:
    """Delete the files that no image has, and return how many; before anything makes new ones.

    Pictures from before the store's first job are left alone: they are of another database, which
    may come back.
    """
    await pictures.delete_drafts()
    first_job = await store.first_job_id()
    if first_job is None:
        return 0
    swept = 0
    async for page in pictures.names():
        ours = _since(first_job, page)
        for name in sorted(ours - await store.files.named(ours)):
            await discard(pictures, name)
            swept += 1
    if swept:
        log.warning("files_swept", count=swept)
    return swept


async def sweep_apart(store: JobStore, apart: PictureStore) -> int:
    """Delete what lies apart and isn't withdrawn (any more), and return how many; as above."""
    await apart.delete_drafts()
    first_job = await store.first_job_id()
    if first_job is None:
        return 0
    withdrawn, swept = await store.files.withdrawn(), 0
    async for page in apart.names():
        for name in sorted(_since(first_job, page) - withdrawn):
            await discard(apart, name)
            swept += 1
    return swept


async def discard(pictures: PictureStore, name: str) -> None:
    """Delete a file. Never raises: what stays is logged, and for the next sweep."""
    try:
        await pictures.delete(name)
    except Exception:  # whoever cleans up must get to the end of it
        log.exception("file_left", name=name)


def _since(first_job: str, names: Iterable[str]) -> set[str]:
    """Those of the files whose picture was made after a store's first job was sent."""
    return {name for name in names if _time_of(id_of(name) or "") >= _time_of(first_job)}


def _time_of(identifier: str) -> str:
    """The part of an id that says when it was made; sorts by time."""
    return identifier.partition("_")[2][:10]
