"""What a check is proven on before it may judge: a harmless picture, and one of nothing at all.

Both are made here, always the same, and so are the prompts and embeddings for checks that read.
What a check says of them isn't judged: it may find fault with any picture. That it answers, whole,
is what has to be shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from calotype.core.picture_checks import HEAD_FILE, CheckKind, CheckUse
from calotype.engine.checks.base import CheckBroken, Picture
from calotype.engine.checks.recogniser import Ending, encoders_of

SIDE = 256  # pixels
PROMPTS = ("A red tent on a meadow by a lake, at dawn", "vlorp 7731 -- ❄ zq, zq, zq")
_SEED = 2026


def canaries(use: CheckUse) -> Sequence[Any]:
    """What a check of this kind is given; raises CheckBroken where its files don't say."""
    if use.kind == CheckKind.TEXT:
        return PROMPTS
    if use.kind == CheckKind.RECOGNISER:
        return _endings(use)
    return (landscape(), noise())


def landscape() -> Picture:
    """A sky that gets lighter, a sun, a hill: SIDE x SIDE x 3."""
    down, across = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    sky = np.stack([90 + 120 * down, 140 + 80 * down, 230 - 20 * down], axis=-1)
    is_sun = (down - 0.25) ** 2 + (across - 0.7) ** 2 < 0.01
    is_hill = down > 0.65 + 0.1 * np.sin(6 * across)
    sky[is_sun] = (250, 220, 120)
    sky[is_hill] = (70, 130, 60)
    return sky.astype(np.uint8)


def noise() -> Picture:
    """What no model draws: SIDE x SIDE x 3."""
    return np.random.default_rng(_SEED).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def _endings(use: CheckUse) -> list[Ending]:
    """Embeddings of its own width, as if of the encoders that it names."""
    file = Path(use.path) / HEAD_FILE
    try:
        with safe_open(file, "pt") as head:
            _, width = head.get_slice("head.weight").get_shape()
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckBroken(f"{file} has no layer: {error}"[:500], field="path") from error
    made = np.random.default_rng(_SEED).standard_normal((2, width)).astype(np.float32)
    return [Ending(torch.from_numpy(row), encoders_of(use)) for row in made]
