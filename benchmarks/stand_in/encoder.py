"""The encoder that the picture check stands on: what CLIP is to an operator, in miniature.

A small ResNet of transformers' class that learns to read scenes off renders of its own, all things
in them alike. Neither the judge nor the model nor their pictures have a part in it.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from training import loop
from training.autoencoder import to_floats
from training.captions import ATTRIBUTES
from training.classifier import losses_of_kinds
from training.dataset import SIDE, scene_at
from training.lessons import roughen, targets
from training.optimisers import Optimiser
from training.render import render
from training.scenes import COLOURS, OBJECTS, PLACES, Scene

BATCH = 64
WIDTHS = (24, 48, 64, 80)  # of its stages; the last is that of its rows
_OF_KIND = 1 + len(COLOURS) + len(PLACES)  # logits: there, colour, place


def make(folder: Path, *, renders: int, steps: int, bar: Progress) -> None:
    """Train it on so many renders, and write it as an operator's encoder lies in a folder."""
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessorPil

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=16, hidden_sizes=list(WIDTHS), depths=[1, 1, 1, 1], layer_type="basic"
    )
    network: Any = ResNetModel(config)
    outputs = sum(map(len, ATTRIBUTES.values())) + len(OBJECTS) * _OF_KIND
    head = nn.Linear(WIDTHS[-1], outputs)
    whole = nn.ModuleList([network, head])
    scenes = [scene_at("stand-in encoder", at) for at in range(renders)]
    drawn = bar.add_task("rendering for the encoder", total=renders)
    pictures = []
    for scene in scenes:
        pictures.append(render(scene, SIDE))
        bar.advance(drawn)
    learnt = bar.add_task("teaching the encoder", total=steps)
    optimiser = Optimiser(whole, "adamw", decay=0.02)
    whole.train()
    for step in range(steps):
        shown, wanted = _batch(pictures, scenes, step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(network(shown).pooler_output.flatten(1))
        _loss(logits.float(), wanted).backward()
        optimiser.step(loop.rate((step + 1) / steps, step, peak=3e-3), clip=5.0)
        bar.advance(learnt)
    network.eval().save_pretrained(folder)
    ViTImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)


def _batch(
    pictures: list[NDArray[np.uint8]], scenes: list[Scene], step: int
) -> tuple[Tensor, Tensor]:
    """Roughened renders, half of them mirrored, with what there is to read; by the step alone."""
    rng = random.Random(f"stand-in {step}")  # noqa: S311 - has to come again
    chosen = rng.sample(range(len(pictures)), min(BATCH, len(pictures)))
    mirrored = [rng.random() < 0.5 for _ in chosen]
    rough = np.stack(
        [
            roughen(pictures[at][:, ::-1] if is_mirrored else pictures[at], rng)
            for at, is_mirrored in zip(chosen, mirrored, strict=True)
        ]
    )
    wanted = [
        [number for reading in targets(scenes[at], is_mirrored=it) for number in reading]
        for at, it in zip(chosen, mirrored, strict=True)
    ]
    return to_floats(rough), torch.tensor(wanted)


def _loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Of all readings together; ``wanted`` (n, 26) as ``targets`` has them."""
    sizes = [*map(len, ATTRIBUTES.values()), *([_OF_KIND] * len(OBJECTS))]
    parts = logits.split(sizes, dim=1)
    count = len(ATTRIBUTES)
    total = sum(
        (functional.cross_entropy(parts[at], wanted[:, at]) for at in range(count)),
        torch.zeros(()),
    )
    kinds = torch.stack(parts[count:], dim=1).flatten(0, 1)
    return total + losses_of_kinds(kinds, wanted[:, count:])
