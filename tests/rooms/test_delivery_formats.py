"""Files, the store and signed links, each on the real thing."""

import asyncio
import io
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from calotype.core.errors import InternalError, NotFound, OperatorError, Unauthorized
from calotype.core.ids import new_id
from calotype.core.limits import LINK_TTL_S
from calotype.delivery.formats import FORMS, encode, media_type
from calotype.delivery.links import EXPIRY_STEP_S, Links
from calotype.delivery.store import PictureStore

NOW = 1_700_000_123.4
SECRET = bytes(range(32))


def pixels(height: int, width: int, seed: int = 3) -> NDArray[np.uint8]:
    """A smooth gradient with some noise, as photographs have."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=2)
    noise = np.random.default_rng(seed).normal(0, 4, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def decode(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def files_below(folder: Path) -> list[str]:
    return [entry.name for entry in folder.rglob("*") if entry.is_file()]


# Formats


def test_png_keeps_every_pixel() -> None:
    picture = pixels(200, 320)
    assert np.array_equal(decode(encode(picture, "png")), picture)


def test_a_tiny_webp_keeps_every_pixel() -> None:
    picture = pixels(128, 128)
    assert np.array_equal(decode(encode(picture, "webp")), picture)


def test_a_larger_webp_looks_the_same_and_is_much_smaller() -> None:
    picture = pixels(256, 384)
    webp = encode(picture, "webp")
    error = decode(webp).astype(float) - picture
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 30  # dB
    assert len(webp) < len(encode(picture, "png")) / 3


@pytest.mark.parametrize("form", FORMS)
def test_a_file_says_its_form_and_carries_no_metadata(form: str) -> None:
    with Image.open(io.BytesIO(encode(pixels(40, 72), form))) as image:
        assert (image.format, image.size) == (form.upper(), (72, 40))
        assert not image.getexif()
        assert not {"exif", "xmp", "Software", "comment"} & image.info.keys()
    assert media_type(form) == f"image/{form}"


@pytest.mark.parametrize("form", FORMS)
def test_the_same_pixels_give_the_same_file(form: str) -> None:
    assert encode(pixels(200, 200), form) == encode(pixels(200, 200), form)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(NotFound):
        encode(pixels(8, 8), "gif")
    for wrong in (np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(InternalError):
            encode(wrong, "png")  # type: ignore[arg-type]


# The store


async def test_a_stored_picture_comes_back_until_it_is_deleted(tmp_path: Path) -> None:
    store, image = PictureStore.local(tmp_path / "new" / "pictures"), new_id("img")
    data = encode(pixels(64, 64), "png")
    assert not await store.exists(image, "png")
    await store.put(image, "png", data)
    assert await store.exists(image, "png")
    assert await store.get(image, "png") == data
    assert not await store.exists(image, "webp")
    await store.delete(image, "png")
    await store.delete(image, "png")
    with pytest.raises(NotFound):
        await store.get(image, "png")


async def test_a_reopened_store_has_what_was_put(tmp_path: Path) -> None:
    image = new_id("img")
    await PictureStore.local(tmp_path).put(image, "webp", b"bytes")
    assert await PictureStore.local(tmp_path).get(image, "webp") == b"bytes"


async def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    store, image = PictureStore.local(tmp_path), new_id("img")
    whole = [bytes([fill]) * 400_000 for fill in (1, 2)]
    await store.put(image, "png", whole[0])

    async def write() -> None:
        for turn in range(20):
            await store.put(image, "png", whole[turn % 2])

    writing = asyncio.create_task(write())
    while not writing.done():
        assert await store.get(image, "png") in whole
    await writing
    assert files_below(tmp_path) == [f"{image}.png"]


async def test_a_cancelled_write_ends_before_it_says_so(tmp_path: Path) -> None:
    store = PictureStore.local(tmp_path)
    for _ in range(10):
        image = new_id("img")
        writing = asyncio.create_task(store.put(image, "png", bytes(2_000_000)))
        await asyncio.sleep(0)  # it has begun
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await store.delete(image, "png")
    await asyncio.sleep(0.1)
    assert files_below(tmp_path) == []


async def test_pictures_are_listed_in_pages_and_other_files_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calotype.delivery.store.PAGE_FILES", 4)
    store, images = PictureStore.local(tmp_path), {new_id("img") for _ in range(5)}
    for image in images:
        for form in ("png", "webp"):
            await store.put(image, form, b"bytes")
    (tmp_path / "README.txt").write_text("not a picture")
    (tmp_path / "img_mine.png").write_text("nor is this")
    (tmp_path / f"{new_id('img')}.png").write_text("nor this, in another place")
    pages = [page async for page in store.ids()]
    assert len(pages) >= 3
    assert all(len(page) <= 4 for page in pages)
    assert set[str]().union(*pages) == images


async def test_the_draft_of_a_write_that_was_killed_is_removed(tmp_path: Path) -> None:
    store, image = PictureStore.local(tmp_path), new_id("img")
    await store.put(image, "png", b"whole")
    folder = tmp_path / image[-2:]
    for name in (f"{image}.png#1", f"{new_id('img')}.webp#23", "mine#1"):
        (folder / name).write_bytes(b"half")
    await store.delete_drafts()
    assert sorted(files_below(tmp_path)) == sorted([f"{image}.png", "mine#1"])


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


@pytest.mark.parametrize("image", BAD_IDS)
async def test_no_id_reaches_outside_the_store(tmp_path: Path, image: str) -> None:
    store = PictureStore.local(tmp_path / "pictures")
    for act in (store.get, store.exists, store.delete):
        with pytest.raises(NotFound):
            await act(image, "png")
    with pytest.raises(NotFound):
        await store.put(image, "png", b"x")
    assert files_below(tmp_path) == []


async def test_no_form_reaches_outside_the_store(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await PictureStore.local(tmp_path).put(new_id("img"), "png/../../x", b"x")


async def test_storage_that_fails_is_the_operators_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OperatorError, match="file"):
        PictureStore.local(tmp_path / "file" / "pictures")
    store, image = PictureStore.local(tmp_path / "pictures"), new_id("img")
    (tmp_path / "pictures" / image[-2:]).write_text("in the way")
    with pytest.raises(OperatorError, match="stored"):
        await store.put(image, "png", b"x")


# Links


def parts(link: str) -> tuple[str, str, str]:
    address = urlsplit(link)
    query = parse_qs(address.query)
    return address.path, query["expires"][0], query["signature"][0]


def test_a_link_opens_its_picture_until_it_expires() -> None:
    links, image = Links(SECRET), new_id("img")
    path, expires, signature = parts(links.path(image, "png", now=NOW))
    assert path == f"/v1/images/{image}.png"
    assert LINK_TTL_S <= int(expires) - NOW <= LINK_TTL_S + EXPIRY_STEP_S
    for now in (NOW, int(expires) - 0.01):
        links.check(image, "png", expires=expires, signature=signature, now=now)
    for now in (int(expires), int(expires) + 1e6):
        with pytest.raises(Unauthorized, match="expired"):
            links.check(image, "png", expires=expires, signature=signature, now=now)


def test_a_link_stays_the_same_for_a_while_so_that_browsers_keep_the_picture() -> None:
    links, image = Links(SECRET), new_id("img")
    start = float(1_700_000_100 // EXPIRY_STEP_S * EXPIRY_STEP_S)
    made = {links.path(image, "png", now=start + second) for second in range(1, EXPIRY_STEP_S)}
    assert len(made) == 1


def test_every_part_of_a_link_is_signed() -> None:
    links, image = Links(SECRET), new_id("img")
    _, expires, signature = parts(links.path(image, "png", now=NOW))
    other = Links(SECRET[::-1])
    for checker, who, form, when, what in (
        (links, new_id("img"), "png", expires, signature),
        (links, image, "webp", expires, signature),
        (links, image, "gif", expires, signature),
        (links, image, "png", str(int(expires) + 1), signature),
        (links, image, "png", f"0{expires}", signature),
        (links, image, "png", f" {expires}", signature),
        (links, image, "png", "", signature),
        (links, image, "png", "9" * 400, signature),
        (links, image, "png", expires, signature[:-1]),
        (links, image, "png", expires, signature.swapcase()),
        (links, image, "png", expires, signature + "="),
        (links, image, "png", expires, ""),
        (links, "../secret", "png", expires, signature),
        (other, image, "png", expires, signature),
    ):
        with pytest.raises(Unauthorized, match="signature"):
            checker.check(who, form, expires=when, signature=what, now=NOW)


@given(expires=st.text(max_size=30), signature=st.text(max_size=60))
def test_no_made_up_link_opens_anything(expires: str, signature: str) -> None:
    with pytest.raises(Unauthorized):
        Links(SECRET).check(
            "img_01JD0000000000000000000000",
            "png",
            expires=expires,
            signature=signature,
            now=NOW,
        )


def test_no_link_is_made_for_an_impossible_picture() -> None:
    with pytest.raises(NotFound):
        Links(SECRET).path("../secret", "png", now=NOW)


def test_the_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path, image = tmp_path / "home" / "links.key", new_id("img")
    first = Links.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["links.key"]
    again = Links.load_or_create(path)
    assert again.path(image, "png", now=NOW) == first.path(image, "png", now=NOW)
    elsewhere = Links.load_or_create(tmp_path / "other.key")
    assert elsewhere.path(image, "png", now=NOW) != first.path(image, "png", now=NOW)


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    image = new_id("img")
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(lambda _: Links.load_or_create(tmp_path / "links.key"), range(8))
    assert len({links.path(image, "png", now=NOW) for links in made}) == 1


def test_a_damaged_secret_is_named(tmp_path: Path) -> None:
    path = tmp_path / "links.key"
    path.write_bytes(b"short")
    with pytest.raises(OperatorError, match=r"links\.key.* 5 bytes"):
        Links.load_or_create(path)
    with pytest.raises(OperatorError, match=r"links\.key"):
        Links.load_or_create(path / "below" / "links.key")
