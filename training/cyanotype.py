"""The cyanotype style: any picture as a print in Prussian blue on white paper.

What the style LoRA is trained on: our renders, redrawn by a few lines of arithmetic. Colours become
brightness, what is small and near is set off from what is around it, and brightness becomes a tone
between the blue and the paper. Hatching and chalk lines were tried first: the autoencoder, or an
adapter of a low rank, made mud of them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

BLUE = np.array([12, 30, 84], np.float32)
MIDDLE = np.array([62, 118, 190], np.float32)
PAPER = np.array([246, 248, 244], np.float32)
AROUND_PX = 10  # the deviation of the Gaussian that tells what is around
GAIN = 0.9  # how much more of a difference to it there is
_COLOURS = np.array(
    [0.42, 0.46, 0.12], np.float32
)  # red is brighter than to the eye, greens darker


def cyanotype(rgb: np.ndarray) -> np.ndarray:
    """``rgb`` as a cyanotype: uint8 (h, w, 3) to the same."""
    grey = rgb @ _COLOURS / 255
    image = Image.fromarray(np.rint(255 * grey).astype(np.uint8))
    around = np.asarray(image.filter(ImageFilter.GaussianBlur(AROUND_PX)), np.float32) / 255
    share = np.clip(grey + GAIN * (grey - around), 0, 1)
    drawn: np.ndarray = np.rint(coloured((share**1.15)[..., None])).astype(np.uint8)
    return drawn


def coloured(share: np.ndarray) -> np.ndarray:
    """The colour of each share, (..., 1) in 0..1: from the blue over the middle to the paper."""
    deep = BLUE + (MIDDLE - BLUE) * np.minimum(1, 2 * share)
    found: np.ndarray = deep + (PAPER - MIDDLE) * np.maximum(0, 2 * share - 1)
    return found
