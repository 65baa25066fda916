"""The sealed store: bytes that nobody should come upon, each in an encrypted file of its owner's.

AES-256-GCM (NIST SP 800-38D) with a nonce of its own for each file; the file's name is
authenticated, so that none can be put in another's place. The key lies apart from the folder. Who
opens what is for the caller to write down first: here is no log, and no reason to open anything.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from calotype.core.errors import NotFound, OperatorError
from calotype.files.private import secret_in, write_private_bytes

KEY_BYTES = 32
_NONCE_BYTES = 12
_NAME = re.compile(r"[A-Za-z0-9_-]{1,90}")
_ENDING = ".sealed"


class SealedStore:
    """A folder of sealed files; made with its key where there is none yet."""

    def __init__(self, folder: Path, key_file: Path) -> None:
        """Raises OperatorError if one of the two can't be used."""
        self._folder = folder
        self._cipher = AESGCM(secret_in(key_file, KEY_BYTES))
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OperatorError(f"{folder} can't be used: {error.strerror}") from error

    def seal(self, name: str, data: bytes) -> None:
        """Keep these bytes, whole or not at all. Raises OperatorError."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, data, name.encode())
        try:
            write_private_bytes(self._path(name), sealed)
        except OSError as error:
            raise OperatorError(f"nothing can be sealed: {error.strerror}") from error

    def open(self, name: str) -> bytes:
        """The bytes again. Raises NotFound, and OperatorError for a file that was changed."""
        try:
            sealed = self._path(name).read_bytes()
        except FileNotFoundError:
            raise NotFound("it isn't kept any more", field="sealed", limit="its term") from None
        except OSError as error:
            raise OperatorError(f"{name} can't be opened: {error.strerror}") from error
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, name.encode())
        except (InvalidTag, ValueError) as error:
            raise OperatorError(f"{name} was changed, or was sealed with another key") from error

    def destroy(self, name: str) -> None:
        """Keep it no longer; it may be gone already."""
        self._path(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Of all that is sealed here."""
        paths = self._folder.glob(f"*{_ENDING}")
        names = [path.name.removesuffix(_ENDING) for path in paths]
        return sorted(name for name in names if _NAME.fullmatch(name))

    def sweep(self, kept: Collection[str], *, before: datetime) -> list[str]:
        """Destroy what was sealed before then, but for these; returns the names.

        Not what is newer: a database that was restored doesn't know of it, and it may be evidence.
        """
        old = [
            name for name in self.names() if self._path(name).stat().st_mtime < before.timestamp()
        ]
        gone = sorted(set(old) - set(kept))
        for name in gone:
            self.destroy(name)
        for draft in self._folder.glob(f".*{_ENDING}-*"):
            draft.unlink(missing_ok=True)
        return gone

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise NotFound("there is no such thing", field="sealed", limit="a name of the store")
        return self._folder / f"{name}{_ENDING}"
