"""The keys that sign pictures: a development chain made here, or the operator's own.

A development chain is a root of our own and an ES256 leaf below it. It proves that a picture came
from this installation to whoever trusts that root; the wide world's list of trusted roots doesn't
have it. This module doesn't know what is signed.

Requirements on the certificates: C2PA specification 2.x, section "X.509 certificates".
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from calotype.core.errors import OperatorError
from calotype.files.private import write_private

ROOT_FILE, ROOT_KEY_FILE = "root.pem", "root-key.pem"
CHAIN_FILE, KEY_FILE = "chain.pem", "key.pem"

# Without a time-stamping authority (we work offline) a signature counts only while its leaf is
# valid, so the leaf has to live as long as the pictures are meant to be verified.
LEAF_LIFE = timedelta(days=3650)
ROOT_LIFE = timedelta(days=7300)
CLOCK_SLACK = timedelta(hours=1)  # a verifier's clock may be behind ours by this much


@dataclass(frozen=True)
class SigningIdentity:
    """A private key and its chain, as PEM text. Plain strings: it may cross to other processes."""

    algorithm: str  # as C2PA names it: "es256", "es384", "es512", "ed25519", "ps256"
    chain_pem: str  # leaf first, each certificate followed by its issuer's
    key_pem: str = field(repr=False)  # PKCS #8, not encrypted; never in a log
    anchors_pem: str  # the chain's last certificate: who trusts it trusts the pictures


def ensure_development(folder: Path, *, now: datetime) -> SigningIdentity:
    """Return the development identity in ``folder``, making it the first time.

    The whole folder appears at once (mode 0700, files 0600), so a crash leaves none or all of it,
    and of two processes that start together both end up with the same one. ``now`` is aware.
    Raises OperatorError if what is there can't be used, or the folder can't be written.
    """
    if not (folder / KEY_FILE).exists():
        _make_folder(folder, now)
    return load(folder / CHAIN_FILE, folder / KEY_FILE, now=now)


def load(chain_path: Path, key_path: Path, *, now: datetime) -> SigningIdentity:
    """Read a chain (PEM, leaf first) and its key (PEM, not encrypted), and check them.

    Raises OperatorError naming the file if one is unreadable, not valid at ``now`` (aware), if the
    chain's order is wrong, the key isn't the leaf's, or C2PA has no algorithm for it.
    """
    chain_pem, key_pem = _read(chain_path), _read(key_path)
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError as error:
        raise OperatorError(f"{chain_path} holds no PEM certificates: {error}") from error
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OperatorError(f"{key_path} holds no plain PEM private key: {error}") from error
    _check_chain(chain, chain_path, now)
    if chain[0].public_key() != key.public_key():
        raise OperatorError(f"the key in {key_path} isn't that of the first of {chain_path}")
    return SigningIdentity(
        algorithm=_algorithm(key, key_path),
        chain_pem=_pem(*chain),
        key_pem=_key_pem(key),
        anchors_pem=_pem(chain[-1]),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OperatorError(f"{path} can't be read: {error.strerror}") from error


def _check_chain(chain: list[x509.Certificate], path: Path, now: datetime) -> None:
    for certificate in chain:
        name = certificate.subject.rfc4514_string()
        if now >= certificate.not_valid_after_utc:
            at = certificate.not_valid_after_utc
            raise OperatorError(f"{path}: the certificate of {name} expired at {at:%Y-%m-%d}")
        if now < certificate.not_valid_before_utc:
            at = certificate.not_valid_before_utc
            raise OperatorError(f"{path}: the certificate of {name} is valid only from {at}")
    for certificate, issuer in itertools.pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as error:
            name = certificate.subject.rfc4514_string()
            raise OperatorError(
                f"{path}: the certificate of {name} isn't followed by its issuer's"
            ) from error
    if chain[0].issuer == chain[0].subject:
        raise OperatorError(f"{path}: a self-signed certificate can't sign pictures (C2PA)")


def _algorithm(key: PrivateKeyTypes, path: Path) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        known = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in known:
            return known[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    raise OperatorError(f"{path}: C2PA has no algorithm for this key; use ECDSA P-256")


def _make_folder(folder: Path, now: datetime) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))  # mode 0700
        try:
            for name, content in _development_files(now).items():
                write_private(made / name, content)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        if not (folder / KEY_FILE).exists():  # else another process was first: its files count
            raise OperatorError(f"{folder} can't be made: {error.strerror}") from error


def _development_files(now: datetime) -> dict[str, str]:
    root_key = ec.generate_private_key(ec.SECP256R1())
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    root_name, leaf_name = _name("Calotype development root"), _name("Calotype pictures")
    root = (
        _certificate(
            root_name, root_name, key=root_key, issuer_key=root_key, now=now, life=ROOT_LIFE
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(issues=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _certificate(
            leaf_name, root_name, key=leaf_key, issuer_key=root_key, now=now, life=LEAF_LIFE
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(issues=False), critical=True)
        # C2PA asks for a purpose; e-mail protection is the one every verifier takes.
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .sign(root_key, hashes.SHA256())
    )
    return {
        ROOT_FILE: _pem(root),
        ROOT_KEY_FILE: _key_pem(root_key),
        CHAIN_FILE: _pem(leaf, root),
        KEY_FILE: _key_pem(leaf_key),
    }


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    *,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(issuer_id, False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Calotype (self-hosted)"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _usage(*, issues: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issues,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(*certificates: x509.Certificate) -> str:
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def _key_pem(key: PrivateKeyTypes) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
