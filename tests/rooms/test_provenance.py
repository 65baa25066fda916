"""Real chains, real signatures, real files: what verifies, what doesn't, and what is refused."""

import io
import json
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from calotype.core.errors import OperatorError
from calotype.provenance.certificates import SigningIdentity, ensure_development, load
from calotype.provenance.manifest import MadeLora, MadeWith, Manifest
from calotype.provenance.signing import GENERATED, PAINTED_INTO, Signer, SigningFailed
from calotype.provenance.verification import REMOTE, UNREADABLE, UNSUPPORTED, verify

NOW = datetime.now(UTC)  # C2PA checks certificates against the real clock
FORMS = ("png", "webp")
MANIFEST = Manifest(
    image="img_01JD0000000000000000000000",
    index=1,
    prompt='a red fox, "oil on canvas" – 狐',
    negative_prompt="",
    model="calotype-1",
    build="0123456789abcdef",
    width=96,
    height=64,
    steps=20,
    guidance=5.0,
    sampler="dpmpp_2m",
    seed=2**32 - 1,
    calotype="0.1.0",
    torch="2.13.0",
    device="cpu",
    pixels_sha256="ab" * 32,
)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> SigningIdentity:
    return ensure_development(tmp_path_factory.mktemp("signing") / "dev", now=NOW)


def picture(form: str) -> bytes:
    pixels = np.random.default_rng(5).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def pixels_of(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def signed(identity: SigningIdentity, form: str) -> bytes:
    return Signer(identity).sign(picture(form), form, MANIFEST)


# Signing and reading back


def test_a_signed_picture_is_trusted_under_its_own_root(
    identity: SigningIdentity, signed: bytes
) -> None:
    report = verify(signed, anchors_pem=identity.anchors_pem)
    assert report.state == "trusted"
    assert report.codes == ()
    assert report.claim_generator == "Calotype/0.1.0"


def test_the_manifest_comes_back_as_it_was_signed(identity: SigningIdentity, signed: bytes) -> None:
    report = verify(signed, anchors_pem=identity.anchors_pem)
    assert report.manifest == MANIFEST.to_dict()
    assert json.loads(json.dumps(report.manifest))["seed"] == 2**32 - 1


def test_the_claim_says_that_it_was_generated(signed: bytes) -> None:
    import c2pa

    with c2pa.Reader(io.BytesIO(signed)) as reader:
        active = reader.get_active_manifest()
    assertions = {each["label"]: each["data"] for each in active["assertions"]}
    action = assertions["c2pa.actions.v2"]["actions"][0]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", GENERATED)


def test_what_is_painted_into_a_picture_is_said_to_be_composed(
    identity: SigningIdentity, form: str
) -> None:
    made_with = MadeWith("12" * 32, "34" * 32, (MadeLora("ink", "56" * 8, 0.5),))
    manifest = replace(MANIFEST, kind="inpaint", strength=0.9, made_with=made_with)
    signed = Signer(identity).sign(picture(form), form, manifest)
    report = verify(signed, anchors_pem=identity.anchors_pem)
    assert report.manifest is not None
    assert report.manifest == manifest.to_dict()
    told = {name: report.manifest[name] for name in ("version", "kind", "mask_sha256", "loras")}
    loras = [{"name": "ink", "build": "56" * 8, "weight": 0.5}]
    assert told == {"version": 2, "kind": "inpaint", "mask_sha256": "34" * 32, "loras": loras}
    import c2pa

    with c2pa.Reader(io.BytesIO(signed)) as reader:
        active = reader.get_active_manifest()
    assertions = {each["label"]: each["data"] for each in active["assertions"]}
    [action] = assertions["c2pa.actions.v2"]["actions"]
    assert action["digitalSourceType"] == PAINTED_INTO


def test_signing_changes_no_pixel_and_adds_little(signed: bytes, form: str) -> None:
    plain = picture(form)
    assert pixels_of(signed) == pixels_of(plain)
    assert len(signed) - len(plain) < 6_000


def test_without_anchors_it_is_only_valid(signed: bytes) -> None:
    report = verify(signed, anchors_pem=None)
    assert report.state == "valid"
    assert report.codes == ("signingCredential.untrusted",)


def test_under_another_root_it_is_only_valid(signed: bytes, tmp_path: Path) -> None:
    other = ensure_development(tmp_path / "other", now=NOW)
    assert verify(signed, anchors_pem=other.anchors_pem).state == "valid"


def test_one_flipped_byte_of_the_picture_makes_it_invalid(
    identity: SigningIdentity, signed: bytes, form: str
) -> None:
    changed = bytearray(signed)
    where = signed.index(b"IDAT") + 100 if form == "png" else signed.index(b"VP8") + 100
    changed[where] ^= 1
    report = verify(bytes(changed), form, anchors_pem=identity.anchors_pem)
    assert report.state == "invalid"
    assert report.codes == ("assertion.dataHash.mismatch",)
    assert report.manifest is None


def test_a_changed_manifest_makes_it_invalid(identity: SigningIdentity, signed: bytes) -> None:
    changed = signed.replace(b"a red fox", b"a red cat")
    assert changed != signed
    report = verify(changed, anchors_pem=identity.anchors_pem)
    assert report.state == "invalid"
    assert report.manifest is None


def test_saving_it_again_loses_the_claim(
    identity: SigningIdentity, signed: bytes, form: str
) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(signed)).save(file, form)
    report = verify(file.getvalue(), form, anchors_pem=identity.anchors_pem)
    assert (report.state, report.codes, report.manifest) == ("none", (), None)


