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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.nn import functional

from calotype.engine.canny import HIGH, LOW, canny
from training import diffusion, finetune, loop, shapes
from training.dataset import Pictures

WITHOUT_TEXT = 0.4
BATCH = 24
NEW = "controlnet_"  # names of what is no copy of the UNet: it reads the map, and hands over
READER_PICTURES = 2000  # that its end is fitted to
BRIGHT = 4.0  # what an edge's pixel is to the reader: SiLU leaves it nearly as it is
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
            self._prepare_reader()

    def _edges_of(self, chosen: list[int]) -> Tensor:
        bits = np.stack([self.maps[index] for index in chosen])
        return condition(np.unpackbits(bits, axis=-1))

    @torch.no_grad()
    def _prepare_reader(self) -> None:
        """Let what reads the map start as a lossless one that says what it can of clean latents.

        In the paper it starts at random and ends in zeros, and hears nothing until the zero
        convolutions behind it have moved: on two cores that is most of the time there is. Here
        each stage begins by handing a square's pixels on as channels, so that the last has the 64
        pixels behind each latent, and its end by least squares: the latents that these bits and
        those around them tell of, as the UNet's first layer would see them.
        """
        reader = self.module.controlnet_cond_embedding
        for layer in (reader.conv_in, *reader.blocks):
            layer.weight.mul_(0.1)  # the channels that have no pixel yet
            layer.bias.zero_()
        reader.conv_in.weight[0] = 0
        reader.conv_in.weight[0, :, 1, 1] = BRIGHT / 3
        channels = 1
        for flat, halving in zip(reader.blocks[::2], reader.blocks[1::2], strict=True):
            flat.weight[:channels] = 0
            halving.weight[: 4 * channels] = 0
            for channel in range(channels):
                flat.weight[channel, channel, 1, 1] = 1
                for k, (row, column) in enumerate(((1, 1), (1, 2), (2, 1), (2, 2))):
                    halving.weight[4 * channel + k, channel, row, column] = 1
            channels *= 4
        latents = self.source.latents
        ends = _least_squares(reader, self._edges_of, latents, READER_PICTURES)
        weight, bias = ends  # (12, 64, 3, 3), (12,)
        seen = self.unet.conv_in.weight.sum((2, 3))  # (80, 12)
        reader.conv_out.weight.copy_(torch.einsum("oc,cihw->oihw", seen, weight))
        reader.conv_out.bias.copy_(seen @ bias)

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


def _least_squares(
    reader: Any, edges_of: Callable[[list[int]], Tensor], latents: np.ndarray, count: int
) -> tuple[Tensor, Tensor]:
    """The 3 x 3 convolution from what the reader sees to the latents: (12, 64, 3, 3), (12,)."""
    width = WIDTHS[-1] * 9 + 1
    gram, cross = torch.zeros(width, width), torch.zeros(width, shapes.LATENT_CHANNELS)
    total, cells = torch.zeros(()), 0
    for first in range(0, count, 50):
        chosen = list(range(first, first + 50))
        found = functional.silu(reader.conv_in(edges_of(chosen)))
        for block in reader.blocks:
            found = functional.silu(block(found))
        rows = functional.unfold(found, 3, padding=1).transpose(1, 2).flatten(0, 1)
        rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        clean = torch.from_numpy(np.stack([latents[k] for k in chosen])).float()
        wanted = clean.flatten(2).transpose(1, 2).flatten(0, 1)
        gram += rows.T @ rows
        cross += rows.T @ wanted
        total += wanted.square().sum()
        cells += len(rows)
    gram += 1e-3 * cells / 50 * torch.eye(width)
    answer = torch.linalg.solve(gram.double(), cross.double()).float()
    told = (answer * cross).sum() / total
    print(f"edges tell {told:.1%} of the latents, by least squares", flush=True)
    kernel = answer[:-1].T.reshape(shapes.LATENT_CHANNELS, WIDTHS[-1], 3, 3)
    return kernel, answer[-1]


def main() -> None:
    """Train from the command line."""
    parser = finetune.arguments(__doc__, "edges", minutes=30, peak=1e-3, optimiser="muon")
    told: argparse.Namespace = parser.parse_args()
    finetune.begin(told)
    finetune.Training(Edges(told.parts, told.folder), told).run()


if __name__ == "__main__":
    main()
