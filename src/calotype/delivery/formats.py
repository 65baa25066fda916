"""Turns pixels into files: the forms in which a picture is delivered, and which of them is wanted.

A file made here holds the pixels, and the XMP packet that it is given; signing adds its claim.
"""

from __future__ import annotations

import io
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from calotype.core.errors import CallerError, InternalError, NotFound

Form = Literal["webp", "avif", "jpeg", "png"]
FORMS: tuple[str, ...] = get_args(Form)  # in the order in which one is chosen, all else being equal
MADE_AT_ONCE = ("png", "webp")  # the others are made of the PNG when somebody asks for them

# PNG keeps every pixel, so it is the one to make pictures again from and to compare. Level 1 takes
# 0.6 of the time of Pillow's default for 1.13 of the bytes (1024 x 1024, gradient with noise).
PNG_LEVEL = 1
# WebP is for showing. Up to this size lossless costs little, and quality 90 blurs small shapes.
LOSSLESS_PX_MAX = 128 * 128
WEBP_QUALITY = 90
JPEG_QUALITY = 90  # with all colours kept: halved, red edges fray
AVIF_QUALITY = 80
AVIF_SPEED = 7  # of 10; on one thread, since the same pixels have to give the same bytes

_PNG_XMP = "XML:com.adobe.xmp"  # the iTXt chunk's keyword (XMP specification, part 3)


class NotAcceptable(CallerError):
    """No form of the picture is one that the caller accepts."""

    kind = "not-acceptable"
    title = "The picture comes in no form that you accept"
    status = 406


def encode(pixels: NDArray[np.uint8], form: str, *, xmp: bytes | None = None) -> bytes:
    """Encode height x width x 3 RGB bytes in one of FORMS. The same pixels, the same bytes.

    Raises NotFound for another form, InternalError if the array isn't such a picture.
    """
    media_type(form)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InternalError(f"not an RGB picture: {pixels.dtype} {pixels.shape}")
    is_small = pixels.shape[0] * pixels.shape[1] <= LOSSLESS_PX_MAX
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **_options(form, xmp, is_small=is_small))
    return file.getvalue()


def resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The picture with a longer side of ``side`` pixels; never larger than it is."""
    height, width, _ = pixels.shape
    by = side / max(height, width)
    if by >= 1:
        return pixels
    size = (max(1, round(width * by)), max(1, round(height * by)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def media_type(form: str) -> str:
    """The Content-Type of a form; raise NotFound if there is no such form."""
    if form not in FORMS:
        raise NotFound(f"pictures don't come as {form!r}", field="form", limit=list(FORMS))
    return f"image/{form}"


def wanted(accept: str) -> str:
    """The form that an Accept header (RFC 9110, section 12.5.1) likes best; WebP of equals.

    Raises NotAcceptable if it accepts none.
    """
    ranges = [_range(each) for each in accept.split(",") if each.strip()] or [("*/*", 1.0)]
    liked = {form: _quality(media_type(form), ranges) for form in FORMS}
    best = max(FORMS, key=lambda form: liked[form])  # the first of equals
    if liked[best] <= 0:
        limit = [media_type(form) for form in FORMS]
        raise NotAcceptable("the picture can't be had as that", field="Accept", limit=limit)
    return best


def _range(text: str) -> tuple[str, float]:
    """A media range and its quality, 0..1; what can't be read as a quality counts as none."""
    kind, *parameters = [part.strip().lower() for part in text.split(";")]
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return kind, min(max(float(value), 0.0), 1.0)
            except ValueError:
                return kind, 0.0
    return kind, 1.0


def _quality(kind: str, ranges: list[tuple[str, float]]) -> float:
    """What the most specific range that has it says."""
    for named in (kind, "image/*", "*/*"):
        found = [quality for each, quality in ranges if each == named]
        if found:
            return max(found)
    return 0.0


def _options(form: str, xmp: bytes | None, *, is_small: bool) -> dict[str, Any]:
    if form == "png":
        text = PngImagePlugin.PngInfo()
        if xmp is not None:  # Pillow passes over ``xmp=`` here
            text.add_itxt(_PNG_XMP, xmp.decode())
        return {"compress_level": PNG_LEVEL, "pnginfo": text}
    of_form: dict[str, dict[str, Any]] = {
        "webp": {"lossless": is_small, "quality": WEBP_QUALITY, "method": 4},
        "jpeg": {"quality": JPEG_QUALITY, "subsampling": 0, "progressive": True},
        "avif": {
            "quality": AVIF_QUALITY,
            "speed": AVIF_SPEED,
            "subsampling": "4:4:4",
            "max_threads": 1,
        },
    }
    return of_form[form] | ({} if xmp is None else {"xmp": xmp})
