"""Keys in a real PKCS #11 token and times of a real authority, by the documented set-ups."""

from __future__ import annotations

import io
import re
import shlex
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from calotype.core.errors import OperatorError
from calotype.provenance import certificates, receipts
from calotype.provenance.certificates import CHAIN_FILE, KEY_FILE, ROOT_FILE, ROOT_KEY_FILE
from calotype.provenance.signing import Signer
from calotype.provenance.verification import verify
from tests import tokens
from tests.rooms.test_provenance import MANIFEST, picture, pixels_of

DOCS = Path(__file__).parents[2] / "docs" / "provenance.md"
NOW = datetime.now(UTC)  # an authority has the time of now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    certificates.ensure_development(tmp_path / "certificates", now=NOW)
    return tmp_path / "certificates"


def documented_command() -> list[str]:
    """What docs/provenance.md says to set ``certificate_command`` to."""
    found = re.search(r'certificate_command = "(sh -c .*pkcs11-tool.*)"\n', DOCS.read_text())
    assert found is not None
    return shlex.split(found[1].replace("/usr/lib/softhsm/libsofthsm2.so", tokens.module() or ""))


@pytest.mark.skipif(
    tokens.find() is None, reason="no SoftHSM: `python -m tests.tokens` installs it"
)
def test_a_key_in_a_token_signs_pictures_and_never_leaves_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for name, value in tokens.with_key(tmp_path, key).items():
        monkeypatch.setenv(name, value)
    root_key = serialization.load_pem_private_key((folder / ROOT_KEY_FILE).read_bytes(), None)
    root = x509.load_pem_x509_certificate((folder / ROOT_FILE).read_bytes())
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    leaf = certificates.leaf_of(key, root, root_key, now=NOW)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(
        b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (leaf, root))
    )
    command = documented_command()
    identity = certificates.load_with_command(chain, command, now=NOW)
    assert identity.key_pem == ""
    for form in ("png", "webp", "jpeg"):
        signed = Signer(identity).sign(picture(form), form, MANIFEST)
        assert pixels_of(signed) == pixels_of(picture(form))
        report = verify(signed, anchors_pem=identity.anchors_pem, serials=identity.serials)
        assert (report.state, report.codes) == ("trusted", ())
    told = receipts.signed({"image": "img_1"}, identity)
    assert receipts.check(told, anchors_pem=identity.anchors_pem) == {"image": "img_1"}
    monkeypatch.setenv("TOKEN_PIN", "wrong")
    with pytest.raises(OperatorError, match="the command that signs"):
        certificates.load_with_command(chain, command, now=NOW)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
@pytest.mark.parametrize("form", ["png", "webp", "jpeg", "avif"])
def test_an_authority_for_time_stamps_what_is_signed(
    folder: Path, tmp_path: Path, form: str
) -> None:
    identity = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    (tmp_path / "time").mkdir()
    with tokens.authority(tmp_path / "time", NOW) as url:
        signed = Signer(replace(identity, timestamp_url=url)).sign(picture(form), form, MANIFEST)
    report = verify(signed, anchors_pem=identity.anchors_pem, serials=identity.serials)
    assert report.state == "trusted"
    with c2pa.Reader(f"image/{form}", io.BytesIO(signed)) as reader:
        results = reader.get_validation_results()["activeManifest"]
        at = reader.get_active_manifest()["signature_info"]["time"]
    assert "timeStamp.validated" in {each["code"] for each in results["success"]}
    assert abs(datetime.fromisoformat(at) - datetime.now(UTC)) < timedelta(minutes=10)
