"""No picture without a job: deletes the files of those that no job has.

An attempt deletes what it stored in vain. A server that is killed can't, nor one whose disk fails
at that moment: their files go with the sweep of the next start.
"""

from __future__ import annotations

import structlog

from calotype.delivery import formats
from calotype.delivery.store import PictureStore
from calotype.jobs.store import JobStore

log = structlog.get_logger("calotype.sweep")


async def sweep(store: JobStore, pictures: PictureStore) -> int:
    """Delete the pictures that no job has, and return how many; before anything makes new ones.

    Pictures from before the store's first job are left alone: they are of another database, which
    may come back.
    """
    await pictures.delete_drafts()
    first_job = await store.first_job_id()
    if first_job is None:
        return 0
    swept = 0
    async for page in pictures.ids():
        ours = {image_id for image_id in page if _time_of(image_id) >= _time_of(first_job)}
        for image_id in sorted(ours - await store.named(ours)):
            await discard(pictures, image_id)
            swept += 1
    if swept:
        log.warning("pictures_swept", count=swept)
    return swept


async def discard(pictures: PictureStore, image_id: str) -> None:
    """Delete a picture's files. Never raises: what stays is logged, and for the next sweep."""
    for form in formats.FORMS:
        try:
            await pictures.delete(image_id, form)
        except Exception:  # whoever cleans up must get to the end of it
            log.exception("picture_left", image=image_id, form=form)


def _time_of(identifier: str) -> str:
    """The part of an id that says when it was made; sorts by time."""
    return identifier.partition("_")[2][:10]
