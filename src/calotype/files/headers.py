"""Reads the header of a safetensors file, and nothing of its tensors."""

from __future__ import annotations

import stat
from pathlib import Path

from calotype.core import limits
from calotype.core.errors import ModelBroken
from calotype.core.headers import LENGTH, Header, parse_header, unsound


def read_header(path: Path) -> Header:
    """The header of a safetensors file.

    Raises ModelBroken, which names what is wrong of it and the limit, for any other file: one cut
    short, a pickle, a folder, one that can't be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
            raise ModelBroken(f"{path.name} is no file", field=path.name)
        with path.open("rb") as file:
            start = file.read(LENGTH.size)
            length = LENGTH.unpack(start)[0] if len(start) == LENGTH.size else 0
            if not 2 <= length <= min(limits.HEADER_BYTES_MAX, status.st_size - LENGTH.size):
                raise unsound(
                    path.name,
                    f"its header would take {length} bytes, and the file has {status.st_size};"
                    " no other format is read, least of all a pickle",
                    limits.HEADER_BYTES_MAX,
                )
            raw = file.read(length)
    except OSError as error:
        raise ModelBroken(
            f"{path.name} can't be read: {error.strerror}", field=path.name
        ) from error
    return parse_header(raw, status.st_size - LENGTH.size - length, path.name)
