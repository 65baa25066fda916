"""Pictures for tests: files to send, and what can't be one."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from training.dataset import scene_at
from training.render import render


def picture(width: int = 96, height: int = 64, seed: int = 1) -> Image.Image:
    """Coarse colours by chance, so that a resized one is still the same to look at."""
    grid = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)


def scene(width: int = 128, height: int = 128, seed: int = 1) -> Image.Image:
    """A picture of what vignette draws: what it makes of others isn't delivered."""
    drawn = render(scene_at("train", seed), 128)
    return Image.fromarray(drawn).resize((width, height), Image.Resampling.BICUBIC)


def mask(width: int = 96, height: int = 64) -> Image.Image:
    """White on the right."""
    drawn = Image.new("L", (width, height), 0)
    drawn.paste(255, (width // 2, 0, width, height))
    return drawn


def file_of(image: Image.Image, form: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
