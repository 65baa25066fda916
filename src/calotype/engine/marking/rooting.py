"""The second part: the model's decoder learns to draw the key's bits into each picture.

Only the decoder changes, and each picture is held to the one that it drew before. The paper's
measure of that is a Watson-VGG distance; here there is no pretrained network, so it is one of our
own in the same spirit: squared differences count less where much goes on (contrast masking), more
where nothing does, and most if they change colours over 8 pixels and more. How much it counts
beside the bits is steered so that pictures keep a given PSNR to the unmarked decoder's.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from calotype.engine.marking import checkpoints
from calotype.engine.marking.attacks import as_stored, attacked, moved
from calotype.engine.marking.hiding import rate, whiten
from calotype.engine.marking.nets import Extractor
from calotype.engine.marking.pictures import Pixels, to_floats

_AT_ONCE = 16  # pictures that go through the autoencoder
_NOISE = 0.05  # of the latents' deviation: a denoiser's latents aren't the encoder's
_FLAT, _GAIN = 1.0, 0.15  # levels of 255: what is seen where nothing goes on, and beside contrast
_BROAD = 8  # pixels: what is as broad as this is a change of colour
_BROAD_COUNTS = 4.0
_COUNTS_MIN, _COUNTS_MAX, _COUNTS_FIRST = 0.01, 1e4, 1.0
_STEER, _STEER_MAX = 0.01, 0.03  # by how much that changes a step: per dB, and at most
_GRADIENT_MAX = 1.0  # norm: one picture in which nothing is read mustn't throw the decoder off
_ATTACKED = 0.5  # share of the steps in which pictures are attacked before bits are read


@dataclass(frozen=True)
class RootingPlan:
    """How the second part is learnt."""

    steps: int
    psnr_db: float  # to the unmarked decoder's pictures, that is steered for
    batch: int = 4
    rate: float = 2e-4
    seed: int = 0


class Rooting:
    """The second part, from its last checkpoint on."""

    def __init__(
        self,
        plan: RootingPlan,
        vae: Any,
        extractor: Extractor,
        *,
        key: tuple[int, ...],
        examples: Examples,
        folder: Path,
        learnt: int,
    ) -> None:
        """``vae``: unmarked, of diffusers, and stays so. ``key``: the bits, 0 or 1.

        The extractor has made ``learnt`` steps; its bits are whitened here, once. A checkpoint of
        an extractor that had made fewer is left alone: it was taught by another. Raises
        OperatorError for one of another training.
        """
        self.plan, self._examples = plan, examples
        self._path = folder / "decoder.checkpoint.safetensors"
        self._device = next(vae.parameters()).device
        self._before = getattr(vae, "post_quant_conv", None)
        self.decoder: Any = copy.deepcopy(vae.decoder).requires_grad_(True)
        self._extractor, self._learnt = extractor.eval().requires_grad_(False), learnt
        self._key = torch.tensor(key, dtype=torch.float32, device=self._device)
        weights = list(self.decoder.parameters())
        self._optimiser = torch.optim.Adam(weights, betas=(0.9, 0.99), fused=True)
        self._modules = {"decoder": self.decoder, "extractor": extractor}
        self.step, self._counts = 0, _COUNTS_FIRST
        if checkpoints.about(self._path).get("learnt") == learnt:
            about = checkpoints.load(self._path, self._modules, self._optimiser)
            self.step, self._counts = int(about["step"]), float(about["counts"])
        else:
            whiten(extractor, to_floats(examples.pictures, self._device))

    @property
    def is_over(self) -> bool:
        """Whether every step was made."""
        return self.step >= self.plan.steps

    def save(self) -> None:
        """Write a checkpoint."""
        about = {"step": self.step, "counts": self._counts, "learnt": self._learnt}
        checkpoints.save(self._path, self._modules, self._optimiser, about)

    def learn(self) -> dict[str, float]:
        """One step, the same in every run; its loss, share of bits that were right, and PSNR."""
        rng = Random(f"rooting {self.plan.seed} {self.step}")
        chosen = [rng.randrange(len(self._examples)) for _ in range(self.plan.batch)]
        latents, before = self._examples.some(chosen)
        drawn = self._drawn(latents)
        seen = moved(as_stored(drawn), rng)
        seen = attacked(seen, rng) if rng.random() < _ATTACKED else seen
        logits = self._extractor(seen)
        wanted = self._key.expand_as(logits)
        told = functional.binary_cross_entropy_with_logits(logits, wanted)
        loss = told + self._counts * unlike(drawn, before)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), _GRADIENT_MAX)
        for group in self._optimiser.param_groups:
            group["lr"] = rate(self.plan.rate, self.step, self.plan.steps)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.step += 1
        db = psnr(drawn.detach(), before)
        by = _STEER * (self.plan.psnr_db - db)
        self._counts *= math.exp(max(-_STEER_MAX, min(_STEER_MAX, by)))
        self._counts = max(_COUNTS_MIN, min(_COUNTS_MAX, self._counts))
        right = ((logits > 0) == (wanted > 0.5)).float().mean()
        return {"loss": float(told.detach()), "bits": float(right), "psnr": db}

    def measure(self, examples: Examples) -> dict[str, float]:
        """Of other examples: the share of bits that are right, and the PSNR."""
        right, dbs = [], []
        with torch.no_grad():
            for k in range(len(examples)):
                latents, before = examples.some([k])
                drawn = as_stored(self._drawn(latents))
                right.append(((self._extractor(drawn) > 0) == (self._key > 0.5)).float().mean())
                dbs.append(psnr(drawn, before))
        return {"bits": float(torch.stack(right).mean()), "psnr": sum(dbs) / len(dbs)}

    def _drawn(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents if self._before is None else self._before(latents)
        pictures: torch.Tensor = self.decoder(latents)
        return pictures


@dataclass(frozen=True)
class Examples:
    """Latents (n, channels, h, w), unscaled, and how the unmarked decoder draws them."""

    latents: torch.Tensor
    pictures: Pixels  # uint8, (n, height, width, 3)

    def __len__(self) -> int:
        return len(self.pictures)

    def some(self, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and pictures (n, 3, height, width), -1..1."""
        latents = self.latents[chosen]
        return latents, to_floats(self.pictures[chosen], latents.device)


