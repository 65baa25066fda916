"""Turns pixels into files: the forms in which a picture is delivered.

A file made here holds the pixels and nothing else: no metadata but what signing adds later.
"""

from __future__ import annotations

import io
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calotype.core.errors import InternalError, NotFound

Form = Literal["png", "webp"]
FORMS: tuple[str, ...] = get_args(Form)

# PNG keeps every pixel, so it is the one to make pictures again from and to compare. Level 1 takes
# 0.6 of the time of Pillow's default for 1.13 of the bytes (1024 x 1024, gradient with noise).
PNG_LEVEL = 1
# WebP is for showing. Up to this size lossless costs little, and quality 90 blurs small shapes.
WEBP_LOSSLESS_PX_MAX = 128 * 128
WEBP_QUALITY = 90


def encode(pixels: NDArray[np.uint8], form: str) -> bytes:
    """Encode height x width x 3 RGB bytes as "png" or "webp". The same pixels, the same bytes.

    Raises NotFound for another form, InternalError if the array isn't such a picture.
    """
    media_type(form)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InternalError(f"not an RGB picture: {pixels.dtype} {pixels.shape}")
    options: dict[str, Any] = {"compress_level": PNG_LEVEL}
    if form == "webp":
        lossless = pixels.shape[0] * pixels.shape[1] <= WEBP_LOSSLESS_PX_MAX
        options = {"lossless": lossless, "quality": WEBP_QUALITY, "method": 4}
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def media_type(form: str) -> str:
    """The Content-Type of a form; raise NotFound if there is no such form."""
    if form not in FORMS:
        raise NotFound(f"pictures don't come as {form!r}", field="form", limit=list(FORMS))
    return f"image/{form}"
