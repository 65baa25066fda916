"""Grids of pictures, for eyes: what a trainer draws now, beside what it should.

``python -m training.preview FILE`` draws the 24 fixed captions with the parts as they are.
Pictures come from the real pipeline, not from a sampler of the trainer's own, so that what is seen
here is what the platform will draw.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from training import shapes
from training.dataset import scene_at

COLUMNS = 6
COUNT = 24  # six columns, four rows
GAP = 2  # pixels between pictures


def grid(pictures: np.ndarray, columns: int) -> Image.Image:
    """Pictures uint8 (n, h, w, 3), row by row in one."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        top, left = k // columns * (height + GAP), k % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = picture
    return Image.fromarray(sheet)


def save_grid(pictures: np.ndarray, path: Path, columns: int = COLUMNS) -> None:
    """Write a grid; a viewer never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    grid(pictures, columns).save(beside, "PNG")
    beside.replace(path)


def fixed_captions(count: int = COUNT) -> list[str]:
    """The same captions every time, of combinations that no trainer sees."""
    from training.captions import caption

    return [caption(scene_at("unseen", k), random.Random(k)) for k in range(count)]


def draw(
    pipeline: Any, captions: list[str], *, steps: int = 20, guidance: float = 3.0, rows: int = 12
) -> np.ndarray:
    """Draw each caption with its own seed, 0 and up: uint8 (n, 128, 128, 3)."""
    with torch.no_grad():
        pipeline.set_progress_bar_config(disable=True)
        drawn = []
        for first in range(0, len(captions), rows):
            wanted = captions[first : first + rows]
            seeds = [torch.Generator().manual_seed(first + k) for k in range(len(wanted))]
            with torch.autocast("cpu", torch.bfloat16):
                answer = pipeline(
                    wanted,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    height=shapes.PIXELS,
                    width=shapes.PIXELS,
                    generator=seeds,
                    output_type="np",
                )
            drawn.append(np.asarray(answer.images))
        pictures: np.ndarray = np.rint(255 * np.concatenate(drawn)).astype(np.uint8)
    return pictures


def main() -> None:
    """Draw the fixed captions with the parts as they are."""
    from training import export

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--parts", type=Path, default=export.PARTS)
    arguments = parser.parse_args()
    captions = fixed_captions()
    pictures = draw(
        export.pipeline(arguments.parts),
        captions,
        steps=arguments.steps,
        guidance=arguments.guidance,
    )
    save_grid(pictures, arguments.file)
    arguments.file.with_suffix(".txt").write_text("\n".join(captions) + "\n")


if __name__ == "__main__":
    main()
