"""No image without a verdict that allows its pixels by its policy: the database sees to it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import delete, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from calotype.core.errors import InternalError
from calotype.core.nouns import Image, VerdictKind
from calotype.core.states import JobState
from calotype.jobs import postgresql, tables
from calotype.jobs.database import migrate
from calotype.jobs.rows import image_values
from calotype.jobs.store import JobStore
from calotype.jobs.verdicts import deliver, record
from tests.rooms.test_jobs import ALLOWED, pictures, queue
from tests.rooms.verdicts import verdicts_of

OF_BEFORE = (
    """
    INSERT INTO jobs (id, tenant, "user", tier, spec, state, created_at, attempt, token, log_length)
    VALUES ('job_1', 'ada', '', 'fast', '{}', 'succeeded', '2026-01-01 00:00:00', 1, 1, 0)
    """,
    """
    INSERT INTO images (id, job_id, "index", seed, width, height, sha256, pixels_sha256, formats)
    VALUES ('img_1', 'job_1', 0, 7, 64, 64, 'aa', 'bb', '["png"]')
    """,
)
BLOCKED = replace(ALLOWED, kind=VerdictKind.BLOCK, category="sexual", score=0.9)


async def images(store: JobStore) -> list[Any]:
    async with store._database.reading() as conn:
        return list((await conn.execute(select(tables.images))).all())


@pytest.mark.parametrize("verdict", [None, BLOCKED, replace(BLOCKED, kind=VerdictKind.REVIEW)])
async def test_a_job_can_not_succeed_with_a_picture_that_is_not_allowed(
    store: JobStore, verdict: Any
) -> None:
    lease = await store.lease((await queue(store)).id, "cpu-0")
    one, other = pictures(lease.job_id)
    with pytest.raises(InternalError):
        await store.succeed(lease, [one, replace(other, verdict=verdict)])
    assert (await store.get(lease.job_id)).state is JobState.RUNNING
    assert await images(store) == []


async def test_a_delivered_image_has_its_verdict(store: JobStore) -> None:
    lease = await store.lease((await queue(store)).id, "cpu-0")
    await store.succeed(lease, pictures(lease.job_id))
    assert {row.policy for row in await images(store)} == {ALLOWED.policy}
    [kept] = await verdicts_of(store, "b" * 64)  # both have the same pixels
    assert (kept["kind"], kept["check"], kept["policy"]) == ("allow", "looks", ALLOWED.policy)
    assert (kept["version"], kept["score"]) == (ALLOWED.version, ALLOWED.score)


async def test_a_blocked_picture_has_its_verdict_and_is_no_image(store: JobStore) -> None:
    lease = await store.lease((await queue(store)).id, "cpu-0")
    await store.withhold(lease, 0, "c" * 64, BLOCKED)
    [kept] = await verdicts_of(store, "c" * 64)
    assert (kept["kind"], kept["category"], kept["score"]) == ("block", "sexual", 0.9)
    image = replace(pictures(lease.job_id)[0], pixels_sha256="c" * 64)
    await refused(store, lease.job_id, image)


async def refused(store: JobStore, job_id: str, image: Image, policy: str = ALLOWED.policy) -> None:
    """The database doesn't take this row, whoever writes it."""
    row = insert(tables.images).values(**image_values(job_id, image), policy=policy)
    with pytest.raises(DBAPIError, match="an image needs a verdict that allows it"):
        async with store._database.writing() as conn:
            await conn.execute(row)


async def test_no_other_way_leads_into_the_table(store: JobStore) -> None:
    lease = await store.lease((await queue(store)).id, "cpu-0")
    image = pictures(lease.job_id)[0]
    await refused(store, lease.job_id, image)
    await store.succeed(lease, [image])
    other = replace(image, id="img_other", index=1)
    await refused(store, lease.job_id, other, policy="another-policy")
    await refused(store, lease.job_id, replace(other, pixels_sha256="d" * 64))
    for values in ({"pixels_sha256": "d" * 64}, {"policy": "another-policy"}):
        with pytest.raises(DBAPIError, match="an image needs a verdict"):
            async with store._database.writing() as conn:
                await conn.execute(update(tables.images).values(**values))


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_tried_in_any_order_each_image_has_its_verdict(
    store: JobStore, seed: int
) -> None:
    job, chance, refusals = await queue(store), random.Random(seed), 0
    for at in range(40):
        pixels = chance.choice("abcd") * 64
        image = replace(pictures(job.id)[0], id=f"img_{at}", index=at, pixels_sha256=pixels)
        verdict = replace(ALLOWED, kind=chance.choice([*VerdictKind]), policy=chance.choice("pq"))
        row = insert(tables.images).values(**image_values(job.id, image), policy=verdict.policy)
        way = chance.randrange(3)
        try:
            async with store._database.writing() as conn:
                if way == 0:
                    await record(conn, pixels, verdict)
                if way == 1:
                    await deliver(conn, job.id, image, verdict)
                else:
                    await conn.execute(row)
        except (InternalError, DBAPIError):
            refusals += 1
    made = await images(store)
    assert made
    assert refusals
    for each in made:
        said = await verdicts_of(store, each.pixels_sha256)
        assert ("allow", each.policy) in [(it["kind"], it["policy"]) for it in said]


async def test_a_verdict_is_never_changed_or_deleted(store: JobStore) -> None:
    lease = await store.lease((await queue(store)).id, "cpu-0")
    await store.succeed(lease, pictures(lease.job_id))
    changes = [update(tables.verdicts).values(kind="block"), delete(tables.verdicts)]
    for change in changes:
        with pytest.raises(DBAPIError, match="kept as they were given"):
            async with store._database.writing() as conn:
                await conn.execute(change)


async def test_images_of_before_there_were_policies_are_kept(database_url: str) -> None:
    """A database of the version before has an image, and is brought up to date."""
    engine = create_async_engine(postgresql.with_driver(make_url(database_url)))
    async with engine.begin() as conn:
        await conn.run_sync(lambda sync: migrate(sync, "0012"))
        for statement in OF_BEFORE:
            await conn.execute(text(statement))
    await engine.dispose()
    store = await JobStore.open(database_url)
    [row] = await images(store)
    [kept] = await verdicts_of(store, row.pixels_sha256)
    assert (kept["policy"], kept["kind"]) == (row.policy, "allow")
    assert row.policy == "before-there-were-policies"
    await store.close()
