"""Pictures taken away: what a crash leaves undone, what a tier keeps no longer, who is told.

The store, the folders, the signatures and the cache's address are real.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from calotype.core import limits
from calotype.core.errors import Conflict, NotFound, OperatorError
from calotype.core.ids import new_id
from calotype.core.nouns import Image, ImageFile, Tier
from calotype.delivery.names import stored_name
from calotype.delivery.store import Damaged, PictureStore
from calotype.flow.purges import Purges, headers_of
from calotype.flow.removal import Removals
from calotype.flow.removal_log import RemovalLog
from calotype.flow.sweep import sweep, sweep_apart
from calotype.jobs.files import Removal, RemovalKind
from calotype.jobs.store import JobStore
from calotype.provenance import certificates, receipts
from calotype.provenance.certificates import SigningIdentity
from tests.laid import opened_in
from tests.receiver import Receiver, answered, receiving
from tests.rooms.test_jobs import ALLOWED, SPEC

DATA = b"a signed picture"


@dataclass
class House:
    """A store with its folders, and a cache in front that is told."""

    store: JobStore
    pictures: PictureStore
    apart: PictureStore
    identity: SigningIdentity
    cache: Receiver
    log: RemovalLog
    forgotten: list[str] = field(default_factory=list)

    def removals(self, forget: Callable[[str], None] | None = None, **kept_days: float) -> Removals:
        return Removals(
            self.store,
            self.pictures,
            self.apart,
            forget or self.forgotten.append,
            self.identity,
            removal_log=self.log,
            purges=Purges(self.cache.url, {"Authorization": "Bearer secret"}),
            kept_days={Tier(tier): days for tier, days in kept_days.items()},
        )

    async def made(self, tier: Tier = Tier.FAST) -> Image:
        """A delivered picture with its file."""
        job = await self.store.insert("ada", tier, SPEC)
        lease = await self.store.lease(job.id, "engine-0")
        image_id, sha256 = new_id("img"), hashlib.sha256(DATA).hexdigest()
        file = ImageFile("png", 0, stored_name(tier.value, image_id, sha256, "png"), sha256, 1)
        await self.pictures.put(file.name, DATA)
        image = Image(image_id, 0, 7, 64, 64, sha256, "1" * 64, ("png",), (file,), verdict=ALLOWED)
        await self.store.succeed(lease, [image])
        return image

    def told(self) -> list[str]:
        return [came.headers["surrogate-key"] for came in self.cache.came]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    store = await opened_in(tmp_path)
    identity = certificates.ensure_development(tmp_path / "signing", now=datetime.now(UTC))
    pictures, apart = (PictureStore.local(tmp_path / name) for name in ("pictures", "apart"))
    async with receiving() as cache:
        log = RemovalLog(tmp_path / "removals")
        yield House(store, pictures, apart, identity, cache, log)
    await store.close()


async def test_what_a_crash_left_undone_is_done_by_the_next_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await house.made()

    async def killed(name: str) -> None:
        raise OperatorError("the server was killed here")

    with monkeypatch.context() as patch:
        patch.setattr(house.pictures, "delete", killed)
        with pytest.raises(OperatorError):
            await house.removals().delete(image.id, by="key k")
    found = await house.store.files.of(image.id)
    assert found is not None
    assert (found.is_removed, found.files) == (True, ()), "nobody gets it from now on"
    assert await house.pictures.exists(image.files[0].name)
    await house.removals().take_up()
    assert not await house.pictures.exists(image.files[0].name)
    receipt = await house.removals().receipt(image.id, tenant="ada")
    told = receipts.check(receipt, anchors_pem=house.identity.anchors_pem)
    assert told["files"] == [{"form": "png", "side": 0, "sha256": image.sha256}]


async def test_what_a_crash_kept_from_being_moved_apart_is_not_swept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await house.made()

    async def killed(name: str, data: bytes) -> None:
        raise OperatorError("the server was killed here")

    with monkeypatch.context() as patch:
        patch.setattr(house.apart, "put", killed)
        with pytest.raises(OperatorError):
            await house.removals().withdraw(image.id, by="operator", reason="to look at it")
    assert await sweep(house.store, house.pictures) == 0
    await house.removals().take_up()
    assert await house.apart.exists(image.files[0].name)
    assert not await house.pictures.exists(image.files[0].name)


async def test_a_tier_keeps_its_pictures_as_long_as_it_says(house: House) -> None:
    old, other = await house.made(Tier.RELAX), await house.made(Tier.TURBO)
    assert await house.removals(relax=1.0).expire() == 0
    assert await house.removals(relax=1e-9).expire() == 1
    assert not await house.pictures.exists(old.files[0].name)
    assert await house.pictures.exists(other.files[0].name)
    removal = await house.store.files.removal(old.id)
    assert (removal.kind.value, removal.by) == ("expired", "retention")
    assert removal.receipt is not None
    assert set(house.forgotten) == {old.id}


async def test_a_damaged_file_holds_up_no_other_removal(house: House) -> None:
    damaged, other, old = await house.made(), await house.made(), await house.made(Tier.RELAX)
    await house.pictures._write(damaged.files[0].name, b"another")
    for image in (damaged, other):
        await house.store.files.take_away(
            image.id, RemovalKind.WITHDRAWN, by="operator", reason="looked at"
        )
    removals = house.removals(relax=1e-9)
    with pytest.raises(Damaged):
        await removals.withdraw(damaged.id, by="operator", reason="looked at")
    await removals.take_up()
    assert [removal.image_id for removal in await house.store.files.unended()] == [damaged.id]
    assert await house.apart.exists(other.files[0].name)
    assert await house.pictures.exists(damaged.files[0].name), "nothing of it is lost"
    assert await removals.expire() == 1
    assert not await house.pictures.exists(old.files[0].name)


async def test_pictures_expire_also_while_what_was_stopped_cannot_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await house.made(Tier.RELAX)

    async def broken() -> list[Removal]:
        raise RuntimeError("a row that nobody can read")

    monkeypatch.setattr(house.store.files, "unended", broken)
    has_expired = asyncio.Event()
    removals = house.removals(lambda image_id: has_expired.set(), relax=1e-9)
    going = asyncio.create_task(removals.expire_for_ever())
    await asyncio.wait_for(has_expired.wait(), 60)
    going.cancel()
    await asyncio.wait([going])
    assert (await house.store.files.removal(old.id)).kind is RemovalKind.EXPIRED


async def test_caches_are_told_until_they_have_heard_it(house: House) -> None:
    one, other = await house.made(), await house.made()
    house.cache.answer = lambda came: answered(503)
    await house.removals().delete(one.id, by="x")
    assert house.told() == [one.id]
    house.cache.answer = lambda came: answered(200)
    await house.removals().withdraw(other.id, by="x", reason="looked at")
    assert house.told()[1:] == [f"{one.id} {other.id}"]
    (first, *_) = house.cache.came
    assert first.headers["authorization"] == "Bearer secret"
    assert first.body == f'{{"tags":["{one.id}"]}}'.encode()
    await house.removals().take_up()
    assert len(house.cache.came) == 2


async def test_a_withdrawn_picture_is_deleted_by_the_operator_only_and_not_released_then(
    house: House,
) -> None:
    image, removals = await house.made(), house.removals()
    name = image.files[0].name
    await removals.withdraw(image.id, by="operator", reason="")
    assert (await house.pictures.exists(name), await house.apart.exists(name)) == (False, True)
    with pytest.raises(NotFound):
        await removals.receipt(image.id, tenant="ada")
    with pytest.raises(Conflict, match="withdrawn"):
        await removals.delete(image.id, by="key k", tenant="ada")
    with pytest.raises(NotFound):
        await removals.delete(image.id, by="key k", tenant="another")
    assert await house.apart.exists(name), "the tenant's word doesn't end what is kept as evidence"
    await removals.delete(image.id, by="operator")
    assert (await house.pictures.exists(name), await house.apart.exists(name)) == (False, False)
    with pytest.raises(Conflict):
        await removals.release(image.id)


async def test_a_release_that_fails_leaves_no_copy_in_delivery(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, removals = await house.made(), house.removals()
    name, bring_back = image.files[0].name, house.store.files.bring_back
    await removals.withdraw(image.id, by="operator", reason="")

    async def released_meanwhile(image_id: str) -> Removal:
        await bring_back(image_id)
        return await bring_back(image_id)

    async def deleted_meanwhile(image_id: str) -> Removal:
        await removals.delete(image_id, by="operator")
        await house.pictures.put(name, DATA)  # the release's last copy came after it
        return await bring_back(image_id)

    monkeypatch.setattr(house.store.files, "bring_back", released_meanwhile)
    with pytest.raises(Conflict):
        await removals.release(image.id)
    assert await house.pictures.exists(name), "it is given out again"
    await removals.withdraw(image.id, by="operator", reason="")
    monkeypatch.setattr(house.store.files, "bring_back", deleted_meanwhile)
    with pytest.raises(Conflict):
        await removals.release(image.id)
    assert not await house.pictures.exists(name)


async def test_what_was_withdrawn_outlives_a_restored_backup_and_another_database(
    house: House,
) -> None:
    image = await house.made()
    (name,) = [file.name for file in image.files]
    sha256 = hashlib.sha256(DATA).hexdigest()
    others = [stored_name("fast", new_id("img"), sha256, "png") for _ in range(2)]
    for each in (name, *others):  # the database was restored from before the withdrawal
        await house.apart.put(each, DATA)
    await house.pictures.delete(name)
    assert await sweep_apart(house.store, house.pictures, house.apart) == 0
    await house.pictures.put(name, DATA)  # a release that was killed before its end
    assert await sweep_apart(house.store, house.pictures, house.apart) == 1
    assert not await house.apart.exists(name)
    assert all([await house.apart.exists(each) for each in others])


async def test_the_log_outside_has_what_was_taken_away_before_anybody_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = [await house.made() for _ in range(3)]
    removals, seen = house.removals(), list[str]()
    end = house.store.files.end

    async def ending(image_id: str, receipt: object) -> None:
        seen.append(image_id)
        assert image_id in house.log.standing()
        await end(image_id, receipt)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(house.store.files, "end", ending)
        await removals.withdraw(one.id, by="operator", reason="to look at it")
        await removals.delete(two.id, by="key k")
    assert seen == [one.id, two.id]
    with pytest.raises(Conflict):
        await removals.release(two.id)
    await removals.withdraw(three.id, by="operator", reason="")
    await removals.release(three.id)
    assert {name: it.kind for name, it in house.log.standing().items()} == {
        one.id: RemovalKind.WITHDRAWN,
        two.id: RemovalKind.DELETED,
    }
    assert house.log.standing()[one.id].reason == "to look at it"
    assert await house.removals(fast=1e-9).expire() == 1, "what expires is due again by itself"
    assert len(house.log.standing()) == 2


def test_a_line_that_a_crash_left_half_hides_no_other(tmp_path: Path) -> None:
    log, file = RemovalLog(tmp_path), tmp_path / f"{datetime.now(UTC).year}.jsonl"
    log.add("img_1", RemovalKind.WITHDRAWN, "operator", "first")
    with file.open("a") as half:
        half.write('\n{"image": "img_2", "ki')
    log.add("img_3", RemovalKind.DELETED, "operator", "third")
    log.released("img_3")
    assert {*log.standing()} == {"img_1", "img_3"}, "what was deleted stays so"
    assert file.stat().st_mode & 0o777 == 0o600
    old = tmp_path / f"{datetime.now(UTC).year - limits.REMOVALS_KEPT_YEARS - 1}.jsonl"
    file.rename(old)
    assert log.standing() == {}
    assert not old.exists()


def test_headers_of_a_purge_are_read_or_refused() -> None:
    assert headers_of("Fastly-Key: abc; X-Two: a:b") == {"Fastly-Key": "abc", "X-Two": "a:b"}
    assert headers_of(None) == {}
    for wrong in ("no colon", ": value", "Name:"):
        with pytest.raises(OperatorError):
            headers_of(wrong)
