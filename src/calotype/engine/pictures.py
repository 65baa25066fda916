"""Pictures that come with a row: its source, its mask, what guides its ControlNets."""

from __future__ import annotations

import math

import torch

from calotype.core.errors import InternalError
from calotype.core.messages import RunRow


def pictures_of(command: RunRow, blob: bytes) -> list[torch.Tensor]:
    """The row's pictures, each uint8 (height, width, channels), out of its frame's bytes.

    Raises InternalError if the bytes aren't as many as the pictures need.
    """
    shapes = [(it.height, it.width, it.channels) for it in command.pictures]
    sizes = [math.prod(shape) for shape in shapes]
    if sum(sizes) != len(blob):
        raise InternalError(f"{len(blob)} bytes of pictures came, not {sum(sizes)}")
    if not sizes:
        return []
    parts = torch.frombuffer(bytearray(blob), dtype=torch.uint8).split(sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
