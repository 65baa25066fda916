"""Who signs: keys that are elsewhere, identities that change, and others below the same root."""

from __future__ import annotations

import base64
import io
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from calotype.core.errors import InvalidInput, OperatorError
from calotype.delivery.formats import FORMS, encode
from calotype.provenance import certificates, ingredients, receipts, xmp
from calotype.provenance.certificates import CHAIN_FILE, KEY_FILE, ROOT_FILE, ROOT_KEY_FILE
from calotype.provenance.ingredients import archive, has_picture
from calotype.provenance.signing import GENERATED, Signer, SigningFailed, source_type
from calotype.provenance.verification import verify
from tests import exiftool
from tests.rooms.test_provenance import MANIFEST, NOW, picture, pixels_of

# What a token's or a service's command does: its key is a file here, and nowhere in ours.
COMMAND = """
import json
import shutil
import subprocess
import sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
key = serialization.load_pem_private_key(open(sys.argv[1], "rb").read(), None)
made = key.sign(sys.stdin.buffer.read(), ec.ECDSA(hashes.SHA256()))
if sys.argv[2] == "numbers":
    made = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(made))
sys.stdout.buffer.write(made)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    certificates.ensure_development(tmp_path / "certificates", now=NOW)
    return tmp_path / "certificates"


def command(folder: Path, kind: str = "der") -> list[str]:
    script = folder.parent / "sign.py"
    script.write_text(COMMAND)
    return [sys.executable, str(script), str(folder / KEY_FILE), kind]


# Keys that are elsewhere.


@pytest.mark.parametrize("kind", ["der", "numbers"])
def test_a_command_signs_in_place_of_a_key(folder: Path, kind: str) -> None:
    identity = certificates.load_with_command(folder / CHAIN_FILE, command(folder, kind), now=NOW)
    assert identity.key_pem == ""
    signed = Signer(identity).sign(picture("png"), "png", MANIFEST)
    assert pixels_of(signed) == pixels_of(picture("png"))
    report = verify(signed, anchors_pem=identity.anchors_pem, serials=identity.serials)
    assert (report.state, report.codes) == ("trusted", ())
    told = receipts.signed({"image": "img_1"}, identity)
    assert receipts.check(told, anchors_pem=identity.anchors_pem) == {"image": "img_1"}


def test_a_command_that_does_not_sign_is_found_out_at_once(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    certificates.ensure_development(other, now=NOW)
    for wrong, match in (
        (command(other), "isn't by"),
        (["false"], "ended with 1"),
        (["/no/such/program"], "can't be run"),
        (["echo", "signed"], "isn't by"),
    ):
        with pytest.raises(OperatorError, match=match):
            certificates.load_with_command(folder / CHAIN_FILE, wrong, now=NOW)


def test_a_command_that_fails_later_leaves_nothing_unsigned(folder: Path) -> None:
    identity = certificates.load_with_command(folder / CHAIN_FILE, command(folder), now=NOW)
    with pytest.raises(SigningFailed):
        Signer(replace(identity, command=("false",))).sign(picture("png"), "png", MANIFEST)


@pytest.mark.parametrize("days", [-4000, 4000])
def test_a_certificate_that_is_not_valid_any_more_or_yet_leaves_nothing_unsigned(
    tmp_path: Path, days: int
) -> None:
    """As of a server that runs past its certificate's end, or whose clock is set back."""
    made_at = NOW + timedelta(days=days)
    identity = certificates.ensure_development(tmp_path / "other", now=made_at)
    with pytest.raises(SigningFailed, match="not valid"):
        Signer(identity).sign(picture("png"), "png", MANIFEST)


def test_an_authority_for_time_that_is_away_leaves_nothing_unsigned(folder: Path) -> None:
    identity = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    stamped = replace(identity, timestamp_url="http://127.0.0.1:9/")
    with pytest.raises(SigningFailed):
        Signer(stamped).sign(picture("png"), "png", MANIFEST)


# Identities that change.


def test_what_was_signed_before_a_change_is_ours_on(folder: Path) -> None:
    before = certificates.ensure_development(folder, now=NOW)
    old = Signer(before).sign(picture("png"), "png", MANIFEST)
    certificates.rotate_development(folder, now=NOW)
    after = certificates.ensure_development(folder, now=NOW)
    assert after.serials != before.serials
    (aside,) = certificates.former(folder)
    assert sorted(path.name for path in aside.iterdir()) == [CHAIN_FILE, ROOT_FILE]  # no key
    new = Signer(after).sign(picture("png"), "png", MANIFEST)
    assert verify(old, anchors_pem=after.anchors_pem, serials=after.serials).state == "valid"
    both = certificates.with_former(after, [aside / CHAIN_FILE])
    for data in (old, new):
        report = verify(data, anchors_pem=both.anchors_pem, serials=both.serials)
        assert report.state == "trusted"
    certificates.rotate_development(folder, now=NOW)
    assert len(certificates.former(folder)) == 2


