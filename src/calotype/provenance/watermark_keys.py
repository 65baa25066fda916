"""Where the keys of the mark lie: one file each in the secrets folder, the newest marks.

Old keys are kept, since pictures that they marked are about for ever. It doesn't know how a picture
is marked.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from calotype.core.errors import OperatorError
from calotype.files.private import secret_in
from calotype.provenance.watermark import MarkKey

SECRET_BYTES = 32
KEYS_MAX = 64  # each more makes looking for a mark slower, and its threshold higher


def load_or_create(folder: Path) -> tuple[MarkKey, ...]:
    """The keys in ``folder``, newest first; the first is made where there is none.

    Raises OperatorError if the folder or a file can't be used.
    """
    if not load(folder):
        _add(folder, 1)
    return load(folder)


def load(folder: Path) -> tuple[MarkKey, ...]:
    """The keys in ``folder``, newest first; none where it has none. Raises OperatorError."""
    try:
        paths = sorted(folder.glob("[0-9]*.key"), key=_number, reverse=True)
        return tuple(_key(path, path.read_bytes()) for path in paths)
    except OSError as error:
        raise OperatorError(f"{folder} can't be used: {error.strerror}") from error


def rotate(folder: Path) -> MarkKey:
    """Make a new key, which marks pictures from the next start on. Raises OperatorError."""
    numbers = [_number(path) for path in folder.glob("[0-9]*.key")]
    if len(numbers) >= KEYS_MAX:
        raise OperatorError(f"{folder} has {KEYS_MAX} keys already", limit=KEYS_MAX)
    return _add(folder, max(numbers, default=0) + 1)


def _number(path: Path) -> int:
    if not path.stem.isdecimal():
        raise OperatorError(f"{path} isn't named as keys are: 0001.key, 0002.key ...")
    return int(path.stem)


def _key(path: Path, secret: bytes) -> MarkKey:
    if len(secret) != SECRET_BYTES:
        raise OperatorError(f"{path} has {len(secret)} bytes, not {SECRET_BYTES}")
    return MarkKey(f"wmk_{hashlib.sha256(secret).hexdigest()[:16]}", secret)


def _add(folder: Path, number: int) -> MarkKey:
    """Make a key; if another process was first, its key counts."""
    path = folder / f"{number:04}.key"
    return _key(path, secret_in(path, SECRET_BYTES))