def test_damage_is_never_trusted_unless_it_hits_only_padding(
    identity: SigningIdentity, signed: bytes, form: str
) -> None:
    """C2PA leaves its own padding out of the hash; picture and manifest are never left out."""
    random = np.random.default_rng(11)
    states = set()
    for where in random.integers(0, len(signed), 120):
        changed = bytearray(signed)
        changed[where] ^= 1 << int(random.integers(8))
        report = verify(bytes(changed), form, anchors_pem=identity.anchors_pem)
        states.add(report.state)
        if report.state == "trusted":
            assert report.manifest == MANIFEST.to_dict()
            with suppress(UnidentifiedImageError):  # what nobody can open shows nothing else
                assert pixels_of(bytes(changed)) == pixels_of(signed)
    assert "invalid" in states


def test_a_file_cut_short_is_never_trusted(
    identity: SigningIdentity, signed: bytes, form: str
) -> None:
    for length in np.random.default_rng(12).integers(0, len(signed), 20):
        report = verify(signed[:length], form, anchors_pem=identity.anchors_pem)
        assert report.state in ("invalid", "none")


def test_hostile_files_are_reported_not_raised() -> None:
    assert verify(b"", anchors_pem=None).codes == (UNSUPPORTED,)
    assert verify(b"no picture " * 40, anchors_pem=None).codes == (UNSUPPORTED,)
    broken = verify(b"\x89PNG\r\n\x1a\n" + bytes(50), anchors_pem=None)
    assert (broken.state, broken.codes) == ("invalid", (UNREADABLE,))


