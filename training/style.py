"""Train the style LoRA: what vignette draws, as a cyanotype.

``python -m training.style --minutes 10`` redraws renders with ``training.cyanotype``, encodes them
and teaches the LoRA to draw them from the same captions, which do not name the style: at a weight
of 0 the pictures are vignette's own, at 1 they are cyanotypes, between them they are between.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from training import diffusion, export, finetune, lowrank, preview, shapes
from training.autoencoder import to_floats
from training.cyanotype import cyanotype
from training.dataset import Pictures

RANK = 6
COUNT = 6000  # renders that are redrawn
BATCH = 48
ENCODED = 50  # at once


def latents_of(pictures: Pictures, parts: Path, folder: Path) -> np.ndarray:
    """The scaled latents of the first COUNT pictures as cyanotypes, fp16 (n, 12, 16, 16)."""
    path = folder / "latents.npy"
    if not path.exists():
        print(f"redrawing {COUNT} pictures", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        vae = AutoencoderTiny.from_pretrained(parts / "vae").to(memory_format=torch.channels_last)
        count = min(COUNT, len(pictures))
        shape = (count, shapes.LATENT_CHANNELS, shapes.LATENT_SIDE, shapes.LATENT_SIDE)
        found = np.empty(shape, np.float16)
        for first in range(0, count, ENCODED):
            rows = range(first, min(first + ENCODED, count))
            drawn = np.stack([cyanotype(pictures[k]) for k in rows])
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                latents = vae.encode(to_floats(drawn)).latents
            found[rows.start : rows.stop] = (latents.float() * vae.config.scaling_factor).half()
        beside = path.with_suffix(".part.npy")
        np.save(beside, found)
        beside.rename(path)
    read: np.ndarray = np.load(path, mmap_mode="r")
    return read


class Style:
    """Vignette with an adapter that learns cyanotypes."""

    def __init__(self, parts: Path, folder: Path) -> None:
        self.parts, self.folder = parts, folder
        self.fresh: list[torch.nn.Parameter] = []
        self.module = UNet2DConditionModel.from_pretrained(parts / "unet").train()
        self.module.set_attn_processor(AttnProcessor())
        lowrank.adapt(self.module, RANK)
        pictures = Pictures()
        latents = latents_of(pictures, parts, folder)
        self.source = diffusion.Source(parts, latents, pictures.scenes(), batch=BATCH)
        self.kept = shapes.scheduler().alphas_cumprod

    def loss(self, step: int) -> Tensor:
        """The error of v, as vignette itself was trained."""
        return diffusion.loss_of(self.module, self.source.batch(step), self.kept)

    def absorb(self, step: int) -> None:
        """Nothing depends on it."""

    def publish(self) -> None:
        """Write the LoRA, and draw with it."""
        lowrank.save(self.module, self.folder / "lora.safetensors")
        pipeline = export.pipeline(self.parts)
        lowrank.merge(pipeline.unet, self.folder / "lora.safetensors")
        preview.save_grid(
            preview.draw(pipeline, preview.fixed_captions()), self.folder / "sample.png"
        )


def main() -> None:
    """Train from the command line."""
    parser = finetune.arguments(__doc__, "style", minutes=10, peak=3e-3)
    told: argparse.Namespace = parser.parse_args()
    finetune.begin(told)
    finetune.Training(Style(told.parts, told.folder), told).run()


if __name__ == "__main__":
    main()
