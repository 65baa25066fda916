"""How messages travel between the server and an engine process.

A frame is a 4-byte big-endian length, that many bytes of JSON (``{"type": ..., fields}``), an
8-byte big-endian length, that many raw bytes (pixels or a preview; usually none). Both sides are
ours, on one machine: a frame that doesn't parse is a fault, not input.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, fields
from typing import Any

from calotype.core import limits
from calotype.core.errors import InternalError
from calotype.core.messages import Message, RowControl, RowLora, RowPicture
from calotype.core.nouns import Component
from calotype.core.picture_checks import CheckUse, Trial

_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in Message.__args__}
_PARTS: dict[str, type[Any]] = {  # by the fields that JSON brings as lists of objects
    "loras": RowLora,
    "merged": RowLora,
    "controls": RowControl,
    "pictures": RowPicture,
    "checks": CheckUse,
    "trials": Trial,
    "components": Component,
}
_HEAD, _BLOB = struct.Struct(">I"), struct.Struct(">Q")
HEAD_BYTES, BLOB_HEAD_BYTES = _HEAD.size, _BLOB.size


def encode(message: Message, blob: bytes = b"") -> bytes:
    """One whole frame; raise InternalError for one that no reader would take.

    A reader can't go on behind such a frame, so it would cost the engine, with all that it runs.
    """
    head = json.dumps({"type": type(message).__name__, **asdict(message)}).encode()
    parts = _HEAD.pack(_bounded(len(head))), head, _BLOB.pack(_bounded(len(blob))), blob
    return b"".join(parts)


def head_length(raw: bytes) -> int:
    """Read the first HEAD_BYTES of a frame: how many bytes of JSON follow."""
    return _bounded(int(_HEAD.unpack(raw)[0]))


def blob_length(raw: bytes) -> int:
    """Read the BLOB_HEAD_BYTES after the JSON: how many raw bytes follow."""
    return _bounded(int(_BLOB.unpack(raw)[0]))


def decode(head: bytes) -> Message:
    """Turn a frame's JSON into its message; raise InternalError if it isn't one of ours."""
    try:
        body = json.loads(head)
        kind = _TYPES[body.pop("type")]
        for name, value in body.items():
            if isinstance(value, list):
                part = _PARTS.get(name)
                body[name] = tuple(_part(part, it) if part else it for it in value)
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # not JSON, no object, ...
        raise InternalError(f"not a message of this protocol: {head[:200]!r}") from error
    if {one.name for one in fields(kind)} != body.keys():
        raise InternalError(f"a {kind.__name__} with other fields than ours: {head[:200]!r}")
    message: Message = kind(**body)
    return message


def _part(kind: type[Any], values: dict[str, Any]) -> Any:
    return kind(**{key: tuple(it) if isinstance(it, list) else it for key, it in values.items()})


def _bounded(length: int) -> int:
    if length > limits.ENGINE_MESSAGE_BYTES_MAX:
        raise InternalError(
            f"a message of {length:,} bytes is over the limit",
            limit={"max_bytes": limits.ENGINE_MESSAGE_BYTES_MAX},
        )
    return length
