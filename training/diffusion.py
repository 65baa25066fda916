"""Train the UNet: noisy latents and a caption to the noise's velocity.

``python -m training.diffusion --minutes 90`` encodes all pictures once, then learns from their
latents with a fresh caption for each picture at each step, read by the frozen text encoders as
SDXL's pipeline reads a prompt. v-prediction (Salimans and Ho 2022, arXiv:2202.00512), whose target
has the same variance at every noise level, unweighted; four levels in five are drawn log-normally
(Karras et al. 2022, arXiv:2206.00364), where most is decided, the fifth evenly. One picture in ten
has no caption, for guidance. Every ten minutes the averaged weights go to ``runs/parts/unet`` and
are drawn from, so that ``python -m training.export`` always makes the newest model.

A run that was ended (SIGTERM is a clean end) goes on where it was, also with more minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from training import export, loop, preview, shapes
from training.autoencoder import to_floats
from training.captions import caption
from training.dataset import Pictures
from training.optimisers import NAMES, Optimiser
from training.scenes import Scene
from training.text import roughen
from training.tokenizer import ordinary_words

RUNS = Path(__file__).parent / "runs"
BATCH = 64
LEVELS_MEAN, LEVELS_DEVIATION = 0.0, 1.2  # of ln(sigma) of the levels drawn log-normally
LEVELS_EVEN = 0.2  # share of levels drawn evenly
WITHOUT_TEXT = 0.08  # share of pictures told nothing: zeros, as the pipeline has it by default
EMPTY_TEXT = 0.02  # share told an empty caption: a prompt or a negative prompt of ""
ROUGH = 0.25  # share of captions as people mistype and embroider them


class Reading:
    """The frozen text encoders, used as SDXL's pipeline uses them."""

    def __init__(self, parts: Path) -> None:
        self.tokenizer = export.tokenizer(parts)
        self.first = CLIPTextModel.from_pretrained(parts / "text_encoder").eval()
        self.second = CLIPTextModelWithProjection.from_pretrained(parts / "text_encoder_2").eval()

    def __call__(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Per token (n, 48, 224) and pooled (n, 128), bf16."""
        with torch.no_grad():
            numbers = self.tokenizer(
                texts, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
            with torch.autocast("cpu", torch.bfloat16):
                first = self.first(numbers, output_hidden_states=True).hidden_states[-2]
                second = self.second(numbers, output_hidden_states=True)
            tokens = torch.cat([first, second.hidden_states[-2]], -1).bfloat16()
            return tokens, second.text_embeds.bfloat16()


def latents_of(pictures: Pictures, parts: Path, folder: Path) -> np.ndarray:
    """The scaled latents of all pictures, fp16 (n, 12, 16, 16), read in place.

    Kept under a name that tells the encoder and the count: either anew means encoding anew, while
    a decoder that has learned more changes nothing here.
    """
    with torch.no_grad():
        vae = AutoencoderTiny.from_pretrained(parts / "vae")
        digest = hashlib.sha256()
        for weight in vae.encoder.parameters():
            digest.update(weight.detach().numpy().tobytes())
        path = folder / f"latents-{digest.hexdigest()[:12]}-{len(pictures)}.npy"
        if not path.exists():
            print(f"encoding {len(pictures)} pictures", flush=True)
            folder.mkdir(parents=True, exist_ok=True)
            for stale in folder.glob("latents-*.npy"):
                stale.unlink()
            vae = vae.to(memory_format=torch.channels_last)
            shape = (len(pictures), shapes.LATENT_CHANNELS, shapes.LATENT_SIDE, shapes.LATENT_SIDE)
            beside = path.with_suffix(".part")
            found = np.lib.format.open_memmap(beside, "w+", np.float16, shape)
            for first in range(0, len(pictures), BATCH):
                chosen = list(range(first, min(first + BATCH, len(pictures))))
                with torch.autocast("cpu", torch.bfloat16):
                    latents = vae.encode(to_floats(pictures.batch(chosen))).latents
                found[chosen] = (latents.float() * vae.config.scaling_factor).half().numpy()
            found.flush()
            beside.rename(path)
        read: np.ndarray = np.load(path, mmap_mode="r")
        return read


def level_shares(kept: torch.Tensor) -> torch.Tensor:
    """How often each noise level is trained on, as a cumulative share up to 1.

    ``kept`` is the scheduler's alphas_cumprod, (levels,); so is the answer.
    """
    logs = 0.5 * ((1 - kept) / kept).double().log()  # ln(sigma)
    widths = torch.gradient(logs)[0]
    normal = widths * (-0.5 * ((logs - LEVELS_MEAN) / LEVELS_DEVIATION) ** 2).exp()
    return ((1 - LEVELS_EVEN) * normal / normal.sum() + LEVELS_EVEN / len(kept)).cumsum(0)


@dataclass
class Batch:
    """What one step learns from."""

    clean: torch.Tensor  # (n, 12, 16, 16)
    noise: torch.Tensor  # same
    levels: torch.Tensor  # (n,), 0 .. 999
    tokens: torch.Tensor  # (n, 48, 224)
    pooled: torch.Tensor  # (n, 128)
    chosen: list[int] = field(default_factory=list)  # (n), the numbers of the pictures


class Source:
    """Makes the batch of any step from latents (n, 12, 16, 16) and their scenes, the same one in
    every run. ``without_text`` is the share of pictures told nothing."""

    def __init__(
        self,
        parts: Path,
        latents: np.ndarray,
        scenes: list[Scene],
        *,
        batch: int = BATCH,
        without_text: float = WITHOUT_TEXT,
    ) -> None:
        self.latents, self.scenes = latents, scenes[: len(latents)]
        self.size, self.without_text = batch, without_text
        self.reading = Reading(parts)
        self.words = ordinary_words()
        self.shares = level_shares(shapes.scheduler().alphas_cumprod)

    def _text(self, index: int, rng: random.Random) -> str:
        if rng.random() < EMPTY_TEXT:
            return ""
        text = caption(self.scenes[index], rng)
        return roughen(text, rng, self.words) if rng.random() < ROUGH else text

    def batch(self, step: int) -> Batch:
        """The batch of step ``step``."""
        rng = random.Random(f"diffusion {step}")
        noises = torch.Generator().manual_seed(step)
        chosen = rng.sample(range(len(self.scenes)), self.size)
        clean = torch.from_numpy(np.stack([self.latents[index] for index in chosen])).float()
        tokens, pooled = self.reading([self._text(index, rng) for index in chosen])
        told = torch.tensor([rng.random() >= self.without_text for _ in chosen]).to(tokens.dtype)
        # One level from each nth of their shares: a steadier loss than levels drawn apart.
        spread = (torch.arange(self.size) + torch.rand(self.size, generator=noises)) / self.size
        return Batch(
            chosen=chosen,
            clean=clean,
            noise=torch.randn(clean.shape, generator=noises),
            levels=torch.searchsorted(self.shares, spread.double()).clamp(max=len(self.shares) - 1),
            tokens=tokens * told[:, None, None],
            pooled=pooled * told[:, None],
        )


def loss_of(unet: Any, batch: Batch, kept: torch.Tensor) -> torch.Tensor:
    """The mean squared error of v; ``kept`` is the scheduler's alphas_cumprod (1000,)."""
    share = kept[batch.levels].view(-1, 1, 1, 1)
    noisy = share.sqrt() * batch.clean + (1 - share).sqrt() * batch.noise
    wanted = share.sqrt() * batch.noise - (1 - share).sqrt() * batch.clean
    times = torch.tensor([shapes.TIME_IDS] * len(batch.levels), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = unet(
            noisy,
            batch.levels,
            batch.tokens,
            added_cond_kwargs={"text_embeds": batch.pooled, "time_ids": times},
            return_dict=False,
        )[0]
    return (found.float() - wanted).square().mean()


@dataclass
class Training:
    """A run: the UNet, its average, its optimiser, and how far it is."""

    minutes: float
    optimiser: str
    peak: float
    is_compiled: bool
    folder: Path
    parts: Path
    unet: UNet2DConditionModel = field(init=False)
    step: int = 0
    loss: float = 0.0  # running mean

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        begun = self.parts / "unet"  # an earlier run's, or the shipped model's
        is_begun = begun.exists()
        self.unet = UNet2DConditionModel.from_pretrained(begun) if is_begun else shapes.unet()
        self.unet.train()
        # Learns 8 % faster than torch's fused attention, whose way back is slow on a CPU.
        self.unet.set_attn_processor(AttnProcessor())
        self.steps = Optimiser(self.unet, self.optimiser)
        self.average = loop.Average(self.unet)
        saved = loop.load(self.folder / "checkpoint.pt")
        if saved is not None:
            self.unet.load_state_dict(saved["unet"])
            self.steps.load(saved["optimiser"])
            self.average.load(saved["average"])
            self.step, self.loss = saved["step"], saved["loss"]
        spent_s = 0.0 if saved is None else saved["spent_s"]
        pictures = Pictures()
        latents = latents_of(pictures, self.parts, self.folder)
        self.source = Source(self.parts, latents, pictures.scenes())
        self.budget = loop.Budget(self.minutes, spent_s)
        self.kept = shapes.scheduler().alphas_cumprod
        self.forward: Any = torch.compile(self.unet) if self.is_compiled else self.unet

    def save(self) -> None:
        """Write a checkpoint."""
        state = {
            "unet": self.unet.state_dict(),
            "optimiser": self.steps.state(),
            "average": self.average.state(),
            "step": self.step,
            "loss": self.loss,
            "spent_s": self.budget.spent_s,
        }
        loop.save(state, self.folder / "checkpoint.pt")

    def publish(self) -> None:
        """Hand over the averaged weights, and draw what they can."""
        self.average.swap()
        loop.save_part(self.unet, self.parts / "unet")
        self.average.swap()
        captions = preview.fixed_captions()
        pictures = preview.draw(export.pipeline(self.parts), captions)
        preview.save_grid(pictures, self.folder / "sample.png")
        preview.save_grid(pictures, self.folder / f"sample-{self.step:06}.png")
        (self.folder / "sample.txt").write_text("\n".join(captions) + "\n")

    def learn(self) -> float:
        """Take one step; return its loss."""
        loss = loss_of(self.forward, self.source.batch(self.step), self.kept)
        loss.backward()
        self.steps.step(loop.rate(self.budget.share, self.step, peak=self.peak))
        self.average.update(self.step)
        self.step += 1
        return float(loss.detach())

    def run(self) -> None:
        """Learn until the minutes are spent."""
        print(f"from step {self.step}, {self.budget.spent_s:.0f} s spent", flush=True)
        is_log_due, is_save_due, is_draw_due = loop.Every(30), loop.Every(180), loop.Every(600)
        last = (self.step, time.monotonic())
        while not self.budget.is_over:
            found = self.learn()
            memory = min(0.99, self.step / (self.step + 10))
            self.loss = memory * self.loss + (1 - memory) * found
            if is_log_due():
                took_s = (time.monotonic() - last[1]) / (self.step - last[0])
                print(
                    f"{self.budget.spent_s:6.0f} s step {self.step} "
                    f"pictures {self.step * BATCH} loss {self.loss:.5f} "
                    f"{1e3 * took_s / BATCH:.2f} ms a picture",
                    flush=True,
                )
                last = (self.step, time.monotonic())
            if is_save_due():
                self.save()
            if is_draw_due():
                self.publish()
                last = (self.step, time.monotonic())
        self.save()
        self.publish()
        print(f"ended at step {self.step}, {self.budget.spent_s:.0f} s spent", flush=True)


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=90, help="in all, over resumed runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--optimizer", choices=NAMES, default="muon")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--compile", action="store_true", help="faster steps, a slow first one")
    parser.add_argument("--folder", type=Path, default=RUNS / "unet")
    parser.add_argument("--parts", type=Path, default=RUNS / "parts")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    Training(
        minutes=arguments.minutes,
        optimiser=arguments.optimizer,
        peak=arguments.rate,
        is_compiled=arguments.compile,
        folder=arguments.folder,
        parts=arguments.parts,
    ).run()


if __name__ == "__main__":
    main()
