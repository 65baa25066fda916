"""A redrawn picture with its source's colours: fine detail from the one, coarse from the other.

Far from the sizes it has learnt, a model shifts colours even at weak strengths: the embedded one,
asked to redraw a picture at twice its size, paled a red sky at a strength of 0.05. What it draws
finely is good all the same. StableSR (Wang 2023) and others part the two as this does.
"""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

COARSE_PX = 16  # what is larger than this comes from the source


def coarse(picture: torch.Tensor) -> torch.Tensor:
    """Of (3, height, width), any floats: the means of squares of COARSE_PX, (3, h, w)."""
    size = [max(1, side // COARSE_PX) for side in picture.shape[-2:]]
    return interpolate(picture[None], size=size, mode="area")[0]


def recoloured(picture: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """``picture``, (3, height, width) in -1..1, with ``wanted`` for what is ``coarse`` in it."""
    change = interpolate((wanted - coarse(picture))[None], picture.shape[-2:], mode="bicubic")[0]
    return (picture + change).clamp(-1, 1)
