"""What the judge learns from: renders of its own, and what may befall a picture.

It knows scenes and pixels, and nothing of the judge. ``training.classifier`` is the command.
"""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from rich.progress import track
from torch import Tensor

from training.autoencoder import to_floats
from training.captions import ATTRIBUTES
from training.dataset import SIDE, Pictures, scene_at, scene_to_line
from training.render import render
from training.scenes import COLOURS, OBJECTS, PLACES, Scene

SHARD = 500  # renders in a file
BATCH = 64
SHIFT = 5  # pixels, at most
IGNORED = -100  # the colour and place of an object that is not there


def render_all(count: int, folder: Path) -> None:
    """Render what is missing of the first ``count`` pictures into shards of ``folder``/renders.

    One process, since other work may need the cores. Shards are as ``training.dataset`` has them.
    """
    (folder / "renders").mkdir(parents=True, exist_ok=True)
    for first in track(range(0, count, SHARD), "rendering for the classifier"):
        path = folder / "renders" / f"{first // SHARD:05}.npy"
        if path.exists():
            continue
        scenes = [scene_at("classifier", first + k) for k in range(SHARD)]
        pictures = np.stack([render(scene, SIDE) for scene in scenes])
        lines = "\n".join(scene_to_line(scene) for scene in scenes)
        path.with_suffix(".jsonl").write_text(lines + "\n")
        with path.with_suffix(".part").open("wb") as file:
            np.save(file, pictures)
        path.with_suffix(".part").rename(path)  # last: a shard with this name is whole


def targets(scene: Scene, *, is_mirrored: bool = False) -> list[list[int]]:
    """Classes of a scene, or of its mirror image: five of the setting, then three of each kind."""
    found = [[classes.index(getattr(scene, name))] for name, classes in ATTRIBUTES.items()]
    things = {thing.kind: thing for thing in scene.things}
    for kind in OBJECTS:
        thing = things.get(kind)
        if thing is None:
            found.append([0, IGNORED, IGNORED])
            continue
        place = PLACES.index(thing.place)
        place = len(PLACES) - 1 - place if is_mirrored else place
        found.append([1, COLOURS.index(thing.colour), place])
    return found


def roughen(picture: np.ndarray, rng: random.Random) -> np.ndarray:
    """A picture, uint8 (128, 128, 3), as a lesser painter or a lossy file might have it."""
    down, across = (rng.randint(0, 2 * SHIFT) for _ in range(2))
    padded = np.pad(picture, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), "edge")
    image = Image.fromarray(padded[down : down + SIDE, across : across + SIDE])
    softness = rng.random()
    if softness < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    elif softness < 0.5:
        small = round(SIDE / rng.uniform(1.2, 2.4))
        image = image.resize((small, small), Image.Resampling.BOX)
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if rng.random() < 0.3:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=rng.randint(25, 90))
        image = Image.open(file)
    return np.asarray(image)


class Lessons:
    """Batches of roughened renders, half of them mirrored, with what there is to read."""

    def __init__(self, folder: Path) -> None:
        self.pictures = Pictures("renders", folder)
        scenes = self.pictures.scenes()
        self.wanted = [
            [[number for reading in targets(scene, is_mirrored=mirrored) for number in reading]
             for scene in scenes]
            for mirrored in (False, True)
        ]  # fmt: skip

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Pictures as ``Judge`` takes them, and their targets; the same at this step always."""
        rng = random.Random(f"classifier {step}")
        chosen = rng.sample(range(len(self.pictures)), BATCH)
        mirrored = [rng.random() < 0.5 for _ in chosen]
        rough = np.stack(
            [
                roughen(self.pictures[k][:, ::-1] if mirror else self.pictures[k], rng)
                for k, mirror in zip(chosen, mirrored, strict=True)
            ]
        )
        wanted = [self.wanted[mirror][k] for k, mirror in zip(chosen, mirrored, strict=True)]
        draws = torch.Generator().manual_seed(step)
        pictures = to_floats(rough)
        gains = 1 + 0.05 * torch.randn(BATCH, 3, 1, 1, generator=draws).clamp(-2, 2)
        offsets = 0.03 * torch.randn(BATCH, 1, 1, 1, generator=draws)
        grain = torch.rand(BATCH, 1, 1, 1, generator=draws) * 0.08
        pictures = pictures * gains + offsets
        pictures += grain * torch.randn(pictures.shape, generator=draws)
        return pictures.contiguous(memory_format=torch.channels_last), torch.tensor(wanted)
