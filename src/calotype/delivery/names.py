"""The one name a picture's file has, in the store and in its address."""

from __future__ import annotations

import re

from calotype.core.errors import NotFound
from calotype.delivery.formats import FORMS, media_type

# What core.ids.new_id makes. ASCII only and anchored: nothing else becomes part of a path.
_ID = re.compile(r"[a-z]{1,8}_[0-9A-HJKMNP-TV-Z]{26}")


def file_name(image_id: str, form: str) -> str:
    """E.g. ``img_01JD....png``. Raises NotFound for what can't be a picture's id or form."""
    media_type(form)
    if not _ID.fullmatch(image_id):
        raise NotFound("there is no such picture", field="image_id")
    return f"{image_id}.{form}"


def image_id_of(path: str) -> str | None:
    """The image whose file this is; None if it is no picture's file."""
    image_id, _, form = path.rpartition("/")[2].rpartition(".")
    return image_id if form in FORMS and _ID.fullmatch(image_id) else None
