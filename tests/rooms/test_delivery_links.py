"""Signed addresses: every part counts, each tenant has a key, and time runs out."""

import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.core.errors import NotFound, OperatorError, Unauthorized
from calotype.core.ids import new_id
from calotype.core.limits import LINK_TTL_S
from calotype.delivery.links import EXPIRY_STEP_S, Links
from calotype.delivery.names import (
    SIDES,
    Asked,
    asked,
    id_of,
    kept_name,
    pool_of,
    sha256_of,
    stored_name,
)

NOW = 1_700_000_123.4
SECRET = bytes(range(32))
SHA256 = "0123456789abcdef" * 4


def parts(link: str) -> tuple[str, str, str]:
    address = urlsplit(link)
    query = parse_qs(address.query)
    return address.path, query["expires"][0], query["signature"][0]


@pytest.mark.parametrize("side", [0, 256])
@pytest.mark.parametrize("form", ["png", "avif", None])
def test_a_link_opens_its_picture_until_it_expires(side: int, form: str | None) -> None:
    links, picture = Links(SECRET), Asked(new_id("img"), side, form)
    path, expires, signature = parts(links.path(picture, tenant="ada", now=NOW))
    assert path == f"/v1/images/{picture.name}"
    assert asked(picture.name) == picture
    assert LINK_TTL_S <= int(expires) - NOW <= LINK_TTL_S + EXPIRY_STEP_S
    for now in (NOW, int(expires) - 0.01):
        good_for_s = links.check(
            picture, tenant="ada", expires=expires, signature=signature, now=now
        )
        assert good_for_s == int(expires) - now
    for now in (int(expires), int(expires) + 1e6):
        with pytest.raises(Unauthorized, match="expired"):
            links.check(picture, tenant="ada", expires=expires, signature=signature, now=now)


def test_a_link_stays_the_same_for_a_while_so_that_browsers_keep_the_picture() -> None:
    links, picture = Links(SECRET), Asked(new_id("img"), form="png")
    start = float(1_700_000_100 // EXPIRY_STEP_S * EXPIRY_STEP_S)
    times = [start + second for second in range(1, EXPIRY_STEP_S)]
    assert len({links.path(picture, tenant="ada", now=now) for now in times}) == 1


def test_every_part_of_a_link_is_signed() -> None:
    links, picture = Links(SECRET), Asked(new_id("img"), 256, "png")
    _, expires, signature = parts(links.path(picture, tenant="ada", now=NOW))
    other = Links(SECRET[::-1])
    for checker, what, tenant, revoked, when, how in (
        (links, replace(picture, image_id=new_id("img")), "ada", 0, expires, signature),
        (links, replace(picture, form="webp"), "ada", 0, expires, signature),
        (links, replace(picture, form=None), "ada", 0, expires, signature),
        (links, replace(picture, side=0), "ada", 0, expires, signature),
        (links, replace(picture, side=512), "ada", 0, expires, signature),
        (links, picture, "bob", 0, expires, signature),
        (links, picture, "ada", 1, expires, signature),
        (links, picture, "ada", 0, str(int(expires) + 1), signature),
        (links, picture, "ada", 0, f"0{expires}", signature),
        (links, picture, "ada", 0, f" {expires}", signature),
        (links, picture, "ada", 0, "", signature),
        (links, picture, "ada", 0, "9" * 400, signature),
        (links, picture, "ada", 0, expires, signature[:-1]),
        (links, picture, "ada", 0, expires, signature.swapcase()),
        (links, picture, "ada", 0, expires, signature + "="),
        (links, picture, "ada", 0, expires, ""),
        (other, picture, "ada", 0, expires, signature),
    ):
        with pytest.raises(Unauthorized, match="signature"):
            checker.check(
                what, tenant=tenant, revoked=revoked, expires=when, signature=how, now=NOW
            )


@given(expires=st.text(max_size=30), signature=st.text(max_size=60))
def test_no_made_up_link_opens_anything(expires: str, signature: str) -> None:
    picture = Asked("img_01JD0000000000000000000000", form="png")
    with pytest.raises(Unauthorized):
        Links(SECRET).check(picture, tenant="ada", expires=expires, signature=signature, now=NOW)


def test_no_link_is_made_for_an_impossible_picture() -> None:
    with pytest.raises(NotFound):
        Links(SECRET).path(Asked("../secret", form="png"), tenant="ada", now=NOW)


def test_the_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path, picture = tmp_path / "home" / "links.key", Asked(new_id("img"), form="png")
    first = Links.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["links.key"]
    again = Links.load_or_create(path)
    made = first.path(picture, tenant="ada", now=NOW)
    assert again.path(picture, tenant="ada", now=NOW) == made
    elsewhere = Links.load_or_create(tmp_path / "other.key")
    assert elsewhere.path(picture, tenant="ada", now=NOW) != made


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    picture = Asked(new_id("img"), form="png")
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda _: Links.load_or_create(tmp_path / "links.key"), range(8))
    assert len({links.path(picture, tenant="ada", now=NOW) for links in made}) == 1


