"""Train the ControlNet: vignette draws along given edges.

``python -m training.edges --minutes 30``. A ControlNet (Zhang et al. 2023, arXiv:2302.05543) is a
copy of the UNet's way down that reads an edge map beside the noisy latents and adds what it makes
of it to the frozen UNet, through convolutions that start at zero. The map is ``engine.canny`` of
the render, at thresholds that differ from picture to picture, as three equal channels of 0 and 1.
Two captions in five are withheld, so that edges alone are read too.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from calotype.engine.canny import HIGH, LOW, canny
from training import diffusion, finetune, loop, shapes
from training.dataset import Pictures

WITHOUT_TEXT = 0.4
BATCH = 24
NEW = "controlnet_"  # names of what is no copy of the UNet: it reads the map, and hands over
READER_S, READER_RATE, READER_BATCH = 100, 3e-3, 64
USUAL = 0.6  # share of maps at canny's own thresholds; the others are at half to twice of them
WIDTHS = (8, 16, 32, 64)  # of what reads the map, at 128, 64, 32 and 16 pixels a side
CONTROLNET = "controlnet"  # folder of the averaged weights, in runs


def edge_maps(pictures: Pictures, folder: Path) -> np.ndarray:
    """The edges of all pictures as bits: uint8 (n, 128, 16), read in place."""
    path = folder / f"edges-{len(pictures)}.npy"
    if not path.exists():
        print(f"finding the edges of {len(pictures)} pictures", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        shape = (len(pictures), shapes.PIXELS, shapes.PIXELS // 8)
        found = np.lib.format.open_memmap(beside, "w+", np.uint8, shape)
        for k in range(len(pictures)):
            rng = random.Random(f"edges {k}")
            scale = 1.0 if rng.random() < USUAL else 2 ** rng.uniform(-1, 1)
            found[k] = np.packbits(canny(pictures[k], scale * LOW, scale * HIGH) > 0, axis=-1)
        found.flush()
        beside.rename(path)
    read: np.ndarray = np.load(path, mmap_mode="r")
    return read


def condition(maps: np.ndarray) -> Tensor:
    """Edge maps (n, h, w), 0 for none, as a ControlNet reads them: (n, 3, h, w), 0..1."""
    return torch.from_numpy(maps > 0).float()[:, None].expand(-1, 3, -1, -1).contiguous()


class Edges:
    """The frozen UNet and the ControlNet that learns."""

    def __init__(self, parts: Path, folder: Path) -> None:
        self.folder = folder
        self.unet = UNet2DConditionModel.from_pretrained(parts / "unet")
        self.unet.requires_grad_(requires_grad=False)
        self.module = ControlNetModel.from_unet(
            self.unet, conditioning_embedding_out_channels=WIDTHS
        ).train()
        self.fresh = [
            weight for name, weight in self.module.named_parameters() if name.startswith(NEW)
        ]
        self.is_new = not (folder / "checkpoint.pt").exists()
        for net in (self.unet, self.module):
            net.set_attn_processor(AttnProcessor())
        pictures = Pictures()
        self.maps = edge_maps(pictures, folder)
        latents = diffusion.latents_of(pictures, parts, diffusion.RUNS / "unet")
        self.source = diffusion.Source(
            parts, latents, pictures.scenes(), batch=BATCH, without_text=WITHOUT_TEXT
        )
        self.kept = shapes.scheduler().alphas_cumprod
        if self.is_new:
            self._teach_reader()

    def _edges_of(self, chosen: list[int]) -> Tensor:
        bits = np.stack([self.maps[index] for index in chosen])
        return condition(np.unpackbits(bits, axis=-1))

    def _teach_reader(self) -> None:
        """Teach what reads the map to see in it what it can of the clean latents.

        It starts at zero in the paper, and hears nothing until the zero convolutions behind it
        have moved: the first thousands of steps are lost. This takes the place of those.
        """
        reader = self.module.controlnet_cond_embedding
        torch.nn.init.kaiming_normal_(reader.conv_out.weight, nonlinearity="linear")
        head = torch.nn.Conv2d(reader.conv_out.out_channels, shapes.LATENT_CHANNELS, 1)
        steps = torch.optim.AdamW([*reader.parameters(), *head.parameters()], lr=READER_RATE)
        rng = random.Random("reader")
        latents, started, mean = self.source.latents, time.monotonic(), 1.0
        while (spent_s := time.monotonic() - started) < READER_S:
            chosen = rng.sample(range(len(latents)), READER_BATCH)
            clean = torch.from_numpy(np.stack([latents[index] for index in chosen])).float()
            with torch.autocast("cpu", torch.bfloat16):
                found = head(reader(self._edges_of(chosen)))
            loss = (found.float() - clean).square().mean()
            loss.backward()
            for group in steps.param_groups:
                group["lr"] = READER_RATE * (1 - 0.9 * spent_s / READER_S)
            steps.step()
            steps.zero_grad()
            mean += 0.05 * (float(loss.detach()) - mean)
        print(f"the reader leaves {mean:.3f} of the latents' variance unexplained", flush=True)

    def loss(self, step: int) -> Tensor:
        """The error of v where the UNet is told of the edges."""
        batch = self.source.batch(step)
        edges = self._edges_of(batch.chosen)

        def controlled(latents: Tensor, levels: Tensor, tokens: Tensor, **more: object) -> Any:
            down, middle = self.module(latents, levels, tokens, edges, **more)
            found: Any = self.unet(
                latents,
                levels,
                tokens,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
                **more,
            )
            return found

        return diffusion.loss_of(controlled, batch, self.kept)

    def absorb(self, step: int) -> None:
        """Nothing depends on it."""

    def publish(self) -> None:
        """Write the averaged weights."""
        loop.save_part(self.module, self.folder / CONTROLNET)


def main() -> None:
    """Train from the command line."""
    parser = finetune.arguments(__doc__, "edges", minutes=30, peak=1e-3, optimiser="muon")
    told: argparse.Namespace = parser.parse_args()
    finetune.begin(told)
    finetune.Training(Edges(told.parts, told.folder), told).run()


if __name__ == "__main__":
    main()