def test_an_address_inside_a_file_is_never_followed() -> None:
    """A file may name where its manifest lies; whoever verifies it must not be made to ask."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/claim.c2pa"
        about = PngImagePlugin.PngInfo()
        about.add_itxt(
            "XML:com.adobe.xmp",
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
            'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
            f'xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{address}"/>'
            "</rdf:RDF></x:xmpmeta>",
        )
        file = io.BytesIO()
        Image.new("RGB", (16, 16)).save(file, "png", pnginfo=about)
        report = verify(file.getvalue(), "png", anchors_pem=None)
        assert (report.state, report.codes) == ("none", (REMOTE,))
        with pytest.raises(TimeoutError):
            server.accept()


def test_what_cannot_be_signed_is_an_error_and_not_an_unsigned_picture(
    identity: SigningIdentity,
) -> None:
    signer = Signer(identity)
    with pytest.raises(SigningFailed, match="gif"):
        signer.sign(b"GIF89a", "gif", MANIFEST)
    with pytest.raises(SigningFailed):
        signer.sign(b"no picture", "png", MANIFEST)
    broken = SigningIdentity("es256", identity.chain_pem, "no key", identity.anchors_pem)
    with pytest.raises(SigningFailed):
        Signer(broken).sign(picture("png"), "png", MANIFEST)


# Certificates


def test_the_development_chain_is_made_once_and_kept(tmp_path: Path) -> None:
    first = ensure_development(tmp_path / "a" / "dev", now=NOW)
    later = ensure_development(tmp_path / "a" / "dev", now=NOW + timedelta(days=100))
    assert later == first


def test_its_files_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    ensure_development(folder, now=NOW)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert [entry.name for entry in tmp_path.iterdir()] == ["dev"]  # nothing half-made is left


def test_processes_that_start_together_agree_on_one_chain(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: ensure_development(tmp_path / "dev", now=NOW), range(8)))
    assert len({identity.key_pem for identity in made}) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["dev"]


def test_the_key_is_not_shown_when_an_identity_is_printed(identity: SigningIdentity) -> None:
    assert "PRIVATE" not in repr(identity)


def test_root_and_leaf_have_the_uses_that_c2pa_asks_for(identity: SigningIdentity) -> None:
    leaf, root = x509.load_pem_x509_certificates(identity.chain_pem.encode())
    leaf_usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    root_usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (leaf_usage.digital_signature, leaf_usage.key_cert_sign) == (True, False)
    assert (root_usage.key_cert_sign, root_usage.crl_sign) == (True, True)
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert identity.algorithm == "es256"


def test_an_expired_chain_is_refused_by_name(tmp_path: Path) -> None:
    ensure_development(tmp_path / "dev", now=NOW)
    with pytest.raises(OperatorError, match=r"chain\.pem: .*Calotype pictures.* expired"):
        ensure_development(tmp_path / "dev", now=NOW + timedelta(days=4000))


def test_a_chain_from_the_future_is_refused(tmp_path: Path) -> None:
    ensure_development(tmp_path / "dev", now=NOW)
    with pytest.raises(OperatorError, match="valid only from"):
        ensure_development(tmp_path / "dev", now=NOW - timedelta(days=2))


def test_a_key_of_another_chain_is_refused(tmp_path: Path) -> None:
    ensure_development(tmp_path / "one", now=NOW)
    ensure_development(tmp_path / "two", now=NOW)
    with pytest.raises(OperatorError, match=r"two/key\.pem"):
        load(tmp_path / "one" / "chain.pem", tmp_path / "two" / "key.pem", now=NOW)


def test_a_chain_in_the_wrong_order_is_refused(tmp_path: Path) -> None:
    identity = ensure_development(tmp_path / "dev", now=NOW)
    leaf, root = x509.load_pem_x509_certificates(identity.chain_pem.encode())
    from cryptography.hazmat.primitives.serialization import Encoding

    turned = tmp_path / "turned.pem"
    turned.write_bytes(root.public_bytes(Encoding.PEM) + leaf.public_bytes(Encoding.PEM))
    with pytest.raises(OperatorError, match="isn't followed by its issuer"):
        load(turned, tmp_path / "dev" / "key.pem", now=NOW)


def test_a_bare_self_signed_certificate_is_refused(tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    ensure_development(dev, now=NOW)
    with pytest.raises(OperatorError, match="self-signed"):
        load(dev / "root.pem", dev / "root-key.pem", now=NOW)


@pytest.mark.parametrize("name", ["chain.pem", "key.pem"])
@pytest.mark.parametrize("content", [None, b"", b"\x00\xff rubbish"])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    ensure_development(tmp_path / "dev", now=NOW)
    broken = tmp_path / "dev" / name
    broken.unlink()
    if content is not None:
        broken.write_bytes(content)
    with pytest.raises(OperatorError, match=str(broken)):
        load(tmp_path / "dev" / "chain.pem", tmp_path / "dev" / "key.pem", now=NOW)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OperatorError, match="file/dev"):
        ensure_development(tmp_path / "file" / "dev", now=NOW)
