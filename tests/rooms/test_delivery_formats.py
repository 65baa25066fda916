"""The files that pictures are delivered as, and which form a caller likes."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from calotype.core.errors import InternalError, NotFound
from calotype.delivery.formats import (
    FORMS,
    NotAcceptable,
    encode,
    media_type,
    resized,
    wanted,
)


def pixels(height: int, width: int, seed: int = 3) -> NDArray[np.uint8]:
    """A smooth gradient with some noise, as photographs have."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=2)
    noise = np.random.default_rng(seed).normal(0, 4, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def decode(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


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


@pytest.mark.parametrize("form", FORMS)
def test_a_file_carries_the_xmp_that_it_is_given(form: str) -> None:
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>calotype</x:xmpmeta>"
    data = encode(pixels(40, 72), form, xmp=packet)
    with Image.open(io.BytesIO(data)) as image:
        told = image.info["xmp"]
        assert (told if isinstance(told, bytes) else told.encode()).rstrip(b"\0") == packet
        assert decode(data).shape == (40, 72, 3)


def test_a_smaller_picture_keeps_its_shape_and_none_is_made_larger() -> None:
    assert resized(pixels(300, 400), 128).shape == (96, 128, 3)
    assert resized(pixels(400, 300), 128).shape == (128, 96, 3)
    assert resized(pixels(40, 72), 128).shape == (40, 72, 3)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "webp"),
        ("*/*", "webp"),
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "webp"),
        ("image/avif, image/png;q=0.9", "avif"),
        ("image/webp;q=0.5, image/jpeg;q=0.9", "jpeg"),
        ("IMAGE/PNG", "png"),
        ("image/webp;q=0, image/*", "avif"),
        ("text/html, */*;q=0.1", "webp"),
        ("image/png;q=one, image/jpeg;q=0.1", "jpeg"),
    ],
)
def test_the_accept_header_chooses_the_form(accept: str, form: str) -> None:
    assert wanted(accept) == form


@pytest.mark.parametrize("accept", ["text/html", "image/gif", "*/*;q=0", "image/png;q=x"])
def test_a_form_that_nobody_makes_is_not_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        wanted(accept)


@given(st.text(max_size=60))
def test_no_accept_header_breaks_anything(accept: str) -> None:
    with contextlib.suppress(NotAcceptable):
        assert wanted(accept) in FORMS


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(NotFound):
        encode(pixels(8, 8), "gif")
    for wrong in (np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(InternalError):
            encode(wrong, "png")  # type: ignore[arg-type]