def test_others_below_the_same_root_are_not_us(folder: Path, tmp_path: Path) -> None:
    """As below a root that the whole world trusts: it has signed many."""
    ours = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    theirs = tmp_path / "theirs"
    certificates.ensure_development(theirs, now=NOW)
    key = serialization.load_pem_private_key((theirs / KEY_FILE).read_bytes(), None)
    root_key = serialization.load_pem_private_key((folder / ROOT_KEY_FILE).read_bytes(), None)
    root = x509.load_pem_x509_certificate((folder / ROOT_FILE).read_bytes())
    leaf = certificates.leaf_of(key, root, root_key, now=NOW)  # type: ignore[arg-type]
    (theirs / CHAIN_FILE).write_bytes(
        leaf.public_bytes(serialization.Encoding.PEM)
        + root.public_bytes(serialization.Encoding.PEM)
    )
    they = certificates.load(theirs / CHAIN_FILE, theirs / KEY_FILE, now=NOW)
    signed = Signer(they).sign(picture("png"), "png", MANIFEST)
    assert verify(signed, anchors_pem=ours.anchors_pem).state == "trusted"
    report = verify(signed, anchors_pem=ours.anchors_pem, serials=ours.serials)
    assert (report.state, report.is_signed_here) == ("valid", False)
    mine = Signer(ours).sign(picture("png"), "png", MANIFEST)
    assert verify(mine, anchors_pem=ours.anchors_pem, serials=ours.serials).state == "trusted"


# Forms, XMP, ingredients.


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_signed_over_its_xmp(folder: Path, form: str) -> None:
    identity = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    recipe = MANIFEST.to_dict()
    packet = xmp.packet(recipe, source_type(recipe))
    pixels = np.asarray(Image.open(io.BytesIO(picture("png"))).convert("RGB"))
    signed = Signer(identity).sign(encode(pixels, form, xmp=packet), form, MANIFEST, mark=7)
    report = verify(signed, anchors_pem=identity.anchors_pem, serials=identity.serials)
    assert (report.state, report.mark) == ("trusted", 7)
    with Image.open(io.BytesIO(signed)) as opened:
        told = opened.info["xmp"]
        text = told if isinstance(told, str) else told.decode()
    assert GENERATED in text
    assert MANIFEST.prompt not in text


def test_what_a_picture_was_made_from_is_told_with_its_own_claim(
    folder: Path, tmp_path: Path
) -> None:
    identity = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    stranger = certificates.ensure_development(tmp_path / "stranger", now=NOW)
    sources = {
        "img_1": Signer(identity).sign(picture("png"), "png", MANIFEST),
        "pic_1": Signer(stranger).sign(picture("webp"), "webp", MANIFEST),
        "pic_2": picture("png"),
    }
    forms = {"img_1": "png", "pic_1": "webp", "pic_2": "png"}
    made = [
        archive(data, forms[name], name, anchors_pem=identity.anchors_pem)
        for name, data in sources.items()
    ]
    kept = [each for each in made if each is not None]
    assert len(kept) == 3
    signed = Signer(identity).sign(picture("png"), "png", MANIFEST, ingredients=kept)
    report = verify(signed, anchors_pem=identity.anchors_pem, serials=identity.serials)
    assert (report.state, report.codes) == ("trusted", ())
    assert report.ingredients == ("img_1", "pic_1", "pic_2")
    with c2pa.Reader(io.BytesIO(signed)) as reader:
        told = reader.get_active_manifest()["ingredients"]
    assert [bool(each.get("active_manifest")) for each in told] == [True, True, False]
    assert {each["relationship"] for each in told} == {"inputTo"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("room", [32 * 1024, 5_000, 0])
def test_every_form_and_size_tells_what_the_picture_was_made_from(
    folder: Path, form: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    source = Signer(identity).sign(picture("png"), "png", MANIFEST)
    files = {"img_1": source, "img_2": source, "pic_1": picture("png")}
    made = [archive(data, "png", name) for name, data in files.items()]
    kept = [each for each in made if each is not None]
    whole = Signer(identity).sign(picture("png"), "png", MANIFEST, ingredients=kept)
    monkeypatch.setattr(ingredients, "AGAIN_BYTES_MAX", room)
    other = Signer(identity).sign(
        picture(form), form, MANIFEST, side=64, ingredients=ingredients.again(whole, "png")
    )
    report = verify(other, anchors_pem=identity.anchors_pem, serials=identity.serials)
    assert (report.state, report.codes) == ("trusted", ())
    assert report.ingredients == ("img_1", "img_2", "pic_1")
    with c2pa.Reader(f"image/{form}", io.BytesIO(other)) as reader:
        told = reader.get_active_manifest()["ingredients"]
    claims = {32 * 1024: 2, 5_000: 1, 0: 0}[room]
    assert sum(bool(each.get("active_manifest")) for each in told) == claims


def test_a_picture_made_of_words_alone_has_no_ingredients(folder: Path) -> None:
    identity = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    assert ingredients.again(Signer(identity).sign(picture("png"), "png", MANIFEST), "png") == ()


def test_a_source_that_was_changed_spoils_no_claim_of_ours(folder: Path) -> None:
    identity = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    source = bytearray(Signer(identity).sign(picture("png"), "png", MANIFEST))
    source[source.index(b"IDAT") + 30] ^= 1
    kept = archive(bytes(source), "png", "pic_1", anchors_pem=identity.anchors_pem)
    assert kept is not None
    signed = Signer(identity).sign(picture("png"), "png", MANIFEST, ingredients=[kept])
    report = verify(signed, anchors_pem=identity.anchors_pem, serials=identity.serials)
    assert report.state == "trusted"


@pytest.mark.parametrize("how", ["nothing", "thumbnail", "icon", "text"])
def test_a_claim_with_a_picture_in_it_is_not_taken_over(folder: Path, how: str) -> None:
    """Nobody has judged it; only the file's hash is told then."""
    small, sent = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(small, "JPEG")
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": GENERATED}]}
    assertions: list[dict[str, Any]] = [{"label": "c2pa.actions.v2", "data": actions}]
    generator: dict[str, Any] = {"name": "Stranger"}
    claim: dict[str, Any] = {"claim_generator_info": [generator], "assertions": assertions}
    held = {"format": "image/jpeg", "identifier": "small.jpg"}
    if how == "thumbnail":
        claim["thumbnail"] = held
    elif how == "icon":
        generator["icon"] = held
    elif how == "text":
        data = {"picture": base64.b64encode(small.getvalue()).decode()}
        assertions.append({"label": "org.stranger", "data": data})
    chain, key = ((folder / name).read_bytes() for name in (CHAIN_FILE, KEY_FILE))
    with (
        c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}}) as context,
        c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, key, None)) as signer,
        c2pa.Builder(claim, context) as builder,
    ):
        builder.add_resource("small.jpg", io.BytesIO(small.getvalue()))
        builder.sign(signer, "image/png", io.BytesIO(picture("png")), sent)
    assert verify(sent.getvalue(), anchors_pem=None).state != "none"
    kept = archive(sent.getvalue(), "png", "pic_1")
    assert (kept is not None) == (how == "nothing")


