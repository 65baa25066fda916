"""Pictures that people send: read whole and upright, or refused with the limit."""

from __future__ import annotations

import contextlib
import resource
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.delivery.formats import encode
from calotype.delivery.inputs import brought, read
from tests.pictures import file_of, mask, picture, png_header

TURNED = 6  # EXIF: the camera was held upright


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_each_format_is_read_as_it_is_seen(form: str) -> None:
    seen = read(file_of(picture(), form))
    assert seen.shape == (64, 96, 3)
    assert np.abs(seen.astype(int) - np.asarray(picture()).astype(int)).mean() < 12


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA"])
def test_other_kinds_of_colour_become_rgb(mode: str) -> None:
    assert read(file_of(picture().convert(mode))).shape == (64, 96, 3)


def test_a_turned_photo_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = TURNED
    seen = read(file_of(picture(), "jpeg", exif=exif, quality=95))
    upright = np.asarray(picture().transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(seen.astype(int) - upright).mean() < 6


def test_a_picture_of_absurd_size_is_refused_from_its_header() -> None:
    for side in (limits.PICTURE_PX_MAX + 1, 12_000, 20_000):
        with pytest.raises(InvalidInput, match="too large") as refused:
            read(png_header(side, side))
        assert refused.value.limit == {"max_px": limits.PICTURE_PX_MAX}


def transparent() -> bytes:
    ground = picture().convert("RGBA")
    ground.putalpha(mask())
    return file_of(ground)


def moving(form: str = "webp") -> bytes:
    return file_of(picture(), form, save_all=True, append_images=[picture(seed=2)])


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk after its header."""
    whole, crc = file_of(picture()), zlib.crc32(kind + data)
    return (
        whole[:33]
        + struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", crc)
        + whole[33:]
    )


BOMB = zlib.compress(bytes(200 * 1024**2), 9)  # 200 KB


@pytest.mark.parametrize(
    "data",
    [with_chunk(b"zTXt", b"a\0\0" + BOMB), with_chunk(b"iCCP", b"a\0\0" + BOMB)],
    ids=["text", "profile"],
)
def test_what_unpacks_to_very_much_is_not_unpacked(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(InvalidInput):
        read(data)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 50 * 1024


@pytest.mark.parametrize(
    "data",
    [
        file_of(picture()) + b"PK\x03\x04 and so on",
        file_of(picture(), "jpeg") + b"<script>",
        b"".join((file_of(picture()), b"%PDF-1.7")),
        file_of(picture(), icc_profile=b"no profile" * 50),
    ],
    ids=["an archive", "a script", "a document", "a profile"],
)
def test_of_what_is_a_picture_and_something_else_only_the_picture_is_kept(data: bytes) -> None:
    pixels = read(data)
    assert np.abs(pixels.astype(int) - np.asarray(picture()).astype(int)).mean() < 12
    kept = encode(pixels, "png")
    for part in (b"PK\x03", b"<script>", b"%PDF", b"no profile", b"iCCP"):
        assert part not in kept


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "isn't a PNG"),
        (b"GIF89a" + b"\0" * 20, "isn't a PNG"),
        (file_of(picture(), "bmp"), "isn't a PNG"),
        (file_of(picture())[:200], "damaged"),
        (file_of(picture(8, 64)), "each side needs 16"),
        (file_of(picture().convert("CMYK"), "jpeg"), "CMYK"),
        (file_of(picture().convert("I;16")), "I;16"),
        (transparent(), "transparent"),
        (moving(), "moves"),
        (moving("png"), "moves"),
    ],
)
def test_what_can_not_be_taken_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refused:
        read(data)
    assert refused.value.field == "picture"
    assert refused.value.limit is not None


def test_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PICTURE_BYTES_MAX", 100)
    with pytest.raises(InvalidInput, match="bytes"):
        read(file_of(picture()))
    assert read(file_of(picture()), is_kept=True).shape == (64, 96, 3)


@pytest.mark.parametrize(("channels", "length"), [(3, 32 * 48 * 3), (1, 32 * 48)])
def test_a_row_gets_raw_bytes_of_its_size(channels: int, length: int) -> None:
    assert len(brought(np.asarray(picture()), 32, 48, channels)) == length


def test_its_own_size_changes_nothing() -> None:
    pixels: Any = np.asarray(picture())
    assert brought(pixels, 96, 64, 3) == pixels.tobytes()


def test_another_shape_loses_its_edges_and_is_not_stretched() -> None:
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, 32:96] = 255
    assert brought(pixels, 64, 64, 3) == bytes([255]) * (64 * 64 * 3)
