"""The records of pictures' files, and of pictures that were taken away; on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Column, MetaData, Table, insert, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from calotype.core.errors import Conflict, NotFound
from calotype.core.ids import new_id
from calotype.core.nouns import Image, ImageFile, Tier
from calotype.delivery.names import id_of
from calotype.jobs import tables
from calotype.jobs.database import migrate
from calotype.jobs.files import RemovalKind
from calotype.jobs.postgresql import with_driver
from calotype.jobs.store import JobStore
from tests.rooms.test_jobs import ALLOWED, SPEC

PREVIEW = {"image": 0, "step": 1, "steps": 2, "preview": "data:image/webp;base64,AA=="}


def file_of(image_id: str, form: str, side: int = 0) -> ImageFile:
    return ImageFile(form, side, f"fast/AA/{image_id}.{form}{side}", "0" * 64, 10)


async def done(store: JobStore, tenant: str = "ada", tier: Tier = Tier.FAST) -> Image:
    """The image of a job that succeeded, with two files and a preview in its log."""
    job = await store.insert(tenant, tier, SPEC)
    lease = await store.lease(job.id, "engine-0")
    await store.append(lease, "step", PREVIEW)
    image_id = new_id("img")
    files = tuple(file_of(image_id, form) for form in ("png", "webp"))
    image = Image(
        image_id, 0, 7, 64, 64, "0" * 64, "1" * 64, ("png", "webp"), files, verdict=ALLOWED
    )
    await store.succeed(lease, [image])
    return image


async def test_a_pictures_files_are_recorded_with_it(store: JobStore) -> None:
    image = await done(store)
    found = await store.files.of(image.id)
    assert found is not None
    assert (found.tenant, found.tier, found.width, found.is_removed) == ("ada", "fast", 64, False)
    assert sorted(found.files, key=lambda it: it.form) == list(image.files)
    assert found.file("png", 0) == image.files[0]
    assert found.file("png", 128) is None
    assert await store.files.of("img_of_nobody") is None
    names = [file.name for file in image.files]
    assert await store.files.named([*names, "fast/AA/other"]) == set(names)


async def test_of_two_that_make_the_same_file_one_is_kept(store: JobStore) -> None:
    image = await done(store)
    one, other = file_of(image.id, "avif", 128), replace(file_of(image.id, "avif", 128), name="b")
    kept = await asyncio.gather(*(store.files.add(image.id, each) for each in (one, other)))
    assert kept[0] == kept[1]
    assert kept[0] in (one, other)
    found = await store.files.of(image.id)
    assert found is not None
    assert found.file("avif", 128) == kept[0]


@pytest.mark.parametrize("kind", list(RemovalKind))
async def test_a_picture_that_is_taken_away_is_given_to_nobody(
    store: JobStore, kind: RemovalKind
) -> None:
    image, other = await done(store), await done(store)
    removal = await store.files.take_away(image.id, kind, by="key k", reason="why")
    assert (removal.kind, removal.tenant, removal.by, removal.reason) == (
        kind,
        "ada",
        "key k",
        "why",
    )
    assert removal.files == image.files
    assert removal.ended_at is None
    found = await store.files.of(image.id)
    assert found is not None
    assert (found.is_removed, found.files) == (True, ())
    assert await store.files.named([file.name for file in image.files]) == set()
    with pytest.raises(NotFound):
        await store.files.add(image.id, file_of(image.id, "avif"))
    again = await store.files.take_away(image.id, kind, by="another", reason="")
    assert again == removal
    assert [each.image_id for each in await store.files.unended()] == [image.id]
    await store.files.end(image.id, {"receipt": {}})
    assert await store.files.unended() == []
    assert [each.image_id for each in await store.files.unpurged(10)] == [image.id]
    await store.files.purged(image.id)
    assert await store.files.unpurged(10) == []
    kept, job = await store.pictures.image(image.id, tenant="ada")
    assert kept.removed_at is not None
    steps = [event for event in await store.events(job.id) if event.kind == "step"]
    assert not any("preview" in event.data for event in steps)
    untouched = await store.files.of(other.id)
    assert untouched is not None
    assert not untouched.is_removed


async def test_only_a_withdrawn_picture_comes_back(store: JobStore) -> None:
    image = await done(store)
    with pytest.raises(Conflict):
        await store.files.bring_back(image.id)
    await store.files.take_away(image.id, RemovalKind.WITHDRAWN, by="operator", reason="")
    await store.files.bring_back(image.id)
    found = await store.files.of(image.id)
    assert found is not None
    assert (found.is_removed, len(found.files)) == (False, 2)
    await store.files.take_away(image.id, RemovalKind.WITHDRAWN, by="operator", reason="")
    deleted = await store.files.take_away(image.id, RemovalKind.DELETED, by="operator", reason="")
    assert (deleted.kind, deleted.files) == (RemovalKind.DELETED, image.files)
    with pytest.raises(Conflict):
        await store.files.bring_back(image.id)
    again = await store.files.take_away(image.id, RemovalKind.WITHDRAWN, by="x", reason="")
    assert again == deleted, "what is deleted stays deleted"


async def test_another_tenants_picture_can_not_be_taken_away(store: JobStore) -> None:
    image = await done(store)
    for image_id, tenant in ((image.id, "bob"), ("img_of_nobody", "ada")):
        with pytest.raises(NotFound):
            await store.files.take_away(
                image_id, RemovalKind.DELETED, by="x", reason="", tenant=tenant
            )
    with pytest.raises(NotFound):
        await store.files.removal(image.id, tenant="ada")


async def test_what_a_tier_keeps_no_longer_is_due(store: JobStore) -> None:
    relaxed = [await done(store, tier=Tier.RELAX) for _ in range(3)]
    await done(store)
    later, before = datetime.now(UTC) + timedelta(1), datetime.now(UTC) - timedelta(1)
    assert await store.files.due("relax", before=later, most=2) == [it.id for it in relaxed[:2]]
    assert await store.files.due("relax", before=before, most=2) == []
    await store.files.take_away(relaxed[0].id, RemovalKind.EXPIRED, by="retention", reason="")
    assert await store.files.due("relax", before=later, most=1) == [relaxed[1].id]


async def test_links_are_revoked_for_one_tenant_at_a_time(store: JobStore) -> None:
    assert await store.files.links_revoked() == {}
    assert [await store.files.revoke_links("ada") for _ in range(2)] == [1, 2]
    await store.files.revoke_links("bob")
    assert await store.files.links_revoked() == {"ada": 2, "bob": 1}


async def test_the_hashes_of_what_was_signed_are_kept_when_it_is_taken_away(
    store: JobStore,
) -> None:
    image = await done(store)
    assert await store.files.sha256s(image.id) == {"0" * 64}
    await store.files.take_away(image.id, RemovalKind.DELETED, by="x", reason="")
    assert await store.files.sha256s(image.id) == {"0" * 64}
    assert await store.files.sha256s("img_of_nobody") == set()


async def test_pictures_from_before_there_were_records_are_found_on(database_url: str) -> None:
    engine = create_async_engine(with_driver(make_url(database_url)))
    image_id, at = new_id("img"), datetime.now(UTC)
    job = {
        "number": 1,
        "id": "job_1",
        "tenant": "ada",
        "user": "",
        "tier": "fast",
        "spec": {},
        "state": "succeeded",
        "created_at": at,
        "attempt": 1,
        "token": 1,
        "log_length": 0,
    }
    image = {
        "id": image_id,
        "job_id": "job_1",
        "index": 0,
        "seed": 7,
        "width": 64,
        "height": 64,
        "sha256": "a" * 64,
        "pixels_sha256": "b" * 64,
        "formats": ["png", "webp"],
    }
    async with engine.begin() as conn:
        await conn.run_sync(migrate, "0010")
        for name, row in (("jobs", job), ("images", image)):
            of_then = [Column(each, tables.metadata.tables[name].c[each].type) for each in row]
            await conn.execute(insert(Table(name, MetaData(), *of_then)).values(row))
    await engine.dispose()
    store = await JobStore.open(database_url)
    found = await store.files.of(image_id)
    await store.close()
    assert found is not None
    # Of the WebP nothing tells the hash: it is made anew when somebody asks.
    (file,) = found.files
    assert file == ImageFile("png", 0, f"{image_id[-2:]}/{image_id}.png", "a" * 64, 0)
    assert id_of(file.name) == image_id
