"""A database and its pictures, restored from before a removal: nothing comes back into delivery."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from calotype.api.app import create_app
from calotype.flow.removal import Removals
from calotype.jobs.files import RemovalKind
from tests.flow.dispatch_bench import eventually
from tests.flow.test_pools import ADA, APART, BOB, COMMON, GROWN, POOL, House, house_in

PLACES = ("pictures", "behind-the-curtain")


async def answer(house: House, address: str) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(house.platform))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as anyone:
        return await anyone.get(address)


async def test_what_was_taken_away_stays_away_though_the_database_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Removals, "_receipt", lambda self, removal: {"of": removal.image_id})
    home, kept = tmp_path / "home", tmp_path / "backup"
    async with house_in(home, monkeypatch, GROWN + POOL) as house:
        for engine in (COMMON, APART):
            await house.pool.warm(engine=engine)
        await eventually(lambda: len(house.platform._dispatcher._line.policy._lines) == 2)
        jobs = [await house.made(key) for key in (BOB, BOB, BOB, BOB, ADA)]
        left, withdrawn, deleted, released, apart = [job.images[0].id for job in jobs]
        gallery = house.platform.gallery
        addresses = {
            job.images[0].id: gallery.path("acme", job.images[0].id, "png") for job in jobs
        }
        assert (await answer(house, addresses[withdrawn])).content == b"png"
    file = home / "calotype.db"
    kept.mkdir()
    shutil.copy(file, kept)
    for place in PLACES:
        shutil.copytree(home / place, kept / place)

    async with house_in(home, monkeypatch, GROWN + POOL) as house:
        removals = house.platform.gallery.removals
        for image_id in (withdrawn, released, apart):
            await removals.withdraw(image_id, by="operator", reason="to look at it")
        await removals.release(released)
        await removals.delete(deleted, by="key k")

    shutil.copy(kept / file.name, file)
    for place in PLACES:
        shutil.rmtree(home / place)
        shutil.copytree(kept / place, home / place)
    async with house_in(home, monkeypatch, GROWN + POOL) as house:
        await house.platform.gallery.open()
        for image_id in (withdrawn, deleted, apart):
            gone = await answer(house, addresses[image_id])
            assert (gone.status_code, b"png" in gone.content) == (404, False)
        for image_id in (left, released):
            assert (await answer(house, addresses[image_id])).content == b"png"
        files = house.platform._store.files
        assert (await files.removal(deleted)).kind is RemovalKind.DELETED
        assert (await files.removal(withdrawn)).reason == "to look at it"
        await house.platform.gallery.removals.take_up()
        assert house.files("pictures") == {left, released}
        assert house.files("quarantine") == {withdrawn}
        assert house.files("behind-the-curtain/pictures") == set()
        assert house.files("behind-the-curtain/quarantine") == {apart}
        assert await house.platform.gallery.removals.take_again() == 0
