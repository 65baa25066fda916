"""Pictures that come with a row: its source, its mask, what guides its ControlNets.

They are already of the row's size: resizing a picture is its sender's part, who knows what it is
for. It knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from calotype.core import limits
from calotype.core.errors import InternalError, InvalidInput
from calotype.core.messages import RowPicture, RunRow
from calotype.engine.canny import canny

MAY_CHANGE = 128  # of 255: from this grey on a mask is white, as diffusers' pipelines round it


def pictures_of(command: RunRow, blob: bytes) -> list[torch.Tensor]:
    """The row's pictures, each uint8 (height, width, channels), out of its frame's bytes.

    Behind them, if it has any, what another engine had done of it: uint8 (bytes,).

    Raises InvalidInput for too many, or one of another size than the row's; InternalError if the
    bytes aren't as many as the pictures need, or a picture is asked for that isn't there.
    """
    _check(command)
    shapes: list[tuple[int, ...]] = [(it.height, it.width, it.channels) for it in command.pictures]
    if command.parked_bytes:
        shapes.append((command.parked_bytes,))
    sizes = [math.prod(shape) for shape in shapes]
    if sum(sizes) != len(blob):
        raise InternalError(f"{len(blob)} bytes of pictures came, not {sum(sizes)}")
    if not sizes:
        return []
    parts = torch.frombuffer(bytearray(blob), dtype=torch.uint8).split(sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def signal(picture: torch.Tensor) -> torch.Tensor:
    """(height, width, 3) uint8 as an autoencoder wants it: (1, 3, height, width) in -1..1."""
    return unit(picture) * 2 - 1


def unit(picture: torch.Tensor) -> torch.Tensor:
    """(height, width, channels) uint8 as float32 (1, channels, height, width) in 0..1."""
    return picture.movedim(-1, 0)[None].float() / 255


def mask_of(picture: torch.Tensor) -> torch.Tensor:
    """A mask (height, width, 1) uint8 as float32 (1, 1, height, width): 1 may change, 0 not."""
    return (picture.movedim(-1, 0)[None] >= MAY_CHANGE).float()


def edges(picture: torch.Tensor) -> torch.Tensor:
    """Canny's edges of (height, width, 3) uint8: as much, white on black."""
    found = torch.from_numpy(canny(picture.numpy()))
    return found[..., None].expand(*found.shape, 3)


def _check(command: RunRow) -> None:
    """Before a byte is looked at: what a frame says of its pictures must make sense."""
    if len(command.pictures) > limits.PICTURES_PER_ROW_MAX:
        raise InvalidInput(
            f"{len(command.pictures)} pictures are too many",
            field="pictures",
            limit=limits.PICTURES_PER_ROW_MAX,
        )
    if command.mask is not None and command.source is None:
        raise InvalidInput("a mask needs a picture to lie over", field="mask")
    for field, picture, channels in _roles(command):
        if picture.channels != channels:
            detail = f"{field} has {picture.channels} channels, not {channels}"
            raise InvalidInput(detail, field=field, limit=channels)
        if (picture.width, picture.height) != (command.width, command.height):
            raise InvalidInput(
                f"{field} is {picture.width} x {picture.height} pixels, "
                f"the picture to make {command.width} x {command.height}",
                field=field,
                limit=[command.width, command.height],
            )


def _roles(command: RunRow) -> Iterator[tuple[str, RowPicture, int]]:
    """Each picture that is used: for what, which one, and the channels it must have."""
    wanted = [("source", command.source, 3), ("mask", command.mask, 1)]
    wanted += [("controls", control.picture, 3) for control in command.controls]
    for field, index, channels in wanted:
        if index is None:
            continue
        if not 0 <= index < len(command.pictures):
            raise InternalError(f"{field} is picture {index} of {len(command.pictures)}")
        yield field, command.pictures[index], channels
