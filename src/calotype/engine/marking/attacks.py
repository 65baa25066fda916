"""What happens to pictures on their way, so that gradients come through: cut, scaled, saved again.

Pictures are (n, 3, h, w), float32, -1..1, and all of a batch are treated alike. Sides may change.
Mirroring isn't among them, nor where a picture was cut on the grid of BLOCK pixels over which marks
repeat, nor how large it was: who looks for a mark tries these (``provenance.stable_signature``). A
small reader that had to bear all places itself learnt a fraction of the bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import torch
from torch.nn import functional

from calotype.engine.marking.nets import BLOCK

Attack = Callable[[torch.Tensor, Random], torch.Tensor]

_STEP = 2  # pixels between the places on the grid that are tried

# The luminance and chrominance tables of ITU-T T.81, annex K.
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32,
)  # fmt: skip
_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def attacked(pictures: torch.Tensor, rng: Random) -> torch.Tensor:
    """Through one attack, drawn by ``rng``."""
    name = rng.choices([*ATTACKS], [weight for weight, _ in ATTACKS.values()])[0]
    return ATTACKS[name][1](pictures, rng)


def moved(pictures: torch.Tensor, rng: Random) -> torch.Tensor:
    """Cut at the left and above by less than the places that are tried are apart."""
    return pictures[..., rng.randrange(_STEP) :, rng.randrange(_STEP) :]


def as_stored(pictures: torch.Tensor) -> torch.Tensor:
    """Clipped and rounded to 256 levels; gradients come through as if they weren't rounded."""
    return _rounded((pictures.clamp(-1, 1) + 1) * 127.5) / 127.5 - 1


def jpeg(pictures: torch.Tensor, quality: int) -> torch.Tensor:
    """As saved with this quality (1..100) and half the colours each way, but for the file."""
    height, width = pictures.shape[2:]
    down, across = -height % 16, -width % 16
    padded = functional.pad(pictures, (0, across, 0, down), mode="replicate")
    matrix = torch.tensor(_TO_YCBCR, device=pictures.device)
    planes = torch.einsum("ij,njhw->nihw", matrix, (padded + 1) * 127.5 - 128)
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    light = _quantised(planes[:, :1], _table(_LUMINANCE, scale, pictures.device))
    colour = functional.avg_pool2d(planes[:, 1:], 2)
    colour = _quantised(colour, _table(_CHROMINANCE, scale, pictures.device))
    colour = functional.interpolate(colour, scale_factor=2, mode="bilinear")
    back = torch.linalg.inv(matrix)
    saved = torch.einsum("ij,njhw->nihw", back, torch.cat((light, colour), 1)) + 128
    return (saved[..., :height, :width] / 127.5 - 1).clamp(-1, 1)


def _table(values: tuple[int, ...], scale: float, device: torch.device) -> torch.Tensor:
    table = torch.tensor(values, dtype=torch.float32, device=device).view(8, 8)
    return ((table * scale + 50) / 100).floor().clamp(1, 255)


def _cosines(device: torch.device) -> torch.Tensor:
    """The 8 x 8 matrix of the orthonormal discrete cosine transform (type II)."""
    k = torch.arange(8, dtype=torch.float32, device=device)
    matrix = torch.cos(math.pi / 8 * k[:, None] * (k[None] + 0.5)) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _quantised(planes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Planes (n, c, h, w), h and w multiples of 8, through the transform and back."""
    count, channels, height, width = planes.shape
    cosines = _cosines(planes.device)
    blocks = planes.reshape(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    waves = cosines @ blocks @ cosines.T
    waves = _rounded(waves / table) * table
    blocks = cosines.T @ waves @ cosines
    return blocks.transpose(3, 4).reshape(planes.shape)


def _rounded(values: torch.Tensor) -> torch.Tensor:
    return values + (values.round() - values).detach()


def _saved(pictures: torch.Tensor, rng: Random) -> torch.Tensor:
    return jpeg(pictures, rng.randint(40, 95))


def _cut(pictures: torch.Tensor, rng: Random) -> torch.Tensor:
    """Keep 30 to 90 % of the area, from anywhere on the grid."""
    share = math.sqrt(rng.uniform(0.3, 0.9))
    sides = [min(side, max(32, int(side * share))) for side in pictures.shape[2:]]
    room = (pictures.shape[2 + k] - side for k, side in enumerate(sides))
    top, left = (rng.randint(0, each // BLOCK) * BLOCK for each in room)
    return pictures[..., top : top + sides[0], left : left + sides[1]]


def _scaled(pictures: torch.Tensor, rng: Random) -> torch.Tensor:
    """To another size, and back."""
    by = math.exp(rng.uniform(math.log(0.5), math.log(1.5)))
    size = [max(32, round(side * by)) for side in pictures.shape[2:]]
    scaled = functional.interpolate(pictures, size, mode="bilinear", antialias=True)
    back = pictures.shape[2:]
    return functional.interpolate(scaled, back, mode="bilinear", antialias=True)


def _blurred(pictures: torch.Tensor, rng: Random) -> torch.Tensor:
    deviation = rng.uniform(0.4, 1.2)  # pixels
    at = torch.arange(-3, 4, dtype=torch.float32, device=pictures.device)
    row = torch.exp(-(at**2) / (2 * deviation**2))
    row = (row / row.sum()).expand(3, 1, 1, 7)
    padded = functional.pad(pictures, (3, 3, 3, 3), mode="reflect")
    return functional.conv2d(functional.conv2d(padded, row, groups=3), row.mT, groups=3)


def _noisy(pictures: torch.Tensor, rng: Random) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    noise = torch.randn(pictures.shape, generator=generator).to(pictures.device)
    return (pictures + noise * rng.uniform(2, 10) / 127.5).clamp(-1, 1)


def _lit(pictures: torch.Tensor, rng: Random) -> torch.Tensor:
    return ((pictures + 1) * rng.uniform(0.7, 1.4) - 1).clamp(-1, 1)


ATTACKS: dict[str, tuple[float, Attack]] = {  # with how often each is drawn
    "none": (2, lambda pictures, rng: pictures),
    "jpeg": (5, _saved),
    "cut": (1, _cut),
    "scaled": (2, _scaled),
    "blurred": (1, _blurred),
    "noisy": (1, _noisy),
    "lit": (1, _lit),
}
