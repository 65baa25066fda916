"""What is read of the job store: one tenant's jobs, in pages, and the line."""

from __future__ import annotations

from typing import Any

import pytest

from calotype.core import limits
from calotype.core.errors import CalotypeError, InvalidInput, NotFound
from calotype.core.states import JobState
from calotype.jobs.store import JobStore
from tests.rooms.test_jobs import bring_to, queue


async def test_a_foreign_tenants_job_looks_like_one_that_is_not_there(store: JobStore) -> None:
    job = await queue(store, "ada")
    assert await store.get(job.id, tenant="ada") == job
    with pytest.raises(NotFound) as foreign:
        await store.get(job.id, tenant="eve")
    with pytest.raises(NotFound) as unknown:
        await store.get("job_unknown", tenant="eve")
    assert _told(foreign.value, job.id) == _told(unknown.value, "job_unknown")


def _told(error: CalotypeError, job_id: str) -> dict[str, Any]:
    return {key: str(value).replace(job_id, "X") for key, value in error.problem().items()}


async def test_a_listing_is_newest_first_in_pages_and_of_one_tenant(store: JobStore) -> None:
    mine = [(await queue(store, "ada")).id for _ in range(7)]
    theirs = await queue(store, "eve")
    newest = mine[::-1]
    page = await store.list_jobs("ada", limit=3, before=None)
    assert [job.id for job in page] == newest[:3]
    page = await store.list_jobs("ada", limit=100, before=page[-1].id)
    assert [job.id for job in page] == newest[3:]
    assert await store.list_jobs("ada", limit=3, before=mine[0]) == []
    with pytest.raises(InvalidInput, match="to page from"):
        await store.list_jobs("ada", limit=3, before=theirs.id)


@pytest.mark.parametrize("limit", [0, -1, limits.PAGE_JOBS_MAX + 1])
async def test_a_page_has_a_bound_and_says_so(store: JobStore, limit: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        await store.list_jobs("ada", limit=limit, before=None)
    assert (refused.value.field, refused.value.limit) == ("limit", limits.PAGE_JOBS_MAX)


async def test_a_listing_shows_each_jobs_own_pictures(store: JobStore) -> None:
    done = [(await bring_to(store, JobState.SUCCEEDED))[0] for _ in range(2)]
    waiting = await queue(store)
    listed = await store.list_jobs("ada", limit=10, before=None)
    assert [job.images for job in listed] == [(), done[1].images, done[0].images]
    assert listed[0] == waiting


async def test_the_line_is_counted_by_tenant_and_whole(store: JobStore) -> None:
    await queue(store, "ada")
    await queue(store, "ada")
    await queue(store, "eve")
    await bring_to(store, JobState.RUNNING)
    assert await store.count_queued() == 3
    assert await store.count_queued("ada") == 2
    assert await store.count_queued("nobody") == 0
