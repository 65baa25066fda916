"""What a picture was made from, as its claim tells: each ingredient with the claim that it had.

An ingredient is kept as C2PA's own archive: the claim that came with a file, what it was worth when
it was looked at, and the file's hash; not the file. It may be a stranger's, so it is made where
strangers' files are read.
"""

from __future__ import annotations

import io
from typing import Any

import c2pa

from calotype.provenance.signing import MEDIA_TYPES

BYTES_MAX = 256 * 1024  # a longer history is left out, and only the file's hash told
_EMPTY = {"claim_generator_info": [{"name": "Calotype"}], "assertions": []}


def archive(data: bytes, form: str, title: str, *, anchors_pem: str | None = None) -> bytes | None:
    """The archive of a file in one of MEDIA_TYPES; None if it can't be one, or is too large."""
    settings: dict[str, Any] = {
        "builder": {"thumbnail": {"enabled": False}},
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
    return made.getvalue() if made.tell() <= BYTES_MAX else None
