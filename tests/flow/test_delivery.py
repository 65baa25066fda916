"""What is at hand of delivered pictures: files counted once, and nothing from before a removal.

The store and the folder are real; no form is made here.
"""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from calotype.core import limits
from calotype.core.ids import new_id
from calotype.core.nouns import ImageFile
from calotype.delivery.names import stored_name
from calotype.flow.delivery import Delivery
from calotype.jobs.files import Delivered
from tests.flow.dispatch_bench import StubFinisher
from tests.flow.test_removal import House, house

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
    removals, look_up = house.removals(delivery.forget), house.store.files.of

    async def deleted_meanwhile(image_id: str) -> Delivered | None:
        picture = await look_up(image_id)
        await removals.delete(image_id, by="key k")
        return picture

    with monkeypatch.context() as patch:
        patch.setattr(house.store.files, "of", deleted_meanwhile)
        await delivery.find(image.id)
    assert delivery.known(image.id) is None
    found = await delivery.find(image.id)
    assert found is not None
    assert found.is_removed
    assert delivery.known(image.id) == found
