"""Train the LCM-LoRA: four steps that draw what thirty do.

``python -m training.consistency --minutes 25``. Latent consistency distillation (Luo et al. 2023,
arXiv:2310.04378, as a LoRA arXiv:2311.05556). The student maps latents at any of 50 noise levels
straight to the clean end of their path: f(x, t) = c_skip(t) x + c_out(t) x0(x, t), where c_skip and
c_out make f the identity at the clean end. From a noised picture at level t, the teacher, vignette
with guidance 3, takes one step of DDIM to the next level; the student's answer at t should be
what a slow average of the student says there. So what is right near the clean end spreads, level
by level, to pure noise. The guidance is in the answers: the student is asked once a step.

Differences from the paper, for a small model and few minutes: guidance has one value, and the loss
is a pseudo-Huber (Song and Dhariwal 2023, arXiv:2310.14189).
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from diffusers import LCMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from training import diffusion, export, finetune, lowrank, preview, shapes
from training.dataset import Pictures

RANK = 8
GUIDANCE = 3.0  # of the teacher
LEVELS = 50  # of the teacher's solver: 19, 39 .. 999, as LCMScheduler has them
STRIDE = shapes.TRAIN_STEPS // LEVELS
SIGMA_DATA, TIME_SCALE = 0.5, 10.0  # LCMScheduler's
TARGET_DECAY = 0.95  # of the average that the student is compared with
HUBER = 0.03  # errors a good deal smaller are squared, larger ones counted once
BATCH = 40


def boundary(levels: Tensor) -> tuple[Tensor, Tensor]:
    """c_skip and c_out at these levels (n,), -1 being clean: (n, 1, 1, 1) each."""
    scaled = levels.clamp(min=0).view(-1, 1, 1, 1) * TIME_SCALE
    total = scaled**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, scaled / total.sqrt()


def huber(found: Tensor, wanted: Tensor) -> Tensor:
    """The pseudo-Huber distance, a mean over everything."""
    return ((found - wanted).square() + HUBER**2).sqrt().mean() - HUBER


class Noise:
    """Vignette's noise levels; level -1 is a clean picture."""

    def __init__(self) -> None:
        self.kept = torch.cat([shapes.scheduler().alphas_cumprod, torch.ones(1)])

    def scales(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """How much of the picture and of the noise there is: (n, 1, 1, 1) each."""
        kept = self.kept[levels].view(-1, 1, 1, 1)
        return kept.sqrt(), (1 - kept).sqrt()

    def split(self, latents: Tensor, v: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that v tells of; all (n, 12, 16, 16)."""
        alpha, sigma = self.scales(levels)
        return alpha * latents - sigma * v, sigma * latents + alpha * v


def velocity(unet: Any, latents: Tensor, levels: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
    """What a UNet answers, in fp32; ``levels`` below 0 are asked as 0."""
    times = torch.tensor([shapes.TIME_IDS] * len(latents), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found: Tensor = unet(
            latents,
            levels.clamp(min=0),
            tokens,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": times},
            return_dict=False,
        )[0]
    return found.float()


class Distillation:
    """The student, its teacher, and the slow average of the student."""

    def __init__(self, parts: Path, folder: Path) -> None:
        self.parts, self.folder = parts, folder
        self.fresh: list[torch.nn.Parameter] = []
        self.teacher = UNet2DConditionModel.from_pretrained(parts / "unet").eval()
        self.teacher.requires_grad_(requires_grad=False)
        self.slow = deepcopy(self.teacher)
        self.module = deepcopy(self.teacher)
        self.module.set_attn_processor(AttnProcessor())
        lowrank.adapt(self.module, RANK)
        pictures = Pictures()
        latents = diffusion.latents_of(pictures, parts, diffusion.RUNS / "unet")
        self.source = diffusion.Source(
            parts, latents, pictures.scenes(), batch=BATCH, without_text=0.0
        )
        self.noise = Noise()

    def _answer(self, unet: Any, latents: Tensor, levels: Tensor, told: list[Tensor]) -> Tensor:
        clean, _ = self.noise.split(latents, velocity(unet, latents, levels, *told), levels)
        skip, out = boundary(levels)
        return skip * latents + out * clean

    @torch.no_grad()
    def _stepped(self, latents: Tensor, levels: Tensor, told: list[Tensor]) -> Tensor:
        """One guided step of the teacher's DDIM, down one stride."""
        both = [torch.cat([torch.zeros_like(part), part]) for part in told]
        v = velocity(self.teacher, latents.repeat(2, 1, 1, 1), levels.repeat(2), *both)
        without, with_text = v.chunk(2)
        guided = without + GUIDANCE * (with_text - without)
        clean, noise = self.noise.split(latents, guided, levels)
        alpha, sigma = self.noise.scales(levels - STRIDE)
        return alpha * clean + sigma * noise

    def loss(self, step: int) -> Tensor:
        """How far the student is from its slow average one step of the teacher further on."""
        batch = self.source.batch(step)
        chance = torch.Generator().manual_seed(step)
        spread = (torch.arange(BATCH) + torch.rand(BATCH, generator=chance)) / BATCH
        levels = ((spread * LEVELS).long().clamp(max=LEVELS - 1) + 1) * STRIDE - 1
        alpha, sigma = self.noise.scales(levels)
        noisy = alpha * batch.clean + sigma * batch.noise
        told = [batch.tokens, batch.pooled]
        with torch.no_grad():
            nearer = self._stepped(noisy, levels, told)
            wanted = self._answer(self.slow, nearer, levels - STRIDE, told)
        return huber(self._answer(self.module, noisy, levels, told), wanted)

    @torch.no_grad()
    def absorb(self, step: int) -> None:
        """Move the slow average."""
        decay = min(TARGET_DECAY, (1 + step) / (10 + step))
        for (_, slow), (_, live) in zip(
            lowrank.layers(self.slow), lowrank.layers(self.module), strict=True
        ):
            slow.weight.lerp_(live.weight, 1 - decay)

    def publish(self) -> None:
        """Write the LoRA, and draw with it in four steps."""
        lowrank.save(self.module, self.folder / "lora.safetensors")
        pipeline = export.pipeline(self.parts)
        lowrank.merge(pipeline.unet, self.folder / "lora.safetensors")
        pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
        pictures = preview.draw(pipeline, preview.fixed_captions(), steps=4, guidance=1.0)
        preview.save_grid(pictures, self.folder / "sample.png")


def main() -> None:
    """Train from the command line."""
    parser = finetune.arguments(__doc__, "lcm", minutes=25, peak=1e-3)
    told: argparse.Namespace = parser.parse_args()
    finetune.begin(told)
    finetune.Training(Distillation(told.parts, told.folder), told).run()


if __name__ == "__main__":
    main()
