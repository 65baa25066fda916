"""The two networks that learn together: one hides bits in a picture, the other reads them.

Both are small: a reader of 0.1 million weights, which has to run without torch later, and a hider
that draws blocks of 8 x 8 pixels, as latents are large.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional

WIDTHS = (24, 48, 64, 96)  # channels of the reader's layers ...
STRIDES = (2, 2, 1, 2)  # ... and by how much each makes the picture smaller
BLOCK = 8  # pixels a side that the hider draws at once


class Extractor(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Reads bits: pictures (n, 3, h, w) in -1..1 of any size to logits (n, bits)."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        inputs = (3, *WIDTHS)
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs[k], width, 3, stride, 1, bias=False)
            for k, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)
        self.head = nn.Linear(WIDTHS[-1], bits)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """The logits; a bit is 1 where its logit is above 0."""
        seen = pictures
        for conv, norm in zip(self.convs, self.norms, strict=True):
            seen = functional.relu(norm(conv(seen)))
        logits: torch.Tensor = self.head(seen.mean((2, 3)))
        return logits

    def settle(self) -> None:
        """From now on normalise as when reading, by what pictures are like on the whole."""
        for norm in self.norms:
            norm.eval()

    def with_bits(self, chosen: torch.Tensor) -> Extractor:
        """A copy that reads only the bits ``chosen``, by number, in that order."""
        other = copy.deepcopy(self)
        other.head = nn.Linear(self.head.in_features, len(chosen), device=chosen.device)
        other.head.weight.data = self.head.weight.detach()[chosen].clone()
        other.head.bias.data = self.head.bias.detach()[chosen].clone()
        return other

    def folded(self) -> dict[str, torch.Tensor]:
        """The same as convolutions with biases, by the names that readers without torch know.

        ``conv0.weight`` (out, in, 3, 3), ``conv0.bias`` (out,) ..., ``head.weight`` (bits, in),
        ``head.bias`` (bits,); float32.
        """
        found = {"head.weight": self.head.weight.detach(), "head.bias": self.head.bias.detach()}
        for k, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
            found[f"conv{k}.weight"] = conv.weight.detach() * scale.view(-1, 1, 1, 1)
            found[f"conv{k}.bias"] = norm.bias.detach() - norm.running_mean * scale
        return {name: tensor.float().contiguous().cpu() for name, tensor in found.items()}


class Hider(nn.Module):  # type: ignore[misc]
    """Hides bits: what to add to pictures (n, 3, h, w) for messages (n, bits) of -1 and 1."""

    def __init__(self, bits: int, width: int = 96) -> None:
        super().__init__()
        pixels = 3 * BLOCK**2
        self.look = nn.Conv2d(pixels, width // 2, 1)
        self.mix = nn.Conv2d(width // 2 + bits, width, 3, padding=1)
        self.draw = nn.Conv2d(width + bits, pixels, 1)

    def forward(self, pictures: torch.Tensor, messages: torch.Tensor) -> torch.Tensor:
        """In -1..1, to be scaled; sides have to be multiples of BLOCK."""
        seen = functional.relu(self.look(functional.pixel_unshuffle(pictures, BLOCK)))
        told = messages[:, :, None, None].expand(-1, -1, *seen.shape[2:])
        mixed = functional.relu(self.mix(torch.cat((seen, told), 1)))
        drawn = self.draw(torch.cat((mixed, told), 1))
        return torch.tanh(functional.pixel_shuffle(drawn, BLOCK))
