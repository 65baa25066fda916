"""Signed statements of this installation that need no picture: that one was deleted, or how the
hash log stood at a time.

The signature is over the body's canonical JSON (RFC 8785 for what is in one: texts, whole numbers,
lists and objects), by the key that signs pictures; the certificate chain comes with it, so whoever
trusts our root can check a statement years later without us. Bodies of different kinds have a
field ``kind`` by which none passes for another.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from calotype.core.errors import InvalidInput
from calotype.provenance import keys
from calotype.provenance.certificates import SigningIdentity

VERSION = 1


def signed(
    body: dict[str, Any], identity: SigningIdentity, name: str = "receipt"
) -> dict[str, Any]:
    """The body (JSON-ready, without floats) under ``name``, with its signature.

    Raises OperatorError.
    """
    signature = keys.signature(
        _canonical(body),
        algorithm=identity.algorithm,
        key_pem=identity.key_pem,
        command=identity.command,
    )
    return {
        name: body,
        "version": VERSION,
        "algorithm": identity.algorithm,
        "signature": base64.b64encode(signature).decode(),
        "chain": identity.chain_pem,
    }


def check(told: dict[str, Any], *, anchors_pem: str, name: str = "receipt") -> dict[str, Any]:
    """The body of what was signed below one of the anchors; raise InvalidInput else."""
    try:
        chain = x509.load_pem_x509_certificates(told["chain"].encode())
        anchors = x509.load_pem_x509_certificates(anchors_pem.encode())
        if not any(_is_below(chain, anchor) for anchor in anchors):
            raise InvalidInput(f"the {name} isn't signed below a root of ours", field="chain")
        signature = base64.b64decode(told["signature"], validate=True)
        keys.check(chain[0], told["algorithm"], signature, _canonical(told[name]))
        body: dict[str, Any] = told[name]
    except (KeyError, TypeError, ValueError, AttributeError, InvalidSignature) as error:
        raise InvalidInput(f"the {name} isn't whole, or was changed", field=name) from error
    return body


def _is_below(chain: list[x509.Certificate], anchor: x509.Certificate) -> bool:
    """Whether the chain leads from another certificate to the anchor."""
    for certificate, issuer in zip(chain, [*chain[1:], anchor], strict=True):
        if certificate == anchor:
            return certificate is not chain[0]
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            return False
    return True


def _canonical(body: dict[str, Any]) -> bytes:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()
