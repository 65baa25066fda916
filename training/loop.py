"""What both trainers share: a schedule by the clock, averaged weights, checkpoints, a clean end.

It knows nothing of what is trained. Time is the budget here, not steps: the learning rate follows
the share of the minutes that is spent, counted over all resumed runs, so that a run that shares
its cores with other work still ends with a rate of zero. A run can be resumed with more minutes.
"""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch

AVERAGE_POWER = 8.0  # the average looks back over about an eighth of the steps so far
AVERAGE_DECAY_MAX = 0.9995


class Budget:
    """The minutes a training may take, over all its runs; ends early when asked by SIGTERM."""

    def __init__(self, minutes: float, spent_s: float = 0.0) -> None:
        self.total_s = 60 * minutes
        self.before_s = spent_s
        self.started = time.monotonic()
        self.is_stopped = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.is_stopped = True

    @property
    def spent_s(self) -> float:
        """Seconds of training so far, those of earlier runs included."""
        return self.before_s + time.monotonic() - self.started

    @property
    def share(self) -> float:
        """The share of the time that is spent, 0 to 1."""
        return min(1.0, self.spent_s / self.total_s)

    @property
    def is_over(self) -> bool:
        """Whether the time is spent or a signal asked for the end."""
        return self.is_stopped or self.share >= 1


class Every:
    """True once for each ``period_s`` that has passed: ``if every(): ...``."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.due = time.monotonic() + period_s

    def __call__(self) -> bool:
        """Whether it is time again; if so, the next time is set from now."""
        now = time.monotonic()
        if now < self.due:
            return False
        self.due = now + self.period_s
        return True


def rate(share: float, step: int, *, peak: float, warm_steps: int = 200) -> float:
    """The learning rate: a linear rise over the first steps, then half a cosine down to zero."""
    return peak * min(1.0, (step + 1) / warm_steps) * 0.5 * (1 + math.cos(math.pi * share))


class Average:
    """An average of a module's weights whose memory grows with the training.

    Decay (1 - 1/step)^8, the power law of Karras et al. 2023 (arXiv:2312.02696), up to 0.9995.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.live = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.mean = [parameter.detach().clone() for parameter in self.live]

    def update(self, step: int) -> None:
        """Move towards the live weights after step ``step`` (0 is the first)."""
        with torch.no_grad():
            decay = min(AVERAGE_DECAY_MAX, (1 - 1 / (step + 1)) ** AVERAGE_POWER)
            torch._foreach_lerp_(self.mean, self.live, 1 - decay)

    def swap(self) -> None:
        """Exchange live and averaged weights; a second call exchanges them back."""
        with torch.no_grad():
            for live, mean in zip(self.live, self.mean, strict=True):
                kept = live.detach().clone()
                live.copy_(mean)
                mean.copy_(kept)

    def state(self) -> list[torch.Tensor]:
        """The averaged weights, for a checkpoint."""
        return self.mean

    def load(self, state: list[torch.Tensor]) -> None:
        """Take over the averaged weights of a checkpoint."""
        with torch.no_grad():
            for mean, saved in zip(self.mean, state, strict=True):
                mean.copy_(saved)


def save(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a reader meets a whole one; the one before is kept as .old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    torch.save(state, beside)
    if path.exists():
        path.replace(path.with_suffix(".old"))
    beside.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """The last whole checkpoint at ``path``, or None for a fresh start."""
    for candidate in (path, path.with_suffix(".old")):
        if candidate.exists():
            state: dict[str, Any] = torch.load(candidate, weights_only=True)
            return state
    return None


def save_part(part: Any, folder: Path) -> None:
    """Save a diffusers part to ``folder`` so that a reader never meets half of it."""
    beside = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    part.save_pretrained(beside)
    if folder.exists():
        folder.rename(old)
    beside.rename(folder)
    for leftover in sorted(old.glob("*")) if old.exists() else ():
        leftover.unlink()
    if old.exists():
        old.rmdir()
