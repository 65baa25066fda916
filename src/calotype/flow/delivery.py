"""Hands delivered pictures out: in every form and size, each file as it was signed, to the byte.

A form or size that isn't there yet is made of the PNG, marked and signed, stored, recorded, and
from then on served like the others. What has no record is served to nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass

import structlog

from calotype.core import limits
from calotype.core.errors import InternalError, NotFound, TooMany
from calotype.core.nouns import ImageFile
from calotype.delivery.names import Asked, pool_of, stored_name
from calotype.delivery.store import Damaged, PictureStore
from calotype.flow.finish import Finisher, Rendition
from calotype.flow.sweep import discard
from calotype.jobs.files import Delivered
from calotype.jobs.store import JobStore

log = structlog.get_logger("calotype.delivery")

FORM = "png"  # of what the others are made of


@dataclass(frozen=True)
class _Known:
    picture: Delivered | None
    until: float  # by the monotonic clock


class Delivery:
    """Finds pictures' files, and makes those that are asked for the first time."""

    def __init__(self, store: JobStore, finisher: Finisher, pictures: PictureStore) -> None:
        self._store, self._finisher, self._pictures = store, finisher, pictures
        self._known: OrderedDict[str, _Known] = OrderedDict()  # by image id, last used last
        self._forgotten = 0  # how often something was: what was looked up before may be out of date
        self._hot: OrderedDict[str, bytes] = OrderedDict()  # files by name, last used last
        self._hot_bytes = 0
        self._making: dict[tuple[str, str, int], asyncio.Task[ImageFile]] = {}

    async def find(self, image_id: str) -> Delivered | None:
        """The picture, also one that was taken away; None if there never was one.

        What other processes change (the command line) shows within PICTURE_KNOWN_S.
        """
        now, known, forgotten = time.monotonic(), self._known.get(image_id), self._forgotten
        if known is not None and now < known.until:
            self._known.move_to_end(image_id)
            return known.picture
        picture = await self._store.files.of(image_id)
        if self._forgotten != forgotten:
            return picture
        self._known[image_id] = _Known(picture, now + limits.PICTURE_KNOWN_S)
        self._known.move_to_end(image_id)
        while len(self._known) > limits.PICTURES_KNOWN_MAX:
            self._known.popitem(last=False)
        return picture

    def forget(self, image_id: str) -> None:
        """Look the picture up anew when it is asked for next: something about it changed."""
        self._forgotten += 1
        known = self._known.pop(image_id, None)
        for file in known.picture.files if known is not None and known.picture else ():
            if (dropped := self._hot.pop(file.name, None)) is not None:
                self._hot_bytes -= len(dropped)

    async def file(self, picture: Delivered, asked: Asked) -> ImageFile:
        """The file in the form and size that is asked for; made now if there is none.

        Raises NotFound if the picture was taken away, TooMany while too many are being made, and
        what ``Finisher.render`` does.
        """
        if picture.is_removed:
            raise gone()
        assert asked.form is not None
        side = side_of(picture, asked)
        if (found := picture.file(asked.form, side)) is not None:
            return found
        return await self._made(picture, asked.form, side)

    async def read(self, file: ImageFile) -> bytes:
        """The file's bytes, as they were signed. Raises Damaged, or NotFound."""
        if (hot := self.at_hand(file)) is not None:
            return hot
        data = await self._pictures.get(file.name)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise Damaged(f"the stored file {file.name} isn't what was signed")
        self._keep(file.name, data)
        return data

    def at_hand(self, file: ImageFile) -> bytes | None:
        """The file's bytes if they were read lately; they were looked at then."""
        data = self._hot.get(file.name)
        if data is not None:
            self._hot.move_to_end(file.name)
        return data

    def known(self, image_id: str) -> Delivered | None:
        """The picture, if it was looked up within PICTURE_KNOWN_S."""
        known = self._known.get(image_id)
        return known.picture if known is not None and time.monotonic() < known.until else None

    def _keep(self, name: str, data: bytes) -> None:
        """Have a file at hand, in place of those that were read longest ago."""
        if name in self._hot or len(data) > limits.FILES_HOT_BYTES_MAX // 8:
            return  # read several times at once: it counts once
        self._hot[name] = data
        self._hot_bytes += len(data)
        while self._hot_bytes > limits.FILES_HOT_BYTES_MAX:
            _, dropped = self._hot.popitem(last=False)
            self._hot_bytes -= len(dropped)

    async def png(self, image_id: str) -> bytes:
        """The file that a picture can be made again from. Raises NotFound."""
        picture = await self.find(image_id)
        if picture is None:
            raise gone()
        return await self.read(await self.file(picture, Asked(image_id, form=FORM)))

    async def presigned(self, file: ImageFile, *, ttl_s: float) -> str | None:
        """An address at the store itself; None if it is a folder."""
        return await self._pictures.presigned(file.name, ttl_s=ttl_s)

    async def _made(self, picture: Delivered, form: str, side: int) -> ImageFile:
        """Make a file once, however many ask for it; one that goes away stops it for nobody."""
        place = (picture.image_id, form, side)
        making = self._making.get(place)
        if making is None:
            if len(self._making) >= limits.RENDITIONS_WAITING_MAX:
                raise TooMany(
                    "too many forms and sizes of pictures are being made",
                    limit=limits.RENDITIONS_WAITING_MAX,
                    retry_after_s=1,
                )
            making = asyncio.create_task(self._make(picture, form, side))
            self._making[place] = making
            making.add_done_callback(lambda _: self._making.pop(place, None))
        return await asyncio.shield(making)

    async def _make(self, picture: Delivered, form: str, side: int) -> ImageFile:
        master = picture.file(FORM, 0)
        if master is None:
            raise InternalError(f"{picture.image_id} has no {FORM} file")
        data = await self._finisher.render(Rendition(await self.read(master), form, side))
        sha256 = hashlib.sha256(data).hexdigest()
        pool = pool_of(master.name)  # where its PNG lies
        name = stored_name(picture.tier, picture.image_id, sha256, form, pool=pool)
        made = ImageFile(form, side, name, sha256, len(data))
        recorded: ImageFile | None = None
        try:
            await self._pictures.put(name, data)
            recorded = await self._store.files.add(picture.image_id, made)
        finally:
            if recorded != made:  # a picture taken away, or another server was first
                await discard(self._pictures, name)
        self.forget(picture.image_id)
        return recorded

    async def stop(self) -> None:
        """End what is being made; what was stored without a record goes with the next sweep."""
        for task in list(self._making.values()):
            task.cancel()
        await asyncio.gather(*self._making.values(), return_exceptions=True)


def side_of(picture: Delivered, asked: Asked) -> int:
    """The longer side of the file that is meant; 0: as large as the picture is."""
    return 0 if asked.side >= max(picture.width, picture.height) else asked.side


def gone() -> NotFound:
    """What is told of a picture that was taken away."""
    return NotFound("there is no such picture any more", field="image_id", limit="one of yours")
