"""The pictures that a mark is trained on: a folder of files, or one array in a ``.npy`` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from calotype.core import limits
from calotype.core.errors import OperatorError

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
Pixels = NDArray[np.uint8]


def read(path: Path, side: int, most: int = limits.MARK_PICTURES_MAX) -> Pixels:
    """Pictures as uint8 (n, side, side, 3): of more than ``most``, some from all over.

    Others than squares are cut at the longer sides. Raises OperatorError where there are too few,
    or something can't be read.
    """
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r")
            if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
                raise _no_use(path, "it isn't an array of RGB pictures: n x h x w x 3, uint8")
            chosen = [Image.fromarray(array[k]) for k in _spread(path, len(array), most)]
        else:
            files = sorted(it for it in path.iterdir() if it.suffix.lower() in _ENDINGS)
            chosen = [_opened(files[k]) for k in _spread(path, len(files), most)]
    except (OSError, ValueError) as error:
        raise _no_use(path, str(error)) from error
    how = Image.Resampling.LANCZOS
    return np.stack([np.asarray(ImageOps.fit(it, (side, side), how)) for it in chosen])


def to_floats(pictures: Pixels, device: torch.device) -> torch.Tensor:
    """Pictures (n, h, w, 3) as float32 (n, 3, h, w) in -1..1, channels last."""
    tensor = torch.from_numpy(np.ascontiguousarray(pictures)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _opened(file: Path) -> Image.Image:
    with Image.open(file, formats=("PNG", "JPEG", "WEBP")) as picture:
        return picture.convert("RGB")


def _spread(path: Path, count: int, most: int) -> list[int]:
    if count < limits.MARK_PICTURES_MIN:
        raise _no_use(path, f"it has {count} pictures", limits.MARK_PICTURES_MIN)
    return [int(k) for k in np.linspace(0, count - 1, min(count, most))]


def _no_use(path: Path, why: str, limit: int | None = None) -> OperatorError:
    return OperatorError(f"{path} can't be learnt from: {why}", field="pictures", limit=limit)
