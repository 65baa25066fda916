"""What a picture was made from, as its claim tells: each ingredient with the claim that it had.

An ingredient is kept as C2PA's own archive: the claim that came with a file, what it was worth when
it was looked at, and the file's hash; not the file. It may be a stranger's, so it is made where
strangers' files are read. Pictures inside of a claim (thumbnails, icons) were judged by nobody, so
a claim that holds one isn't taken over into ours. The format: JUMBF (ISO 19566-5), C2PA 2.x.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import c2pa

from calotype.provenance.signing import MEDIA_TYPES, SigningFailed

BYTES_MAX = 256 * 1024  # a longer history is left out, and only the file's hash told
AGAIN_BYTES_MAX = 32 * 1024  # of all claims that another form or size of a picture repeats
_PLAIN = (b"jumd", b"json", b"cbor", b"c2sh", b"free")  # JUMBF boxes that hold no file
_DATA_BOXES = b"c2pa.databoxes"  # an older way to hold one, in CBOR
_PICTURES = (  # how they begin, as bytes and in base64
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"WEBPVP8", b"ftypavif",
    b"iVBORw0KGgo", b"/9j/", b"UklGR",
)  # fmt: skip
_EMPTY = {"claim_generator_info": [{"name": "Calotype"}], "assertions": []}
_NO_THUMBNAIL = {"builder": {"thumbnail": {"enabled": False}}}


def archive(data: bytes, form: str, title: str, *, anchors_pem: str | None = None) -> bytes | None:
    """The archive of a file in one of MEDIA_TYPES; None if it can't be one, or mayn't be kept.

    It mayn't if it is too large, or has a picture in it.
    """
    settings: dict[str, Any] = {
        **_NO_THUMBNAIL,
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    if anchors_pem:
        settings["trust"] = {"trust_anchors": anchors_pem}
    told = {"title": title, "relationship": "inputTo", "instance_id": title}
    made = io.BytesIO()
    try:
        with (
            c2pa.Context.from_dict(settings) as context,
            c2pa.Builder(_EMPTY, context) as builder,
        ):
            builder.add_ingredient(told, MEDIA_TYPES[form], io.BytesIO(data))
            builder.write_ingredient_archive(title, made)
    except c2pa.C2paError:  # whatever is in a stranger's claim: the picture can be used without
        return None
    found = made.getvalue()
    return found if len(found) <= BYTES_MAX and not has_picture(found) else None


def again(signed: bytes, form: str) -> tuple[bytes, ...]:
    """Archives of what a signed picture's claim says it was made from: for its other forms, sizes.

    With the claims that these had, as far as AGAIN_BYTES_MAX goes; past it they are only named.
    ``signed`` has a whole claim of ours. Raises SigningFailed if it can't be read after all.
    """
    made, left = [], AGAIN_BYTES_MAX
    try:
        with c2pa.Reader(MEDIA_TYPES[form], io.BytesIO(signed)) as reader:
            for told in (reader.get_active_manifest() or {}).get("ingredients", ()):
                held = told.get("manifest_data")
                claim = _resource(reader, held["identifier"]) if held else b""
                is_told = len(claim) <= left and not has_picture(claim)
                left -= len(claim) if is_told else 0
                made.append(_again(told, claim if is_told else b""))
    except c2pa.C2paError as error:
        raise SigningFailed(f"what the picture was made from can't be read: {error}") from error
    return tuple(made)


def has_picture(archived: bytes) -> bool:
    """Whether an archive has a picture in it, or anything that could be one."""
    if any(begin in archived for begin in _PICTURES) or _DATA_BOXES in archived:
        return True
    return any(kind not in _PLAIN for kind in _kinds(archived))


def _resource(reader: Any, name: str) -> bytes:
    found = io.BytesIO()
    reader.resource_to_stream(name, found)
    return found.getvalue()


def _again(told: dict[str, Any], claim: bytes) -> bytes:
    """An archive of an ingredient as a claim tells it, with the claim that it had, or without."""
    of_claim = set() if claim else {"manifest_data", "active_manifest", "validation_results"}
    kept = {name: value for name, value in told.items() if name not in of_claim | {"label"}}
    made = io.BytesIO()
    with (
        c2pa.Context.from_dict(_NO_THUMBNAIL) as context,
        c2pa.Builder({**_EMPTY, "ingredients": [kept]}, context) as builder,
    ):
        if claim:
            builder.add_resource(told["manifest_data"]["identifier"], io.BytesIO(claim))
        builder.write_ingredient_archive(told["instance_id"], made)
    return made.getvalue()


def _kinds(data: bytes) -> Iterator[bytes]:
    """The types of the boxes that have none inside; b"" for what is no whole box."""
    at, ends = 0, [len(data)]  # of the boxes around, however deep a stranger nests them
    while ends:
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if at == ends[-1]:
            ends.pop()
        elif not 8 <= size <= ends[-1] - at:
            yield b""
            return
        elif kind == b"jumb":
            ends.append(at + size)
            at += 8
        else:
            yield kind
            at += size
