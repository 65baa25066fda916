"""Whether a picture is of the closed domain that the embedded model has learnt: a small network.

Pictures are brought to 128 x 128; five convolutions, means and deviations of their features over
the picture, one number. Its bias is set so that 0.5 is the threshold that its card tells of.
Trained by ``training/domain.py``. It knows textures and shapes of the domain, not what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from calotype.core.picture_checks import OUTSIDE, CheckUse
from calotype.engine.checks.base import CheckBroken, Picture, Scores

SIDE = 128  # pixels
WEIGHTS = "model.safetensors"
WIDTHS = (16, 32, 48, 64, 64)  # channels of each convolution


class DomainNet(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Pictures (n, 3, 128, 128) in -1..1 to the logit of being outside, (n,)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[Any] = []
        for at, (inner, outer) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False)):
            size, stride = (5, 2) if at == 0 else (3, 2 if at < len(WIDTHS) - 1 else 1)
            layers += [
                nn.Conv2d(inner, outer, size, stride, size // 2, bias=False),
                nn.BatchNorm2d(outer),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * WIDTHS[-1], 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """One logit each; above 0 is outside."""
        return self.head(self.features(pictures))[:, 0]

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """What the logit is made of, (n, 128); a probe can be trained on it for other questions."""
        found = self.body(pictures).flatten(2)
        return torch.cat((found.mean(2), found.std(2, correction=0)), dim=1)


class DomainCheck:
    """The network with its weights, on the CPU: it takes a millisecond or two there."""

    def __init__(self, net: DomainNet) -> None:
        self._net = net.eval()

    @classmethod
    def load(cls, use: CheckUse, device: torch.device | None = None) -> DomainCheck:
        """Read the weights, whatever the device; raises CheckBroken for what isn't them."""
        return cls(read_net(Path(use.path)))

    def scores(self, pictures: Sequence[Picture]) -> Sequence[Scores]:
        """How likely each is outside, by the label "outside"."""
        logits = self._net(torch.cat([brought(picture) for picture in pictures]))
        return [{OUTSIDE: float(score)} for score in torch.sigmoid(logits)]


def read_net(folder: Path) -> DomainNet:
    """The network whose weights lie in a folder; raises CheckBroken for what isn't them."""
    path = folder / WEIGHTS
    net = DomainNet()
    try:
        weights = {name: it.float() for name, it in load_file(path).items()}
        net.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckBroken(f"{path} isn't the domain check: {error}"[:500]) from error
    if not all(bool(torch.isfinite(it).all()) for it in weights.values()):
        raise CheckBroken(f"{path} has weights that aren't numbers")
    return net


def brought(picture: Picture) -> torch.Tensor:
    """(height, width, 3) uint8 as the network wants it: (1, 3, 128, 128) in -1..1."""
    floats = torch.from_numpy(np.array(picture)).movedim(-1, 0)[None].float() / 127.5 - 1
    if floats.shape[-2:] == (SIDE, SIDE):
        return floats
    return functional.interpolate(floats, (SIDE, SIDE), mode="bilinear", antialias=True)
