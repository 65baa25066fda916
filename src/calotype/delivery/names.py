"""What pictures' files are called: in their addresses, and in the store.

An address says which picture, in which form and size: ``img_01JD....webp``, ``img_01JD...-256.png``
(its longer side has 256 pixels), ``img_01JD...-256`` (in the form that the caller likes best). A
name in the store holds the file's SHA-256: under one name there can only be one content, and who
reads it can tell whether it is that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from calotype.core.errors import NotFound
from calotype.delivery.formats import FORMS, media_type

SIDES = (64, 128, 256, 512, 1024, 2048)  # pixels of the longer side that can be asked for

# What core.ids makes. ASCII only and anchored: nothing else becomes part of a path.
_ID = re.compile(r"[a-z]{1,8}_[0-9A-HJKMNP-TV-Z]{26}")
_ASKED = re.compile(r"([a-z]{1,8}_[0-9A-HJKMNP-TV-Z]{26})(?:-([1-9][0-9]{1,3}))?(?:\.([a-z]+))?")
_FOLDER = re.compile(r"[a-z]{1,16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STORED = re.compile(
    r"(?:(?:(?P<pool>[a-z]{1,16})/)?[a-z]{1,16}/)?(?P<spread>[0-9A-Z]{2})/"
    r"(?P<id>[a-z]{1,8}_[0-9A-HJKMNP-TV-Z]{26})(?:\.(?P<sha256>[0-9a-f]{64}))?\.(?P<form>[a-z]+)"
)


@dataclass(frozen=True)
class Asked:
    """What an address names."""

    image_id: str
    side: int = 0  # pixels of the longer side; 0: as it was made
    form: str | None = None  # None: the caller's Accept header says

    @property
    def name(self) -> str:
        """The last part of the address."""
        side = f"-{self.side}" if self.side else ""
        return f"{self.image_id}{side}" + (f".{self.form}" if self.form else "")


def asked(name: str) -> Asked:
    """Read the last part of an address. Raises NotFound for what names no picture."""
    found = _ASKED.fullmatch(name)
    if found is None:
        raise NotFound(
            f"there is no picture {name[:60]}: ask for <id>.<form>, <id>-<size>.<form> or <id>",
            field="name",
            limit={"forms": list(FORMS), "sizes": list(SIDES)},
        )
    image_id, side, form = found.groups()
    if form is not None:
        media_type(form)
    if side is not None and int(side) not in SIDES:
        raise NotFound(f"pictures don't come in size {side}", field="name", limit=list(SIDES))
    return Asked(image_id, int(side or 0), form)


def stored_name(folder: str, image_id: str, sha256: str, form: str, *, pool: str = "") -> str:
    """E.g. ``fast/AV/img_01JD....<sha256>.webp``, or ``mature/fast/AV/...`` of a pool's picture.

    Raises NotFound for what can't be one.
    """
    media_type(form)
    folders = (pool, folder) if pool else (folder,)
    is_right = all(_FOLDER.fullmatch(each) for each in folders)
    if not (is_right and _ID.fullmatch(image_id) and _SHA256.fullmatch(sha256)):
        raise NotFound("there is no such picture", field="image_id")
    return f"{'/'.join(folders)}/{_spread(image_id)}/{image_id}.{sha256}.{form}"


def kept_name(picture_id: str, form: str) -> str:
    """E.g. ``AV/pic_7ZC0....png``, of a picture that is made of its id. Raises NotFound."""
    media_type(form)
    if not _ID.fullmatch(picture_id):
        raise NotFound("there is no such picture", field="image_id")
    return f"{_spread(picture_id)}/{picture_id}.{form}"


def id_of(name: str) -> str | None:
    """The picture whose file has this name in a store; None if it is no picture's file."""
    found = _STORED.fullmatch(name)
    if found is None or found["form"] not in FORMS or found["spread"] != _spread(found["id"]):
        return None
    return found["id"]


def pool_of(name: str) -> str:
    """The pool in whose store alone a file of this name may lie; "" if it is of none."""
    found = _STORED.fullmatch(name)
    return (found["pool"] or "") if found else ""


def sha256_of(name: str) -> str | None:
    """The SHA-256 that a name in a store holds; None for one that holds none."""
    found = _STORED.fullmatch(name)
    return found["sha256"] if found else None


def _spread(picture_id: str) -> str:
    # The end of an id is chance, so its last two characters spread the files over 1,024 folders.
    return picture_id[-2:]
