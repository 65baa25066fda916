"""Train the autoencoder: pictures to 16 x 16 latents of 12 channels, and back.

``python -m training.autoencoder --minutes 20`` learns from crops of 64 x 64, and in the last fifth
of its time from whole pictures. Latents are held to a mean of 0 and a deviation of 1 in each
channel, since SDXL's pipeline knows one scaling factor only and the decoder clamps at 3; noise on
them in training makes the decoder forgive the small errors a diffusion model leaves. What remains
of the deviation is written to the configuration as ``scaling_factor``.

``--decoder`` goes on from the finished part with its encoder as it is, so that a UNet that has
learned from its latents stays right while pictures get sharper.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny

from training import loop, preview, shapes
from training.dataset import Pictures
from training.optimisers import NAMES, Optimiser

RUNS = Path(__file__).parent / "runs"
CROP = 64
CROPS = 32  # a batch; whole pictures are four times as large and a quarter as many
WHOLE_FROM = 0.8  # share of the time
NOISE = 0.1
MOMENTS_WEIGHT = 0.1
WATCHED = 64  # unseen pictures the log's figures are measured on


def to_floats(pictures: np.ndarray) -> torch.Tensor:
    """Pictures uint8 (n, h, w, 3) as floats in [-1, 1], (n, 3, h, w), channels last."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_bytes(pictures: torch.Tensor) -> np.ndarray:
    """The reverse of ``to_floats``; values outside [-1, 1] are clipped."""
    scaled = pictures.float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    array: np.ndarray = scaled.permute(0, 2, 3, 1).contiguous().numpy()
    return array


