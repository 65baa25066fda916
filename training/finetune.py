"""What the trainers of adapters share: one loop around a lesson.

A *lesson* has the weights that learn and gives the loss of any step; this module steps them, keeps
their average, writes checkpoints and hands the averaged weights over to be published. It knows
nothing of what is learned.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Protocol

import torch

from training import diffusion, export, loop
from training.optimisers import NAMES, Optimiser

PUBLISH_S = 300


class Lesson(Protocol):
    """What is to be learned."""

    module: torch.nn.Module  # those of its weights that want a gradient are learned
    fresh: list[torch.nn.Parameter]  # those that start from nothing beside trained ones

    def loss(self, step: int) -> torch.Tensor:
        """The loss of step ``step``, with gradients; the same in every run."""
        ...

    def absorb(self, step: int) -> None:
        """Hear that the weights have moved."""
        ...

    def publish(self) -> None:
        """Write the weights where they are shipped, and draw what they do."""
        ...


def arguments(
    description: str | None, name: str, *, minutes: float, peak: float, optimiser: str = "adamw"
) -> argparse.ArgumentParser:
    """The options that every trainer of an adapter has; ``name`` is of its folder in runs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--minutes", type=float, default=minutes, help="in all, over resumed runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--optimizer", choices=NAMES, default=optimiser)
    parser.add_argument("--rate", type=float, default=peak)
    parser.add_argument("--folder", type=Path, default=diffusion.RUNS / name)
    parser.add_argument("--parts", type=Path, default=export.PARTS)
    return parser


def begin(told: argparse.Namespace) -> None:
    """Set torch up as the options say."""
    torch.set_num_threads(told.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)


class Training:
    """A run: the lesson, the average of its weights, their optimiser, and how far it is."""

    def __init__(self, lesson: Lesson, told: argparse.Namespace) -> None:
        self.lesson, self.peak = lesson, told.rate
        self.path = told.folder / "checkpoint.pt"
        self.weights = [w for w in lesson.module.parameters() if w.requires_grad]
        self.steps = Optimiser(lesson.module, told.optimizer, decay=0.0, fresh=lesson.fresh)
        self.average = loop.Average(lesson.module)
        self.step, self.mean = 0, 0.0
        saved = loop.load(self.path)
        if saved is not None:
            with torch.no_grad():
                for weight, kept in zip(self.weights, saved["weights"], strict=True):
                    weight.copy_(kept)
            self.steps.load(saved["optimiser"])
            self.average.load(saved["average"])
            self.step, self.mean = saved["step"], saved["loss"]
        spent_s = 0.0 if saved is None else saved["spent_s"]
        self.budget = loop.Budget(told.minutes, spent_s)

    def _save(self) -> None:
        state: dict[str, Any] = {
            "weights": [weight.detach() for weight in self.weights],
            "optimiser": self.steps.state(),
            "average": self.average.state(),
            "step": self.step,
            "loss": self.mean,
            "spent_s": self.budget.spent_s,
        }
        loop.save(state, self.path)

    def _publish(self) -> None:
        self._save()
        self.average.swap()
        self.lesson.publish()
        self.average.swap()

    def _learn(self) -> None:
        loss = self.lesson.loss(self.step)
        loss.backward()
        self.steps.step(loop.rate(self.budget.share, self.step, peak=self.peak, warm_steps=20))
        self.average.update(self.step)
        self.lesson.absorb(self.step)
        self.step += 1
        memory = min(0.99, self.step / (self.step + 10))
        self.mean = memory * self.mean + (1 - memory) * float(loss.detach())

    def run(self) -> None:
        """Learn until the minutes are spent."""
        print(f"from step {self.step}, {self.budget.spent_s:.0f} s spent", flush=True)
        is_log_due, is_publish_due = loop.Every(20), loop.Every(PUBLISH_S)
        last = (self.step, time.monotonic())
        while not self.budget.is_over:
            self._learn()
            if is_log_due():
                took_s = (time.monotonic() - last[1]) / (self.step - last[0])
                print(
                    f"{self.budget.spent_s:6.0f} s step {self.step} loss {self.mean:.5f} "
                    f"{took_s:.3f} s a step",
                    flush=True,
                )
                last = (self.step, time.monotonic())
            if is_publish_due():
                self._publish()
                last = (self.step, time.monotonic())
        self._publish()
        print(f"ended at step {self.step}, {self.budget.spent_s:.0f} s spent", flush=True)
