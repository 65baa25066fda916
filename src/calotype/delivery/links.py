"""Signed addresses: whoever has one may see that picture, in that form and size, until it expires.

A link is a bearer token: it names no person. Each tenant has a key of its own, made of one secret
and of how often its links were revoked, so that revoking is counting on. It doesn't know whether
the picture exists.
"""

from __future__ import annotations

import base64
import hmac
import re
from functools import lru_cache
from math import ceil
from pathlib import Path
from urllib.parse import urlencode

from calotype.core.errors import OperatorError, Unauthorized
from calotype.core.limits import LINK_TTL_S
from calotype.delivery.names import Asked, asked
from calotype.files.private import secret_in

SECRET_BYTES = 32
# Expiries fall on whole quarters of an hour, so that within one the same picture has the same
# address and browsers keep it.
EXPIRY_STEP_S = 900
_KEYS_KEPT = 1_024  # tenants' keys that need not be derived anew
_SECONDS = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)


class Links:
    """Makes and checks signed addresses with one secret."""

    def __init__(self, secret: bytes, *, ttl_s: int = LINK_TTL_S) -> None:
        if len(secret) != SECRET_BYTES:
            raise OperatorError(f"the links' secret has {len(secret)} bytes", limit=SECRET_BYTES)
        self._secret, self._ttl_s = secret, ttl_s
        self._key = lru_cache(maxsize=_KEYS_KEPT)(self._derived)

    @classmethod
    def load_or_create(cls, path: Path, *, ttl_s: int = LINK_TTL_S) -> Links:
        """Read the secret from ``path``, making it (mode 0600) the first time.

        Of two processes that start together both end up with the same one. Raises OperatorError
        if the file can't be used.
        """
        return cls(secret_in(path, SECRET_BYTES), ttl_s=ttl_s)

    def path(self, picture: Asked, *, tenant: str, revoked: int = 0, now: float) -> str:
        """The address of a picture, good for ``ttl_s`` to ``ttl_s`` + EXPIRY_STEP_S seconds.

        ``revoked``: how often the tenant's links were. ``now`` is Unix time in seconds. Raises
        NotFound for what can't be a picture's name.
        """
        address = f"/v1/images/{asked(picture.name).name}"
        expires = str(ceil((now + self._ttl_s) / EXPIRY_STEP_S) * EXPIRY_STEP_S)
        signature = self._sign(self._key(tenant, revoked), address, expires)
        return f"{address}?{urlencode({'expires': expires, 'signature': signature})}"

    def check(
        self,
        picture: Asked,
        *,
        tenant: str,
        revoked: int = 0,
        expires: str,
        signature: str,
        now: float,
    ) -> float:
        """Return how many seconds this address is good on, if it was made here; else raise.

        Raises Unauthorized, for one that has expired too.
        """
        # The time counts only once the signature says that we wrote it.
        right = ""
        if _SECONDS.fullmatch(expires):
            address = f"/v1/images/{picture.name}"
            right = self._sign(self._key(tenant, revoked), address, expires)
        if not right or not hmac.compare_digest(right.encode(), signature.encode()):
            raise wrong()
        if now >= int(expires):
            raise Unauthorized("the link has expired; ask for the job again", field="expires")
        return int(expires) - now

    def _derived(self, tenant: str, revoked: int) -> bytes:
        text = f"calotype links of a tenant 1\n{revoked}\n{tenant}"
        return hmac.digest(self._secret, text.encode(), "sha256")

    @staticmethod
    def _sign(key: bytes, address: str, expires: str) -> str:
        digest = hmac.digest(key, f"calotype link 2\nGET\n{address}\n{expires}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def wrong() -> Unauthorized:
    """What is told of a link that wasn't made here, and of one to a picture that never was."""
    return Unauthorized("the link's signature isn't right", field="signature")
