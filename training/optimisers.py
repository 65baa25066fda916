"""One optimiser for a whole part: AdamW for all weights, or Muon for its matrices and AdamW beside.

torch's Muon (Jordan et al. 2024) takes matrices only. A convolution's weight is one too, with a row
for each output channel: here it is handed to Muon as a view of the same memory. With the step size
of "Muon is Scalable for LLM Training" (arXiv:2502.16982) both take the same learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

NARROWEST = 32  # a matrix with a shorter side is left to AdamW: colours in, latents out
FRESH = 4  # times as fast
NAMES = ("adamw", "muon")


def _matrix(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A weight or its gradient as outputs x inputs, in the order of ``like``'s memory."""
    if not like.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)  # channels last
    return tensor.reshape(tensor.shape[0], -1)


class Optimiser:
    """Steps all weights of a module at a rate that is given anew at each step.

    ``fresh`` are weights that start from nothing beside trained ones: AdamW takes them, at
    FRESH times the rate.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        name: str,
        *,
        decay: float = 0.01,
        fresh: Iterable[torch.nn.Parameter] = (),
    ) -> None:
        if name not in NAMES:
            raise ValueError(f"optimiser must be one of {NAMES}, not {name!r}")
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        new = {id(weight) for weight in fresh}
        wide = [
            w
            for w in weights
            if w.ndim > 1 and min(len(w), w[0].numel()) >= NARROWEST and id(w) not in new
        ]
        self.weights = weights
        self.matrices = wide if name == "muon" else []
        chosen = {id(weight) for weight in self.matrices}
        rest = [weight for weight in weights if id(weight) not in chosen | new]
        groups: list[dict[str, Any]] = [{"params": rest}] if rest else []
        if new:
            groups.append({"params": [w for w in weights if id(w) in new], "times": FRESH})
        self.views = [torch.nn.Parameter(_matrix(weight.data, weight)) for weight in self.matrices]
        for weight, view in zip(self.matrices, self.views, strict=True):
            assert view.data_ptr() == weight.data_ptr(), "a view, not a copy"
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=decay, fused=True)
        ]
        if self.views:
            self.parts.append(
                torch.optim.Muon(self.views, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
            )

    def step(self, rate: float, clip: float = 1.0) -> float:
        """Clip the gradients, take a step and forget them; return the norm before clipping."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, clip))
        for weight, view in zip(self.matrices, self.views, strict=True):
            view.grad = None if weight.grad is None else _matrix(weight.grad, weight)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate * group.get("times", 1)
            part.step()
        for weight in self.weights:
            weight.grad = None
        return norm

    def state(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps."""
        return [part.state_dict() for part in self.parts]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Take over what ``state`` gave."""
        for part, saved in zip(self.parts, state, strict=True):
            part.load_state_dict(saved)
