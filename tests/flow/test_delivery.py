"""What is at hand of delivered pictures: files counted once, and nothing from before a removal.

The store and the folder are real; no form is made here.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from calotype.core import limits
from calotype.core.ids import new_id
from calotype.core.nouns import ImageFile
from calotype.delivery.names import stored_name
from calotype.flow.delivery import Delivery
from calotype.flow.gallery import removals
from calotype.flow.removal import Removals
from calotype.jobs.files import Delivered
from calotype.settings import Settings
from tests.flow.dispatch_bench import StubFinisher
from tests.flow.test_removal import House, house
from tests.receiver import Came, answered

__all__ = ["house"]


def delivery_of(house: House) -> Delivery:
    return Delivery(house.store, StubFinisher(), house.pictures)


async def stored(house: House, data: bytes) -> ImageFile:
    sha256 = hashlib.sha256(data).hexdigest()
    file = ImageFile("png", 0, stored_name("fast", new_id("img"), sha256, "png"), sha256, len(data))
    await house.pictures.put(file.name, data)
    return file


async def test_a_file_that_is_read_many_times_at_once_is_counted_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FILES_HOT_BYTES_MAX", 80)
    delivery, many = delivery_of(house), await stored(house, b"0123456789")
    await asyncio.gather(*[delivery.read(many) for _ in range(30)])
    others = [await stored(house, b"%010d" % number) for number in range(8)]
    for each in others:
        await delivery.read(each)
    assert delivery.at_hand(many) is None, "eight of ten bytes have room"
    assert all(delivery.at_hand(each) is not None for each in others)


async def test_what_was_looked_up_before_a_removal_is_not_known_after_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery, image = delivery_of(house), await house.made()
    taking, look_up = house.removals(delivery.forget), house.store.files.of

    async def deleted_meanwhile(image_id: str) -> Delivered | None:
        picture = await look_up(image_id)
        await taking.delete(image_id, by="key k")
        return picture

    with monkeypatch.context() as patch:
        patch.setattr(house.store.files, "of", deleted_meanwhile)
        await delivery.find(image.id)
    assert delivery.known(image.id) is None
    found = await delivery.find(image.id)
    assert found is not None
    assert found.is_removed
    assert delivery.known(image.id) == found


async def test_caches_are_told_of_what_another_process_took_away_once_it_is_shown_no_more(
    house: House,
) -> None:
    delivery, image = delivery_of(house), await house.made()
    known = []

    def asked_again(came: Came) -> bytes:
        known.append(delivery.known(image.id))
        return answered(200)

    house.cache.answer = asked_again
    await delivery.find(image.id)
    none = lambda _: None  # noqa: E731 - an argument
    beside = Removals(
        *(house.store, house.pictures, house.apart, none, house.identity), removal_log=house.log
    )
    await beside.delete(image.id, by="operator")
    assert delivery.known(image.id) is not None
    await house.removals(delivery.forget).take_up()
    assert known == [None]


async def test_a_process_beside_a_server_tells_caches_when_that_has_noticed(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PICTURE_KNOWN_S", 0.1)
    image, loop, settings = await house.made(), asyncio.get_running_loop(), Settings(home=tmp_path)
    beside = removals(
        settings.model_copy(update={"purge_url": house.cache.url}),
        house.store,
        house.identity,
        pictures=house.pictures,
        apart=house.apart,
        forget=None,
    )
    at, told = loop.time(), list[float]()

    def heard(came: Came) -> bytes:
        told.append(loop.time())
        return answered(200)

    house.cache.answer = heard
    await beside.delete(image.id, by="operator")
    assert len(told) == 1
    assert told[0] - at >= limits.PICTURE_KNOWN_S
