"""Whether a person is of age, as a provider says whom an operator trusts; off where none is named.

The shipped provider asks by HTTPS: it sends ``{"subject": "tenant/user", "audience": ...}`` and
takes ``{"token": ...}``, a JSON Web Signature in compact form (RFC 7515, EdDSA with Ed25519 by RFC
8037) over ``sub``, ``aud``, ``adult`` and ``exp``; 404 means that it doesn't know the person. An
answer is good for as long as it says, and no longer than AGE_GOOD_S_MAX.

Anybody of whom that isn't known counts as not of age: so does everybody while the provider is down.
"""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from calotype.core import limits
from calotype.core.errors import OperatorError
from calotype.safety.plugins import plugin

GROUP = "calotype.age_providers"
AUDIENCE = "calotype"
_EARLY_S = 60.0  # that clocks may differ by


class AgeUnknown(OperatorError):
    """The provider gave no answer that can be believed."""

    kind = "age-unknown"
    title = "Nobody can say whether this person is of age"


class AgeProvider(Protocol):
    """Who knows ages: the shipped one, or a plug-in."""

    async def adult_until(self, subject: str, now: float) -> float:
        """Until when this person ("tenant/user") counts as of age, seconds since 1970; 0: not.

        Raises AgeUnknown.
        """


@dataclass(frozen=True)
class AgeSource:
    """What an operator says of their provider; plain data, so that it can be sent."""

    url: str = ""
    public_key: str = ""  # PEM, Ed25519
    audience: str = AUDIENCE
    ca_file: str | None = None  # PEM of who vouches for the host, if not the usual ones
    name: str = ""  # of a plug-in, instead of all else


def provider_of(source: AgeSource) -> AgeProvider:
    """The provider; raises OperatorError."""
    if source.name:
        found: AgeProvider = plugin(GROUP, source.name, "age.provider")
        return found
    return SignedByHttp(source)


class SignedByHttp:
    """Asks an address, and believes what is signed."""

    def __init__(self, source: AgeSource) -> None:
        """Raises OperatorError for an address or a key that isn't one."""
        self._source = source
        self._key = _public_key(source.public_key)
        host = httpx.URL(source.url).host
        if not source.url.startswith("https://") and host not in ("127.0.0.1", "localhost"):
            raise OperatorError(f"{source.url} isn't an address by HTTPS", field="age.url")
        context = True if source.ca_file is None else _context(source.ca_file)
        self._client = httpx.AsyncClient(
            timeout=limits.AGE_S_MAX, follow_redirects=False, verify=context
        )

    async def adult_until(self, subject: str, now: float) -> float:
        """See ``AgeProvider``."""
        body = {"subject": subject, "audience": self._source.audience}
        try:
            async with self._client.stream("POST", self._source.url, json=body) as answer:
                if answer.status_code == httpx.codes.NOT_FOUND:
                    return 0.0
                if answer.status_code != httpx.codes.OK:
                    raise AgeUnknown(f"the age provider answered {answer.status_code}")
                said = bytearray()
                async for part in answer.aiter_bytes():
                    said += part
                    if len(said) > limits.AGE_ANSWER_BYTES_MAX:
                        raise AgeUnknown("the age provider's answer is too long")
        except httpx.HTTPError as error:
            raise AgeUnknown(f"the age provider can't be asked: {error!r}"[:300]) from error
        try:
            token = json.loads(said)["token"]
        except (ValueError, KeyError, TypeError) as error:
            raise AgeUnknown("the age provider's answer has no token") from error
        return adult_until(token, self._key, subject, self._source.audience, now=now)


def adult_until(
    token: Any, key: Ed25519PublicKey, subject: str, audience: str, *, now: float
) -> float:
    """Until when a token says that the subject is of age; 0 if it says the opposite.

    Raises AgeUnknown for one that isn't whole, isn't signed by the key, or is of somebody else.
    """
    try:
        head, body, signature = str(token).split(".")
        key.verify(_bytes(signature), f"{head}.{body}".encode())
        header, said = json.loads(_bytes(head)), json.loads(_bytes(body))
        if header["alg"] != "EdDSA" or "crit" in header:
            raise AgeUnknown(f"a token of another kind: {str(header)[:100]}")
        if (said["sub"], said["aud"]) != (subject, audience):
            raise AgeUnknown("the token is of somebody else, or for somebody else")
        until, issued = float(said["exp"]), float(said.get("iat", now))
    except InvalidSignature as error:
        raise AgeUnknown("the token isn't signed by the key that is trusted") from error
    except (ValueError, KeyError, TypeError) as error:
        raise AgeUnknown(f"the token can't be read: {error!r}"[:200]) from error
    if not now < until or issued > now + _EARLY_S:
        raise AgeUnknown("the token isn't good now")
    return min(until, now + limits.AGE_GOOD_S_MAX) if said.get("adult") is True else 0.0


def _bytes(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _public_key(pem: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise OperatorError(f"it isn't a public key: {error}", field="age.public_key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise OperatorError("the key isn't of Ed25519", field="age.public_key")
    return key


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise OperatorError(f"{ca_file} can't be read: {error}", field="age.ca_file") from error
