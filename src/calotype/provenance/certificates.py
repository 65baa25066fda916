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
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from calotype.core.errors import OperatorError
from calotype.files.private import write_private
from calotype.provenance import keys

ROOT_FILE, ROOT_KEY_FILE = "root.pem", "root-key.pem"
CHAIN_FILE, KEY_FILE = "chain.pem", "key.pem"

# Without a time-stamping authority (we work offline) a signature counts only while its leaf is
# valid, so the leaf has to live as long as the pictures are meant to be verified.
LEAF_LIFE = timedelta(days=3650)
ROOT_LIFE = timedelta(days=7300)
CLOCK_SLACK = timedelta(hours=1)  # a verifier's clock may be behind ours by this much
_TRIAL = b"calotype: does this command sign with the key of this chain?"


@dataclass(frozen=True)
class SigningIdentity:
    """A private key and its chain, as PEM text. Plain strings: it may cross to other processes."""

    algorithm: str  # as C2PA names it: "es256", "es384", "es512", "ed25519", "ps256"
    chain_pem: str  # leaf first, each certificate followed by its issuer's
    key_pem: str = field(repr=False)  # PKCS #8, not encrypted; never in a log; "" with a command
    anchors_pem: str  # the chain's last certificate, and those of chains before it
    # Numbers of our leaves, the one in use first: others may have theirs below the same root.
    serials: tuple[str, ...] = ()
    command: tuple[str, ...] = ()  # signs in place of a key: data on stdin, signature on stdout
    timestamp_url: str | None = None  # of a time-stamping authority (RFC 3161)


def ensure_development(folder: Path, *, now: datetime) -> SigningIdentity:
    """Return the development identity in ``folder``, making it the first time.

    The whole folder appears at once (mode 0700, files 0600), so a crash leaves none or all of it,
    and of two processes that start together both end up with the same one. ``now`` is aware.
    Raises OperatorError if what is there can't be used, or the folder can't be written.
    """
    if not (folder / KEY_FILE).exists():
        _make_folder(folder, now)
    return load(folder / CHAIN_FILE, folder / KEY_FILE, now=now)


def rotate_development(folder: Path, *, now: datetime) -> None:
    """Have the next ``ensure_development`` make a new identity; the one of now becomes a former.

    What it signed goes on being ours. Raises OperatorError.
    """
    number = len(former(folder)) + 1
    try:
        (folder / KEY_FILE).unlink(missing_ok=True)  # nobody signs with it any more
        (folder / ROOT_KEY_FILE).unlink(missing_ok=True)
        folder.rename(folder.with_name(f"{folder.name}.{number:04}"))
    except OSError as error:
        raise OperatorError(f"{folder} can't be put aside: {error.strerror}") from error
    _make_folder(folder, now)


def with_former(identity: SigningIdentity, chains: Sequence[Path]) -> SigningIdentity:
    """The identity, with chains (PEM, leaf first) that signed before it. Raises OperatorError."""
    anchors_pem, serials = trust(chains)
    return replace(
        identity,
        anchors_pem=identity.anchors_pem + anchors_pem,
        serials=identity.serials + serials,
    )


def trust(chains: Sequence[Path]) -> tuple[str, tuple[str, ...]]:
    """The roots (PEM) of chains (PEM, leaf first), and their leaves' numbers. Raises OperatorError.

    They may have expired: what they signed goes on being ours.
    """
    read = [_certificates(path) for path in chains]
    roots = dict.fromkeys(_pem(chain[-1]) for chain in read)
    serials = dict.fromkeys(str(chain[0].serial_number) for chain in read)
    return "".join(roots), tuple(serials)


def former(folder: Path) -> list[Path]:
    """The folders of development identities that were put aside, the newest first."""
    return sorted(folder.parent.glob(f"{folder.name}.[0-9][0-9][0-9][0-9]"), reverse=True)


def load(chain_path: Path, key_path: Path, *, now: datetime) -> SigningIdentity:
    """Read a chain (PEM, leaf first) and its key (PEM, not encrypted), and check them.

    Raises OperatorError naming the file if one is unreadable, not valid at ``now`` (aware), if the
    chain's order is wrong, the key isn't the leaf's, or C2PA has no algorithm for it.
    """
    chain, key_pem = _certificates(chain_path), _read(key_path)
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OperatorError(f"{key_path} holds no plain PEM private key: {error}") from error
    _check_chain(chain, chain_path, now)
    if chain[0].public_key() != key.public_key():
        raise OperatorError(f"the key in {key_path} isn't that of the first of {chain_path}")
    return _identity(chain, chain_path, key_pem=_key_pem(key))


def load_with_command(
    chain_path: Path, command: Sequence[str], *, now: datetime
) -> SigningIdentity:
    """The same with a key that is elsewhere (a PKCS #11 token, a key management service).

    ``command`` signs: it reads what is to be signed from stdin and writes the raw signature, of the
    chain's algorithm (ECDSA: DER, or both numbers one after the other). It is tried once, here.
    """
    chain = _certificates(chain_path)
    _check_chain(chain, chain_path, now)
    identity = _identity(chain, chain_path, command=tuple(command))
    made = keys.signature(_TRIAL, algorithm=identity.algorithm, key_pem="", command=command)
    try:
        keys.check(chain[0], identity.algorithm, made, _TRIAL)
    except (InvalidSignature, ValueError) as error:
        raise OperatorError(f"what the command signs isn't by the first of {chain_path}") from error
    return identity


def _identity(
    chain: list[x509.Certificate],
    path: Path,
    *,
    key_pem: str = "",
    command: tuple[str, ...] = (),
) -> SigningIdentity:
    return SigningIdentity(
        algorithm=_algorithm(chain[0].public_key(), path),
        chain_pem=_pem(*chain),
        key_pem=key_pem,
        anchors_pem=_pem(chain[-1]),
        serials=(str(chain[0].serial_number),),
        command=command,
    )


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise OperatorError(f"{path} holds no PEM certificates: {error}") from error


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


def _algorithm(key: PublicKeyTypes, path: Path) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        known = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in known:
            return known[key.curve.name]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
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
    root_name = _name("Calotype development root")
    root = (
        _certificate(
            root_name, root_name, key=root_key, issuer_key=root_key, now=now, life=ROOT_LIFE
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(issues=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = leaf_of(leaf_key, root, root_key, now=now)
    return {
        ROOT_FILE: _pem(root),
        ROOT_KEY_FILE: _key_pem(root_key),
        CHAIN_FILE: _pem(leaf, root),
        KEY_FILE: _key_pem(leaf_key),
    }


def leaf_of(
    key: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    *,
    now: datetime,
) -> x509.Certificate:
    """A certificate that signs pictures with this key, below a root."""
    name = _name("Calotype pictures")
    return (
        _certificate(name, root.subject, key=key, issuer_key=root_key, now=now, life=LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(issues=False), critical=True)
        # C2PA asks for a purpose; e-mail protection is the one every verifier takes.
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .sign(root_key, hashes.SHA256())
    )


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
