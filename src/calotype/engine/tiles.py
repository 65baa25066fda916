"""Large pictures in overlapping tiles: an autoencoder's memory grows with the pixels it sees.

Tiles are all of one size and spread evenly, so none is a sliver that sees little of the picture.
Where two overlap one fades into the other; the outermost quarter of an overlap counts for nothing,
since a convolution at a tile's edge saw padding instead of the picture. It knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

TILE_PX = 1_024  # side of a tile, and of the largest picture that is done in one piece
OVERLAP = 0.25  # share of a tile that it has in common with the next
_DEAD = 0.25  # share of the overlap at a tile's edge that counts for nothing


def in_tiles(
    run: Callable[[torch.Tensor], torch.Tensor],
    whole: torch.Tensor,
    cells: tuple[int, int],
    tile: int,
) -> torch.Tensor:
    """``run`` on tiles of (1, c, h, w), put together to (1, c', h', w').

    ``cells``, (rows, columns), is what cuts may lie between, a latent each; ``tile`` is a tile's
    side in cells. What fits one tile is done in one piece. ``run`` may scale: both its input and
    its output are a whole number of pixels a cell.
    """
    high, wide = (min(tile, side) for side in cells)
    if (high, wide) == cells:
        return run(whole)
    step = whole.shape[-2] // cells[0]
    total = seen = torch.empty(0)
    for top in _starts(cells[0], high):
        for left in _starts(cells[1], wide):
            part = run(whole[..., _span(top, high, step), _span(left, wide, step)])
            out = part.shape[-2] // high
            if not total.numel():
                total = part.new_zeros(*part.shape[:2], cells[0] * out, cells[1] * out)
                seen = part.new_zeros(total.shape[-2:])
            down, across = _fade(top, high, cells[0], out), _fade(left, wide, cells[1], out)
            weight = torch.outer(down, across).to(part)
            place = (..., _span(top, high, out), _span(left, wide, out))
            total[place] += part * weight
            seen[place] += weight
    return total / seen


def _span(start: int, count: int, step: int) -> slice:
    return slice(start * step, (start + count) * step)


def _starts(side: int, tile: int) -> list[int]:
    """Where tiles begin, in cells: evenly, and at least OVERLAP in common."""
    if side <= tile:
        return [0]
    count = -(-(side - tile) // (tile - _overlap(tile))) + 1
    return [round(index * (side - tile) / (count - 1)) for index in range(count)]


def _overlap(tile: int) -> int:
    return max(1, int(tile * OVERLAP))


def _fade(start: int, tile: int, side: int, step: int) -> torch.Tensor:
    """A tile's weights along one axis, (tile * step,): 1, less towards an edge that isn't the
    picture's."""
    place = (torch.arange(tile * step) + 0.5) / step
    overlap = _overlap(tile)
    dead = overlap * _DEAD
    weights = torch.ones(tile * step)
    for distance, is_cut in ((place, start > 0), (tile - place, start + tile < side)):
        if is_cut:
            weights = weights * ((distance - dead) / (overlap - 2 * dead)).clamp(0, 1)
    return weights