def batch(pictures: Pictures, step: int, *, is_whole: bool) -> torch.Tensor:
    """The batch of a step, the same in every run: 32 crops, or 8 whole pictures."""
    rng = random.Random(f"autoencoder {step}")
    if is_whole:
        chosen = [rng.randrange(len(pictures)) for _ in range(CROPS // 4)]
        return to_floats(pictures.batch(chosen))
    crops = np.empty((CROPS, CROP, CROP, 3), np.uint8)
    for crop in crops:
        top, left = rng.randrange(shapes.PIXELS - CROP + 1), rng.randrange(shapes.PIXELS - CROP + 1)
        crop[:] = pictures[rng.randrange(len(pictures))][top : top + CROP, left : left + CROP]
    return to_floats(crops)


def _slopes(difference: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbours: what is lost of edges."""
    across = difference[..., 1:] - difference[..., :-1]
    down = difference[..., 1:, :] - difference[..., :-1, :]
    return across.abs().mean() + down.abs().mean()


def losses(vae: AutoencoderTiny, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parts of the loss, weighted, for pictures in [-1, 1]."""
    latents = vae.encoder(pictures).float()
    deviations, means = torch.std_mean(latents, dim=(0, 2, 3))
    drawn = vae.decoder(latents + NOISE * torch.randn_like(latents)).float()
    difference = drawn - pictures
    moments = means.square().mean() + (deviations - 1).square().mean()
    return {
        "l1": difference.abs().mean(),
        "slopes": _slopes(difference),
        "mse": 2 * difference.square().mean(),
        "moments": MOMENTS_WEIGHT * moments,
    }


def start(vae: AutoencoderTiny, pictures: torch.Tensor) -> None:
    """Give fresh weights latents of mean 0 and deviation 1, far above the noise from the start."""
    last = vae.encoder.layers[-1]
    with torch.no_grad():
        deviations, means = torch.std_mean(vae.encoder(pictures), dim=(0, 2, 3))
        last.weight.div_(deviations.view(-1, 1, 1, 1))
        last.bias.sub_(means).div_(deviations)


def measure(vae: AutoencoderTiny, watched: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Mean squared error in [-1, 1] on these pictures, and how they were drawn."""
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            drawn = torch.cat([vae.decode(vae.encode(x).latents).sample for x in watched.split(16)])
        drawn = drawn.float().clamp(-1, 1)
        return float((drawn - watched).square().mean()), drawn


def finish(vae: AutoencoderTiny, pictures: Pictures, folder: Path) -> None:
    """Give the part its scaling factor and save it; the log tells its latents."""
    with torch.no_grad():
        chosen = random.Random(0).sample(range(len(pictures)), min(512, len(pictures)))
        batches = [to_floats(pictures.batch(chosen[k : k + 32])) for k in range(0, len(chosen), 32)]
        latents = torch.cat([vae.encode(x).latents for x in batches])
        deviations, means = torch.std_mean(latents, dim=(0, 2, 3))
        print(f"latents: means {means.min():.3f}..{means.max():.3f}, deviations", end=" ")
        print(f"{deviations.min():.3f}..{deviations.max():.3f}, largest {latents.abs().max():.2f}")
        deviation = float(latents.std())
        vae.register_to_config(scaling_factor=1 / deviation)
        vae.scaling_factor = 1 / deviation
        loop.save_part(vae, folder)


@dataclass
class Training:
    """A run: the autoencoder, its average, its optimiser, and how far it is."""

    minutes: float
    optimiser: str
    peak: float
    folder: Path
    parts: Path
    is_decoder_only: bool = False
    step: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.pictures = Pictures()
        self.watched = to_floats(Pictures("unseen").batch(list(range(WATCHED))))
        if (self.parts / "vae").exists():  # an earlier run's, or the shipped model's
            self.vae = AutoencoderTiny.from_pretrained(self.parts / "vae")
            self.vae.encoder.requires_grad_(not self.is_decoder_only)
        else:
            self.vae = shapes.autoencoder()
            start(self.vae, self.watched)
        self.vae = self.vae.train().to(memory_format=torch.channels_last)
        self.steps = Optimiser(self.vae, self.optimiser, decay=1e-4)
        self.average = loop.Average(self.vae)
        saved = loop.load(self.folder / "checkpoint.pt")
        if saved is not None:
            self.vae.load_state_dict(saved["vae"])
            self.steps.load(saved["optimiser"])
            self.average.load(saved["average"])
            self.step = saved["step"]
        self.budget = loop.Budget(self.minutes, 0.0 if saved is None else saved["spent_s"])

    def save(self) -> None:
        """Write a checkpoint."""
        state = {
            "vae": self.vae.state_dict(),
            "optimiser": self.steps.state(),
            "average": self.average.state(),
            "step": self.step,
            "spent_s": self.budget.spent_s,
        }
        loop.save(state, self.folder / "checkpoint.pt")

    def report(self, picture: Path | None = None) -> str:
        """The averaged weights' error in words; draws pictures beside originals if asked."""
        self.average.swap()
        error, drawn = measure(self.vae, self.watched)
        self.average.swap()
        if picture is not None:
            pairs = torch.stack([self.watched[:24], drawn[:24]], 1).flatten(0, 1)
            preview.save_grid(to_bytes(pairs), picture, columns=8)
        return f"mse {error:.5f} psnr {10 * math.log10(4 / error):.2f} dB"

    def learn(self) -> str:
        """Take one step; return its losses in words."""
        torch.manual_seed(self.step)
        pictures = batch(self.pictures, self.step, is_whole=self.budget.share > WHOLE_FROM)
        with torch.autocast("cpu", torch.bfloat16):
            parts = losses(self.vae, pictures)
        torch.stack(list(parts.values())).sum().backward()
        norm = self.steps.step(loop.rate(self.budget.share, self.step, peak=self.peak))
        self.average.update(self.step)
        self.step += 1
        return (
            " ".join(f"{name} {float(x.detach()):.4f}" for name, x in parts.items())
            + f" norm {norm:.2f}"
        )

    def run(self) -> None:
        """Learn until the minutes are spent; then hand over the averaged weights."""
        print(f"from step {self.step}, {self.budget.spent_s:.0f} s spent", flush=True)
        is_log_due, is_save_due, is_draw_due = loop.Every(20), loop.Every(120), loop.Every(180)
        last = (self.step, time.monotonic())
        while not self.budget.is_over:
            told = self.learn()
            if is_log_due():
                took_s = (time.monotonic() - last[1]) / (self.step - last[0])
                print(
                    f"{self.budget.spent_s:6.0f} s step {self.step} {told} | {self.report()} | "
                    f"{1e3 * took_s / CROPS:.2f} ms a crop",
                    flush=True,
                )
                last = (self.step, time.monotonic())
            if is_draw_due():
                self.report(self.folder / "sample.png")
            if is_save_due():
                self.save()
        self.save()
        print(self.report(self.folder / "sample.png"))
        if not self.budget.is_stopped:
            self.average.swap()
            if self.is_decoder_only:  # the scaling factor that the UNet has learned from stays
                loop.save_part(self.vae, self.parts / "vae")
            else:
                finish(self.vae, self.pictures, self.parts / "vae")
            print(f"saved, scaling factor {self.vae.config.scaling_factor:.4f}", flush=True)


def main() -> None:
    """Train from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--optimizer", choices=NAMES, default="muon")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--decoder", action="store_true", help="go on with the decoder alone")
    parser.add_argument("--folder", type=Path, help="of the run: runs/ae, or runs/decoder")
    parser.add_argument("--parts", type=Path, default=RUNS / "parts")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    Training(
        minutes=arguments.minutes,
        optimiser=arguments.optimizer,
        peak=arguments.rate,
        folder=arguments.folder or RUNS / ("decoder" if arguments.decoder else "ae"),
        parts=arguments.parts,
        is_decoder_only=arguments.decoder,
    ).run()


if __name__ == "__main__":
    main()
