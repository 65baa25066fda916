"""Reads the pictures that people send, and brings them to a job's size.

Nothing is decoded before the file's header said how large it will be. What is kept holds the pixels
and nothing else: upright, RGB, without metadata. It knows nothing of who sent a picture.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from calotype.core import limits
from calotype.core.errors import InvalidInput

FORMATS = ("PNG", "JPEG", "WEBP")
DELIVERED = (*FORMATS, "AVIF")  # what is looked at, to tell where it came from
MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
FIELD = "picture"  # what errors name
_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")  # 8 bits of grey or colour


def read(
    data: bytes, *, is_kept: bool = False, formats: Sequence[str] = FORMATS
) -> NDArray[np.uint8]:
    """The file's pixels as they are seen, height x width x 3 RGB.

    ``is_kept``: a file of ours, which may have more bytes than one that was sent. Raises
    InvalidInput for another format, a size that may not be, several frames, transparent parts, or
    a file that can't be read to its end.
    """
    if len(data) > limits.PICTURE_BYTES_MAX and not is_kept:
        most = limits.PICTURE_BYTES_MAX
        raise _invalid(f"the picture has {len(data):,} bytes; {most:,} are allowed", most)
    with _open(data, formats) as opened:
        _check(opened)
        try:
            upright = ImageOps.exif_transpose(opened)
            return np.asarray(_opaque(upright).convert("RGB"), np.uint8)
        except InvalidInput:
            raise
        except Exception as error:  # whatever a decoder raises of a file, it is the file's fault
            raise _invalid(f"the picture is damaged: {error}", list(FORMATS)) from error


def form_of(data: bytes) -> str:
    """The form of a picture that was read before: "png", "jpeg" or "webp"."""
    with _open(data, FORMATS) as opened:
        return "jpeg" if opened.format == "MPO" else str(opened.format).lower()


def brought(pixels: NDArray[np.uint8], width: int, height: int, channels: int) -> bytes:
    """Raw bytes, height x width x channels (3: RGB, 1: grey), in this size.

    Resampled with Lanczos; what another shape has too much is cut off on both sides alike.
    """
    picture = Image.fromarray(pixels)
    if channels == 1:
        picture = picture.convert("L")
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return picture.tobytes()


def _open(data: bytes, formats: Sequence[str]) -> Image.Image:
    """Read the header only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is stricter
            return Image.open(io.BytesIO(data), formats=tuple(formats))
    except Image.DecompressionBombError as error:
        raise _too_large(str(error)) from error
    except Exception as error:  # as above
        raise _invalid("the file isn't a PNG, JPEG or WebP picture", list(FORMATS)) from error


def _check(opened: Image.Image) -> None:
    width, height = opened.size
    if max(width, height) > limits.PICTURE_PX_MAX:
        raise _too_large(f"{width} x {height}")
    if min(width, height) < limits.PICTURE_PX_MIN:
        least = limits.PICTURE_PX_MIN
        raise _invalid(
            f"the picture is {width} x {height} pixels; each side needs {least}", {"min_px": least}
        )
    # MPO is what phones make of JPEG: the picture, and others for devices that know of them.
    if opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:
        raise _invalid("the picture moves: send one frame of it", {"frames": 1})
    if opened.mode not in _MODES:
        raise _invalid(
            f"the picture's colours are of the kind {opened.mode}: save it as 8-bit RGB",
            list(_MODES),
        )


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture, if all of it can be seen: on which ground it lies isn't ours to guess."""
    if picture.has_transparency_data:
        least = picture.convert("RGBA").getchannel("A").getextrema()[0]
        if least != 255:
            raise _invalid(
                "the picture has transparent parts: lay it on a ground first", "no transparency"
            )
        return picture.convert("RGBA")
    return picture


def _too_large(size: str) -> InvalidInput:
    most = limits.PICTURE_PX_MAX
    return _invalid(f"the picture is too large ({size}): {most:,} pixels a side", {"max_px": most})


def _invalid(detail: str, limit: object) -> InvalidInput:
    return InvalidInput(detail, field=FIELD, limit=limit)
