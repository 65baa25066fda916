"""The first part: an extractor and a hider learn together, and the extractor's bits are whitened.

At first the hider may change pictures much, and nothing happens to them on their way: otherwise the
two never find a language. Then its strength is taken back and the attacks begin. They try half as
many more bits than are wanted: so small a reader learns most of them well and gives some up, and
those that it reads best are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch.nn import functional

from calotype.engine.marking import checkpoints
from calotype.engine.marking.attacks import as_stored, attacked, moved
from calotype.engine.marking.nets import BLOCK, Extractor, Hider
from calotype.engine.marking.pictures import Pixels, to_floats

# Shares of the steps.
_ALONE_UNTIL = 0.05  # no attacks before
_WEAKER_FROM, _WEAKER_UNTIL = 0.05, 0.6
_SETTLED_FROM = 0.6  # the extractor normalises as when it reads
_STRONG, _WEAK = 0.3, 0.1  # the largest change of a value in -1..1; the hider is thrown away
_WARM_STEPS = 100
_TRIED = 1.5  # bits, of those that are kept
_COMPARED = 30  # batches in which bits are compared
_VARIANCE_MIN = 1e-3  # of the largest: smaller ones aren't blown up to 1


@dataclass(frozen=True)
class HidingPlan:
    """How the first part is learnt."""

    bits: int  # that are kept
    steps: int
    batch: int = 16  # pictures a step
    crop_px: int = 64  # a side of what is cut from them
    rate: float = 2e-3
    seed: int = 0


class Hiding:
    """The first part, from its last checkpoint on."""

    def __init__(
        self, plan: HidingPlan, pictures: Pixels, folder: Path, device: torch.device
    ) -> None:
        """Raises OperatorError for a checkpoint of another training."""
        torch.manual_seed(plan.seed)
        self.plan, self._pictures, self._device = plan, pictures, device
        self._path = folder / "extractor.checkpoint.safetensors"
        self._tried = round(_TRIED * plan.bits)
        self.extractor = Extractor(self._tried).to(device, memory_format=torch.channels_last)
        self.hider = Hider(self._tried).to(device, memory_format=torch.channels_last)
        self._modules = {"extractor": self.extractor, "hider": self.hider}
        weights = [it for module in self._modules.values() for it in module.parameters()]
        self._optimiser = torch.optim.Adam(weights, betas=(0.9, 0.99), fused=True)
        self.step = 0
        if self._path.exists():
            about = checkpoints.load(self._path, self._modules, self._optimiser)
            self.step = int(about["step"])
        self.extractor.train()

    @property
    def is_over(self) -> bool:
        """Whether every step was made."""
        return self.step >= self.plan.steps

    def save(self) -> None:
        """Write a checkpoint."""
        checkpoints.save(self._path, self._modules, self._optimiser, {"step": self.step})

    def learn(self) -> dict[str, float]:
        """One step, the same in every run; its loss, and the share of bits that were right."""
        share = self.step / self.plan.steps
        rng = Random(f"hiding {self.plan.seed} {self.step}")
        if share >= _SETTLED_FROM:
            self.extractor.settle()
        bits, logits = self._tell(rng, share)
        loss = functional.binary_cross_entropy_with_logits(logits, bits)
        loss.backward()
        for group in self._optimiser.param_groups:
            group["lr"] = rate(self.plan.rate, self.step, self.plan.steps)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.step += 1
        right = ((logits > 0) == (bits > 0.5)).float().mean()
        return {"loss": float(loss.detach()), "bits": float(right)}

    def best(self) -> Extractor:
        """The extractor with as many bits as are wanted: those that it reads best."""
        self.extractor.eval()
        right = torch.zeros(self._tried, device=self._device)
        with torch.no_grad():
            for k in range(_COMPARED):
                bits, logits = self._tell(Random(f"best {self.plan.seed} {k}"), 1.0)
                right += ((logits > 0) == (bits > 0.5)).float().mean(0)
        chosen = right.argsort(descending=True, stable=True)[: self.plan.bits]
        kept: Extractor = self.extractor.with_bits(chosen)
        return kept

    def _tell(self, rng: Random, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Hide bits, and read them again: the bits, and the logits."""
        pictures = to_floats(self._batch(rng), self._device)
        bits = torch.tensor(
            [[rng.getrandbits(1) for _ in range(self._tried)] for _ in pictures],
            dtype=torch.float32,
            device=self._device,
        )
        drawn = as_stored(pictures + strength(share) * self.hider(pictures, 2 * bits - 1))
        seen = moved(drawn, rng)
        return bits, self.extractor(seen if share < _ALONE_UNTIL else attacked(seen, rng))

    def _batch(self, rng: Random) -> Pixels:
        """Cuts from pictures drawn by ``rng``."""
        side = min(self.plan.crop_px, self._pictures.shape[1]) // BLOCK * BLOCK
        room = self._pictures.shape[1] - side
        cuts = []
        for _ in range(self.plan.batch):
            picture = self._pictures[rng.randrange(len(self._pictures))]
            top, left = rng.randint(0, room), rng.randint(0, room)
            cuts.append(picture[top : top + side, left : left + side])
        return np.stack(cuts)


def strength(share: float) -> float:
    """How much the hider may change a value, when so much of the steps is done."""
    along = (share - _WEAKER_FROM) / (_WEAKER_UNTIL - _WEAKER_FROM)
    along = min(1.0, max(0.0, along))
    return float(_STRONG * (_WEAK / _STRONG) ** along)


def rate(peak: float, step: int, steps: int) -> float:
    """The learning rate: a linear rise, then half a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / min(_WARM_STEPS, 1 + steps // 20))
    return peak * warm * (0.505 + 0.495 * math.cos(math.pi * step / steps))


def whiten(extractor: Extractor, pictures: torch.Tensor) -> None:
    """Have the extractor's bits be even and uncorrelated on unmarked pictures, as in the paper.

    Its logits there are turned to their principal axes, centred, and scaled to a variance of 1;
    all of that goes into its last layer. ``pictures``: (n, 3, h, w), each as it is and attacked.
    """
    extractor.eval()
    rng, logits = Random("whiten"), []
    with torch.no_grad():
        for some in pictures.split(32):
            logits += [extractor(some), extractor(attacked(some, rng))]
        found = torch.cat(logits).double()
        mean = found.mean(0)
        variances, axes = torch.linalg.eigh(torch.cov(found.T))
        scales = variances.clamp_min(_VARIANCE_MIN * float(variances.max())).rsqrt()
        turned = (axes * scales).T
        weight, bias = extractor.head.weight.double(), extractor.head.bias.double()
        extractor.head.bias.copy_((turned @ (bias - mean)).float())
        extractor.head.weight.copy_((turned @ weight).float())
