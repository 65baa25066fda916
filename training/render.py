"""Draw a scene: ``render(scene)`` is the whole of the training data's origin.

``python -m training.render FILE.png`` shows 64 random scenes in a grid.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.art.canvas import Canvas
from training.art.land import paint_land
from training.art.sky import paint_sky
from training.art.things import paint_things
from training.art.weather import paint_weather
from training.scenes import Scene, sample_scene

Picture = NDArray[np.uint8]  # (height, width, 3), sRGB


def render(scene: Scene, size: int = 128) -> Picture:
    """Paint a scene, ``size`` pixels a side; the same scene gives the same pixels."""
    rng = np.random.default_rng(scene.seed)
    canvas = Canvas(size)
    paint_sky(canvas, scene, rng)
    paint_land(canvas, scene, rng)
    paint_things(canvas, scene, rng)
    paint_weather(canvas, scene, rng)
    return (np.clip(canvas.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def grid(pictures: list[Picture], columns: int, gap: int = 4) -> Image.Image:
    """Pictures of one size side by side, row by row, on white."""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        place = (gap + column * (width + gap), gap + row * (height + gap))
        sheet.paste(Image.fromarray(picture), place)
    return sheet


def main() -> None:
    """Show what the renderer can do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=64)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    pictures = [render(sample_scene(rng)) for _ in range(arguments.count)]
    grid(pictures, 8).save(arguments.file)


if __name__ == "__main__":
    main()
