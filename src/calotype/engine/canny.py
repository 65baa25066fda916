"""Edges of a picture, as the edge ControlNets want them: Canny's detector, in numpy.

J. Canny, "A Computational Approach to Edge Detection", IEEE PAMI 8(6), 1986, in four stages: a
Gaussian, Sobel's gradients, the thinning of ridges, and two thresholds joined by hysteresis.
A colour's edge counts even where brightness has none: of a pixel's three channels the one with the
steepest gradient speaks, so that a red roof stands out from an equally bright lawn.

The same function makes the maps a ControlNet is trained on and those it is asked with, so it has
no parameters but the thresholds. It knows nothing of models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# In units of Sobel's response: a step between two flat areas that differ by d (of 255) answers with
# 4d where it is sharp, about 3d after the Gaussian.
LOW = 50.0
HIGH = 120.0
_SIGMA_PX = 0.8  # of the Gaussian: small, since small pictures have fine lines
_RADIUS_PX = 3
# Where a gradient of this direction (0, 45, 90, 135 degrees) points to: rows, columns.
_AHEAD = ((0, 1), (1, 1), (1, 0), (1, -1))


def canny(rgb: NDArray[np.uint8], low: float = LOW, high: float = HIGH) -> NDArray[np.uint8]:
    """The edges of ``rgb``, (h, w, 3) in 0..255: uint8 (h, w), 255 on an edge and 0 elsewhere.

    Where the gradient is above ``high`` there is an edge; above ``low`` only where it is joined to
    one. Both are in 0..1443, the range of Sobel's response, and ``low`` is not above ``high``.
    Raises ValueError for another shape, type or order of thresholds.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or 0 in rgb.shape:
        raise ValueError(f"a picture is uint8 (h, w, 3), not {rgb.dtype} {rgb.shape}")
    if not 0 <= low <= high:
        raise ValueError(f"thresholds must be 0 <= low <= high, not {low} and {high}")
    across, down = _gradients(_blurred(rgb.transpose(2, 0, 1).astype(np.float32)))
    steepness = np.hypot(across, down)
    ridges = np.where(_is_ridge(steepness, across, down), steepness, 0)
    return np.where(_joined(ridges > low, ridges > high), 255, 0).astype(np.uint8)


def _blurred(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """A Gaussian over (3, h, w), edges repeated; same shape."""
    offsets = np.arange(-_RADIUS_PX, _RADIUS_PX + 1)
    weights = np.exp(-0.5 * (offsets / _SIGMA_PX) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    _, height, width = channels.shape
    around = _RADIUS_PX
    tall = np.pad(channels, ((0, 0), (around, around), (0, 0)), "edge")
    rows = sum(weight * tall[:, k : k + height] for k, weight in enumerate(weights))
    wide = np.pad(np.asarray(rows), ((0, 0), (0, 0), (around, around)), "edge")
    both = sum(weight * wide[:, :, k : k + width] for k, weight in enumerate(weights))
    return np.asarray(both, np.float32)


def _gradients(channels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sobel's responses across and down, (h, w) each, of the steepest of (3, h, w) channels."""
    framed = np.pad(channels, ((0, 0), (1, 1), (1, 1)), "edge")
    smooth_down = framed[:, :-2] + 2 * framed[:, 1:-1] + framed[:, 2:]
    across = smooth_down[:, :, 2:] - smooth_down[:, :, :-2]
    smooth_across = framed[:, :, :-2] + 2 * framed[:, :, 1:-1] + framed[:, :, 2:]
    down = smooth_across[:, 2:] - smooth_across[:, :-2]
    steepest = (across**2 + down**2).argmax(0)[None]
    return (
        np.take_along_axis(across, steepest, 0)[0],
        np.take_along_axis(down, steepest, 0)[0],
    )


def _is_ridge(
    steepness: NDArray[np.float32], across: NDArray[np.float32], down: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Where nothing is steeper along the gradient: (h, w). Of two equals the first stays."""
    height, width = steepness.shape
    framed = np.pad(steepness, 1)
    eighths = np.arctan2(down, across) * (4 / np.pi)
    direction = np.rint(eighths).astype(np.int8) % 4
    found = np.zeros(steepness.shape, bool)
    for k, (row, column) in enumerate(_AHEAD):
        ahead = framed[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        behind = framed[1 - row : 1 - row + height, 1 - column : 1 - column + width]
        found |= (direction == k) & (steepness >= ahead) & (steepness > behind)
    return found


def _joined(weak: NDArray[np.bool_], strong: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of ``weak`` that are joined to ``strong`` ones, sides and corners: (h, w) each.

    The front of a flood that starts at all strong pixels: each pixel is looked at once.
    """
    width = weak.shape[1] + 2
    left = np.pad(weak & ~strong, 1).ravel()  # not reached yet; the frame keeps neighbours inside
    reached = np.pad(strong, 1).ravel()
    around = np.array([row * width + column for row in (-1, 0, 1) for column in (-1, 0, 1)])
    front = np.flatnonzero(reached)
    while len(front):
        beside = (front[:, None] + around).ravel()
        front = np.unique(beside[left[beside]])
        left[front] = False
        reached[front] = True
    return reached.reshape(-1, width)[1:-1, 1:-1]
