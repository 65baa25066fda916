"""Signed addresses: whoever has one may see that picture, in that form, until it expires.

A link is a bearer token: it names no person. It doesn't know whether the picture exists.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from math import ceil
from pathlib import Path
from urllib.parse import urlencode

from calotype.core.errors import NotFound, OperatorError, Unauthorized
from calotype.core.limits import LINK_TTL_S
from calotype.delivery.names import file_name

SECRET_BYTES = 32
# Expiries fall on whole quarters of an hour, so that within one the same picture has the same
# address and browsers keep it.
EXPIRY_STEP_S = 900
_SECONDS = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


class Links:
    """Makes and checks signed addresses with one secret."""

    def __init__(self, secret: bytes, *, ttl_s: int = LINK_TTL_S) -> None:
        if len(secret) != SECRET_BYTES:
            raise OperatorError(f"the links' secret has {len(secret)} bytes", limit=SECRET_BYTES)
        self._secret, self._ttl_s = secret, ttl_s

    @classmethod
    def load_or_create(cls, path: Path, *, ttl_s: int = LINK_TTL_S) -> Links:
        """Read the secret from ``path``, making it (mode 0600) the first time.

        Of two processes that start together both end up with the same one. Raises OperatorError
        if the file can't be used.
        """
        try:
            if not path.exists():
                _create(path)
            return cls(path.read_bytes(), ttl_s=ttl_s)
        except OSError as error:
            raise OperatorError(f"{path} can't be used: {error.strerror}") from error
        except OperatorError as error:
            raise OperatorError(f"{path}: {error.detail}", limit=error.limit) from error

    def path(self, image_id: str, form: str, *, now: float) -> str:
        """The address of a picture, good for ``ttl_s`` to ``ttl_s`` + EXPIRY_STEP_S seconds.

        ``now`` is Unix time in seconds. Raises NotFound for an impossible id or form.
        """
        address = f"/v1/images/{file_name(image_id, form)}"
        expires = str(ceil((now + self._ttl_s) / EXPIRY_STEP_S) * EXPIRY_STEP_S)
        query = urlencode({"expires": expires, "signature": self._sign(address, expires)})
        return f"{address}?{query}"

    def check(self, image_id: str, form: str, *, expires: str, signature: str, now: float) -> None:
        """Return if this address was made here and hasn't expired; else raise Unauthorized."""
        try:
            address = f"/v1/images/{file_name(image_id, form)}"
        except NotFound as error:
            raise Unauthorized("the link's signature isn't right", field="signature") from error
        # The time counts only once the signature says that we wrote it.
        right = self._sign(address, expires) if _SECONDS.fullmatch(expires) else ""
        if not right or not hmac.compare_digest(right.encode(), signature.encode()):
            raise Unauthorized("the link's signature isn't right", field="signature")
        if now >= int(expires):
            raise Unauthorized("the link has expired; ask for the job again", field="expires")

    def _sign(self, address: str, expires: str) -> str:
        text = f"calotype link 1\nGET\n{address}\n{expires}"
        digest = hmac.new(self._secret, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _create(path: Path) -> None:
    """Write a new secret beside ``path`` and link it there, unless another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(descriptor)
        path.hardlink_to(made)
    except FileExistsError:
        pass
    finally:
        Path(made).unlink()
