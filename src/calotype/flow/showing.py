"""What an address shows: checks it, chooses the file, and reads it.

Of a picture that never was, the answer is that of a wrong signature: an address tells a stranger
nothing of what there is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from calotype.core.errors import NotFound, Unauthorized
from calotype.core.nouns import ImageFile
from calotype.delivery import formats, links
from calotype.delivery.names import Asked, asked, pool_of
from calotype.flow.addresses import Addresses
from calotype.flow.delivery import Delivery, side_of
from calotype.flow.pictures import FORM, SENT, InputPictures


@dataclass(frozen=True)
class Shown:
    """A file that may be shown to whoever asked."""

    name: str  # for who saves it: its id, size and form
    picture_id: str  # by which caches forget all its files
    media_type: str
    etag: str  # of its content, without quotes
    good_for_s: float  # seconds, of the address
    is_chosen: bool  # by the Accept header: caches have to ask by it
    read: Callable[[], Awaitable[bytes]]
    is_apart: bool = False  # of a pool: no cache may keep it
    presigned: str | None = None  # where the store itself serves it, if it shall


class Showing:
    """Looks behind addresses."""

    def __init__(
        self,
        delivery: Delivery,
        inputs: InputPictures,
        addresses: Addresses,
        *,
        redirect_s: float | None = None,
    ) -> None:
        """``redirect_s``: have the store serve files itself, at addresses that are good so long."""
        self._delivery, self._inputs, self._addresses = delivery, inputs, addresses
        self._redirect_s = redirect_s

    async def show(self, name: str, *, accept: str, expires: str, signature: str) -> Shown:
        """The file that an address names.

        Raises NotFound, Unauthorized (a wrong or old address), NotAcceptable, and what
        ``Delivery.file`` does.
        """
        wanted = asked(name)
        for field, value in (("expires", expires), ("signature", signature)):
            if not value:
                limit = "as a job's body has it"
                raise Unauthorized(
                    f"a picture's address needs its {field}", field=field, limit=limit
                )
        if wanted.image_id.startswith(f"{SENT}_"):
            return await self._show_sent(wanted, expires, signature)
        picture = await self._delivery.find(wanted.image_id)
        if picture is None:
            raise links.wrong()
        good_for_s = self._addresses.check(
            picture.tenant, wanted, expires=expires, signature=signature
        )
        chosen = replace(wanted, form=wanted.form or formats.wanted(accept))
        file = await self._delivery.file(picture, chosen)
        presigned = None
        if self._redirect_s is not None:
            ttl_s = min(self._redirect_s, good_for_s)
            presigned = await self._delivery.presigned(file, ttl_s=ttl_s)
        return replace(self._shown(wanted, chosen, file, good_for_s), presigned=presigned)

    def at_hand(
        self, name: str, *, accept: str, expires: str, signature: str
    ) -> tuple[Shown | None, bytes | None]:
        """The same, with its bytes, of a picture that was served lately; else nothing.

        Raises what ``show`` does.
        """
        wanted = asked(name)
        picture = self._delivery.known(wanted.image_id)
        if picture is None or picture.is_removed or self._redirect_s is not None:
            return None, None
        good_for_s = self._addresses.check(
            picture.tenant, wanted, expires=expires, signature=signature
        )
        chosen = replace(wanted, form=wanted.form or formats.wanted(accept))
        file = picture.file(chosen.form or "", side_of(picture, chosen))
        data = self._delivery.at_hand(file) if file else None
        if file is None or data is None:
            return None, None
        return self._shown(wanted, chosen, file, good_for_s), data

    def _shown(self, wanted: Asked, chosen: Asked, file: ImageFile, good_for_s: float) -> Shown:
        return Shown(
            name=chosen.name,
            picture_id=chosen.image_id,
            media_type=formats.media_type(file.form),
            etag=file.sha256[:32],
            good_for_s=good_for_s,
            is_chosen=wanted.form is None,
            read=lambda: self._delivery.read(file),
            is_apart=bool(pool_of(file.name)),
        )

    async def _show_sent(self, wanted: Asked, expires: str, signature: str) -> Shown:
        """A picture that somebody sent; it comes as it is kept and in no other way."""
        tenant = await self._inputs.owner(wanted.image_id)
        if tenant is None:
            raise links.wrong()
        good_for_s = self._addresses.check(tenant, wanted, expires=expires, signature=signature)
        if (wanted.form, wanted.side) != (FORM, 0):
            raise NotFound(f"pictures that were sent come as {FORM}", field="name", limit=[FORM])
        return Shown(
            name=wanted.name,
            picture_id=wanted.image_id,
            media_type=formats.media_type(FORM),
            etag=wanted.image_id,  # it is made of the picture's pixels
            good_for_s=good_for_s,
            is_chosen=False,
            read=lambda: self._inputs.file(wanted.image_id),
        )