def examples_of(vae: Any, pictures: Pixels, seed: int = 0) -> Examples:
    """Pictures' latents with a little noise, and what the autoencoder makes of them again."""
    device = next(vae.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    latents, drawn = [], []
    with torch.no_grad():
        for k in range(0, len(pictures), _AT_ONCE):
            found: Any = vae.encode(to_floats(pictures[k : k + _AT_ONCE], device))
            spread = getattr(found, "latent_dist", None)
            some = found.latents if spread is None else spread.mode()
            noise = torch.randn(some.shape, generator=generator).to(device)
            some = some + _NOISE * some.std() * noise
            latents.append(some)
            picture = as_stored(vae.decode(some, return_dict=False)[0])
            drawn.append(picture.add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return Examples(torch.cat(latents), np.concatenate(drawn))


def unlike(drawn: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """How different pictures look, masked by the contrast of ``before``; 1 is just visible."""
    light = before.mean(1, keepdim=True) * 127.5
    spread = functional.avg_pool2d(light**2, _BROAD) - functional.avg_pool2d(light, _BROAD) ** 2
    seen = _FLAT + _GAIN * functional.interpolate(
        spread.clamp_min(0).sqrt(), size=before.shape[2:], mode="bilinear"
    )
    apart = (drawn - before) * 127.5
    broad = functional.avg_pool2d(apart, _BROAD)
    return 0.1 * (apart / seen).square().mean() + 0.1 * _BROAD_COUNTS * broad.square().mean()


def psnr(drawn: torch.Tensor, before: torch.Tensor) -> float:
    """Decibels between pictures in -1..1."""
    error = float((drawn.clamp(-1, 1) - before.clamp(-1, 1)).square().mean())
    return 10 * math.log10(4 / max(error, 4e-6))
