"""Files that only their owner may read (mode 0600). No other process ever sees half of one."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calotype.core.errors import OperatorError


def write_private(path: Path, content: str) -> None:
    """Write a file, whole or not at all, in place of the one that may be there. Raises OSError."""
    write_private_bytes(path, content.encode())


def write_private_bytes(path: Path, content: bytes) -> None:
    """The same of bytes."""
    with _draft(path, content) as draft:
        draft.replace(path)


def append_private(path: Path, line: str) -> None:
    """Add a line to a file, made where there is none; once it returns, a power cut leaves it there.

    A half line that a crash left stays by itself. Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"\n{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def secret_in(path: Path, size: int) -> bytes:
    """The secret in ``path``: ``size`` random bytes, made where there is no file yet.

    Of processes that come together all end up with the same one. Raises OperatorError if the file
    can't be used, or isn't of that size.
    """
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _draft(path, secrets.token_bytes(size)) as draft, suppress(FileExistsError):
                path.hardlink_to(draft)  # unless another process was first
        secret = path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} can't be used: {error.strerror}") from error
    if len(secret) != size:
        raise OperatorError(f"{path} has {len(secret)} bytes, not {size}", limit=size)
    return secret


@contextmanager
def _draft(path: Path, content: bytes) -> Iterator[Path]:
    """A file beside ``path``, on the disk; gone afterwards, unless it was given another name."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