def test_a_damaged_secret_is_named(tmp_path: Path) -> None:
    path = tmp_path / "links.key"
    path.write_bytes(b"short")
    with pytest.raises(OperatorError, match=r"links\.key.* 5 bytes"):
        Links.load_or_create(path)
    with pytest.raises(OperatorError, match=r"links\.key"):
        Links.load_or_create(path / "below" / "links.key")


# Names.

BAD_IDS = (
    "",
    "img_",
    "../../etc/passwd",
    "img_01JD000000000000000000000/",
    "img_../../../../../../../../../..",
    "img_01jd0000000000000000000000",  # lower case
    "img_01JD0000000000000000000000\n",
    "img_０1JD000000000000000000000",  # a fullwidth digit
    "IMG_01JD0000000000000000000000",
    "img_01JD00000000000000000000000",  # one too long
)


@pytest.mark.parametrize("image_id", BAD_IDS)
def test_no_id_becomes_a_path(image_id: str) -> None:
    with pytest.raises(NotFound):
        stored_name("fast", image_id, SHA256, "png")
    with pytest.raises(NotFound):
        kept_name(image_id, "png")
    with pytest.raises(NotFound):
        asked(f"{image_id}.png")
    assert id_of(f"fast/{image_id[-2:]}/{image_id}.{SHA256}.png") is None


@pytest.mark.parametrize("folder", ["", "..", "a/b", "Fast", "fast\n"])
def test_no_folder_leads_elsewhere(folder: str) -> None:
    with pytest.raises(NotFound):
        stored_name(folder, new_id("img"), SHA256, "png")


@pytest.mark.parametrize("name", ["-100.png", "-0.png", "-.png", "-99999.png", ".png/../x", ".gif"])
def test_only_sizes_and_forms_of_the_list_can_be_asked_for(name: str) -> None:
    with pytest.raises(NotFound):
        asked(f"img_01JD0000000000000000000000{name}")


def test_what_is_stored_can_be_told_by_its_name() -> None:
    image_id = new_id("img")
    name = stored_name("relax", image_id, SHA256, "webp")
    assert (id_of(name), sha256_of(name)) == (image_id, SHA256)
    assert (id_of(kept_name(image_id, "png")), sha256_of(kept_name(image_id, "png"))) == (
        image_id,
        None,
    )
    for other in (
        "README.txt",
        f"{image_id}.png",
        f"xx/{image_id}.png",
        f"{name}#1",
        f"x/y/{name}",
    ):
        assert id_of(other) is None
    apart = stored_name("relax", image_id, SHA256, "webp", pool="mature")
    assert apart == f"mature/{name}"
    assert (id_of(apart), pool_of(apart), pool_of(name)) == (image_id, "mature", "")
    assert [asked(f"{image_id}-{side}").side for side in SIDES] == list(SIDES)
