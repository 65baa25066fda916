"""What keys and times are kept in elsewhere: a PKCS #11 token, and a time-stamping authority.

The token is SoftHSM's, spoken to by OpenSC's ``pkcs11-tool``; where they are missing, ``python -m
tests.tokens`` installs Debian's packages (``make test`` runs it). The authority is ``openssl ts``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests import debian

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
LABEL, PIN = "calotype", "1234"
_AUTHORITY = """
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer-key.pem
certs = {folder}/root.pem
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
ess_cert_id_alg = sha256
"""


def module() -> str | None:
    """The path of SoftHSM's PKCS #11 module, or None."""
    return next((path for path in MODULES if Path(path).exists()), None)


def find() -> str | None:
    """The same, if all that a token takes is here."""
    programs = ("softhsm2-util", "pkcs11-tool", "openssl")
    return module() if all(shutil.which(each) for each in programs) else None


def with_key(folder: Path, key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """A token that holds this key; the variables by which it is found, and its PIN."""
    tokens, file = folder / "tokens", folder / "key.pem"
    tokens.mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\n")
    variables = {"SOFTHSM2_CONF": str(config), "TOKEN_PIN": PIN}
    file.write_bytes(_pkcs8(key))
    begin = ("--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", "5678")
    take = ("--import", str(file), "--token", LABEL, "--label", "pictures", "--id", "01")
    for arguments in (begin, (*take, "--pin", PIN)):
        subprocess.run(
            ["softhsm2-util", *arguments], env={"PATH": "/usr/bin:/bin", **variables},
            check=True, capture_output=True,
        )  # fmt: skip
    file.unlink()  # from here on it is in the token only
    return variables


@contextmanager
def authority(folder: Path, now: datetime) -> Iterator[str]:
    """A time-stamping authority (RFC 3161) over HTTP; yields its address."""
    _make_authority(folder, now)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = folder / "query.tsq"
            query.write_bytes(self.rfile.read(int(self.headers["content-length"])))
            command = ["openssl", "ts", "-reply", "-config", str(folder / "tsa.cnf")]
            command += ["-section", "here", "-queryfile", str(query), "-out", f"{query}.tsr"]
            subprocess.run(command, check=True, capture_output=True)
            reply = Path(f"{query}.tsr").read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}/"
        http.shutdown()


def _make_authority(folder: Path, now: datetime) -> None:
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("Time root", "Time root", root_key, root_key, now, is_root=True)
    signer = _certificate("Time", "Time root", key, root_key, now, is_root=False)
    for name, content in (
        ("root.pem", root.public_bytes(serialization.Encoding.PEM)),
        ("signer.pem", signer.public_bytes(serialization.Encoding.PEM)),
        ("signer-key.pem", _pkcs8(key)),
        ("serial", b"01\n"),
        ("tsa.cnf", _AUTHORITY.format(folder=folder).encode()),
    ):
        (folder / name).write_bytes(content)


def _certificate(
    name: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    *,
    is_root: bool,
) -> x509.Certificate:
    subject, above = (
        x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Time"),
                x509.NameAttribute(NameOID.COMMON_NAME, each),
            ]
        )
        for each in (name, issuer)
    )
    usage = x509.KeyUsage(
        digital_signature=not is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_root,
        crl_sign=is_root,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
        )
    )
    if not is_root:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        made = made.add_extension(purpose, critical=True)
    return made.sign(issuer_key, hashes.SHA256())


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


if __name__ == "__main__":
    why = "a test signs pictures with a token."
    sys.exit(
        debian.ready(module, "softhsm2", "SoftHSM", why)
        or debian.ready(lambda: shutil.which("pkcs11-tool"), "opensc", "pkcs11-tool", why)
    )
