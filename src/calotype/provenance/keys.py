"""Makes and checks raw signatures, by a key in hand or by a command that has it elsewhere.

A command is how a PKCS #11 token or a key management service is used: it reads what is to be signed
from stdin and writes the signature to stdout, and the key never comes here. It doesn't know what is
signed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from calotype.core.errors import OperatorError

COMMAND_S_MAX = 20.0  # for a command to sign once
_SIGNATURE_BYTES_MAX = 4_096
# Of each algorithm of C2PA: the hash, and for ECDSA the bytes of each of its two numbers.
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "es256": hashes.SHA256(),
    "es384": hashes.SHA384(),
    "es512": hashes.SHA512(),
    "ps256": hashes.SHA256(),
}
_NUMBER_BYTES = {"es256": 32, "es384": 48, "es512": 66}


def signature(text: bytes, *, algorithm: str, key_pem: str, command: Sequence[str] = ()) -> bytes:
    """The signature of a text; of ECDSA in DER. Raises OperatorError if it can't be had."""
    if command:
        return _as_der(_by_command(text, command), algorithm)
    key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(text, ec.ECDSA(_HASHES[algorithm]))
        case ed25519.Ed25519PrivateKey():
            return key.sign(text)
        case rsa.RSAPrivateKey():
            return key.sign(text, _pss(), hashes.SHA256())
    raise OperatorError(f"no way to sign with a {type(key).__name__}")


def check(leaf: x509.Certificate, algorithm: str, signed: bytes, text: bytes) -> None:
    """Raise InvalidSignature unless the certificate's key signed this text."""
    match leaf.public_key():
        case ec.EllipticCurvePublicKey() as key if algorithm in _NUMBER_BYTES:
            key.verify(signed, text, ec.ECDSA(_HASHES[algorithm]))
        case ed25519.Ed25519PublicKey() as key if algorithm == "ed25519":
            key.verify(signed, text)
        case rsa.RSAPublicKey() as key if algorithm == "ps256":
            key.verify(signed, text, _pss(), hashes.SHA256())
        case _:
            raise InvalidSignature


def as_numbers(signed: bytes, algorithm: str) -> bytes:
    """A signature as COSE has it (RFC 9053): of ECDSA the two numbers, one after the other."""
    length = _NUMBER_BYTES.get(algorithm)
    if length is None:
        return signed
    return b"".join(number.to_bytes(length, "big") for number in decode_dss_signature(signed))


def _as_der(signed: bytes, algorithm: str) -> bytes:
    """The same the other way; tokens give the numbers, services mostly DER."""
    length = _NUMBER_BYTES.get(algorithm)
    if length is None or len(signed) != 2 * length:
        return signed
    return encode_dss_signature(
        int.from_bytes(signed[:length], "big"), int.from_bytes(signed[length:], "big")
    )


def _by_command(text: bytes, command: Sequence[str]) -> bytes:
    try:
        done = subprocess.run(
            list(command), input=text, capture_output=True, timeout=COMMAND_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(f"the command that signs can't be run: {error}") from error
    if done.returncode or not 0 < len(done.stdout) <= _SIGNATURE_BYTES_MAX:
        said = done.stderr.decode(errors="replace").strip()[-200:]
        raise OperatorError(f"the command that signs ended with {done.returncode}: {said}")
    return done.stdout


def _pss() -> padding.PSS:
    return padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