@given(st.binary(max_size=200))
def test_nothing_in_an_archive_breaks_the_look_for_pictures(data: bytes) -> None:
    for archived in (data, (len(data) + 8).to_bytes(4) + b"jumb" + data):
        assert has_picture(archived) in (True, False)


def test_boxes_are_looked_into_however_deep() -> None:
    for inside, says in ((b"cbor", False), (b"bidb", True)):
        around = b"".join(n.to_bytes(4) + b"jumb" for n in range(80_000, 8, -8))
        assert has_picture(around + (8).to_bytes(4) + inside) is says


def test_what_is_no_ingredient_is_left_out() -> None:
    assert archive(b"no picture", "png", "pic_1") is None


# Receipts.


def test_a_receipt_is_by_us_and_whole_or_nothing(folder: Path, tmp_path: Path) -> None:
    identity = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    other = certificates.ensure_development(tmp_path / "other", now=NOW)
    told = receipts.signed({"image": "img_1", "files": [{"side": 0}]}, identity)
    assert receipts.check(told, anchors_pem=identity.anchors_pem)["image"] == "img_1"
    for wrong in (
        told | {"receipt": told["receipt"] | {"image": "img_2"}},
        told | {"signature": told["signature"][:-4] + "AAAA"},
        told | {"signature": "not base64"},
        told | {"algorithm": "ps256"},
        told | {"chain": other.chain_pem},
        {},
        {"chain": 5},
    ):
        with pytest.raises(InvalidInput):
            receipts.check(wrong, anchors_pem=identity.anchors_pem)
    with pytest.raises(InvalidInput):
        receipts.check(told, anchors_pem=other.anchors_pem)


@pytest.mark.skipif(
    exiftool.find() is None, reason="no exiftool: `python -m tests.exiftool` installs it"
)
@pytest.mark.parametrize("form", FORMS)
def test_another_tool_reads_every_form_and_its_source_type(
    folder: Path, tmp_path: Path, form: str
) -> None:
    identity = certificates.load(folder / CHAIN_FILE, folder / KEY_FILE, now=NOW)
    recipe = MANIFEST.to_dict()
    packet = xmp.packet(recipe, source_type(recipe))
    pixels = np.asarray(Image.open(io.BytesIO(picture("png"))).convert("RGB"))
    signed = Signer(identity).sign(encode(pixels, form, xmp=packet), form, MANIFEST, mark=7)
    file = tmp_path / f"picture.{form}"
    file.write_bytes(signed)
    told = exiftool.read(file)
    assert told["MIMEType"] == f"image/{form}"
    assert (told["ImageWidth"], told["ImageHeight"]) == (96, 64)
    assert told["DigitalSourceType"] == GENERATED
    assert told["Identifier"] == MANIFEST.image
    assert "Error" not in told
    assert "Warning" not in told, told["Warning"]
