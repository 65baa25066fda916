"""The judge: a small network that reads from a picture what its scene is.

``python -m training.classifier --minutes 6`` renders pictures of its own (``runs/classifier/``,
scenes no other trainer sees), learns to read them, also when they are shifted, soft, noisy or
badly stored, measures itself on 1,000 renders of held-out combinations and writes
``training/classifier.safetensors``, in fp16, with those figures beside it. That file is committed,
so that an evaluation can be repeated from a clone.

It knows the scene's nouns and nothing of the diffusion model it will judge.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from training import loop
from training.autoencoder import to_floats
from training.captions import ATTRIBUTES
from training.dataset import Pictures
from training.lessons import BATCH, IGNORED, Lessons, render_all
from training.optimisers import Optimiser
from training.scenes import COLOURS, OBJECTS, PLACES, Scene, Thing

RUNS = Path(__file__).parent / "runs" / "classifier"
FILE = Path(__file__).parent / "classifier.safetensors"
UNSEEN = 1000  # renders the judge is judged on
OUTPUTS = 1 + len(COLOURS) + len(PLACES)  # of a reading: a kind's are there, colour, place
GROUPS = (*ATTRIBUTES, "there", "colour", "place")


@dataclass(frozen=True)
class Reading:
    """What the judge sees in one picture."""

    setting: dict[str, str]  # time, weather, season, terrain, light
    things: dict[str, Thing]  # by kind: those that are there


def _block(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()
    )


class Judge(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Pictures to logits. Each of 12 readings (5 of the setting, 7 kinds) takes its own weighted
    mean of the last 8 x 8 features, which know where they are."""

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 80, 128)) -> None:
        super().__init__()
        first, second, third, last = widths
        self.body = nn.Sequential(
            nn.Conv2d(3, first, 5, 2, 2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            _block(first, second, 2),
            _block(second, third, 2),
            _block(third, third, 1),
            _block(third, last, 2),
            _block(last, last, 1),
        )
        count = len(ATTRIBUTES) + len(OBJECTS)
        self.where = nn.Parameter(torch.randn(64, last) * 0.02)
        self.attention = nn.Linear(last, count)
        self.weights = nn.Parameter(torch.randn(count, last, OUTPUTS) * last**-0.5)
        self.biases = nn.Parameter(torch.zeros(count, OUTPUTS))

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, 3, 128, 128) in [-1, 1] to (n, 12, 12): a setting's logits are the first of them,
        a kind's are one for being there, eight colours, three places."""
        features = self.body(pictures).flatten(2).transpose(1, 2) + self.where
        shares = functional.softmax(self.attention(features).float(), dim=1)
        read = shares.transpose(1, 2).to(features.dtype) @ features
        logits: Tensor = torch.einsum("nrw,rwo->nro", read, self.weights) + self.biases
        return logits.float()


def losses(logits: Tensor, wanted: Tensor) -> Tensor:
    """The sum of all readings' mean losses.

    ``wanted`` (n, 26) are flat ``targets``; ``logits`` as ``Judge.forward`` gives them.
    """
    settings = len(ATTRIBUTES)
    total = torch.zeros(())
    for k, classes in enumerate(ATTRIBUTES.values()):
        total = total + functional.cross_entropy(logits[:, k, : len(classes)], wanted[:, k])
    return total + losses_of_kinds(logits[:, settings:].flatten(0, 1), wanted[:, settings:])


def losses_of_kinds(kinds: Tensor, wanted: Tensor) -> Tensor:
    """Of what things are there, and their colours and places; ``kinds`` has a row for each kind."""
    there, colour, place = wanted.reshape(-1, 3).unbind(1)
    ends = 1 + len(COLOURS)
    return (
        2 * functional.binary_cross_entropy_with_logits(kinds[:, 0], there.float())
        + functional.cross_entropy(kinds[:, 1:ends], colour, ignore_index=IGNORED)
        + functional.cross_entropy(kinds[:, ends:], place, ignore_index=IGNORED)
    )


@torch.no_grad()
def read(judge: Judge, pictures: np.ndarray) -> list[Reading]:
    """Read pictures, uint8 (n, 128, 128, 3)."""
    judge.eval()
    logits = torch.cat(
        [judge(to_floats(pictures[k : k + 50])) for k in range(0, len(pictures), 50)]
    )
    return [_reading(row) for row in logits]


def _reading(logits: Tensor) -> Reading:
    setting = {
        name: classes[int(logits[k, : len(classes)].argmax())]
        for k, (name, classes) in enumerate(ATTRIBUTES.items())
    }
    things = {}
    ends = 1 + len(COLOURS)
    for kind, row in zip(OBJECTS, logits[len(ATTRIBUTES) :], strict=True):
        if row[0] > 0:
            colour, place = COLOURS[int(row[1:ends].argmax())], PLACES[int(row[ends:].argmax())]
            things[kind] = Thing(kind, colour, place)
    return Reading(setting, things)


def accuracies(
    readings: Sequence[Reading], scenes: Sequence[Scene], lights: Sequence[bool] | None = None
) -> dict[str, float]:
    """Shares read as the scenes have it, 0 to 1; ``lights`` tells whose light counts (all's).

    ``there``, ``colour`` and ``place`` are of all the scenes' objects: an object that is not there
    has neither its colour nor its place. ``colour_of_there`` and ``place_of_there`` are of those
    that are there; ``invented`` is the share of pictures with an object their scene has not.
    """
    pairs = list(zip(readings, scenes, strict=True))
    found = {
        name: float(np.mean([r.setting[name] == getattr(scene, name) for r, scene in pairs]))
        for name in ATTRIBUTES
    }
    counted = lights or [True] * len(pairs)
    lit = [pair for pair, counts in zip(pairs, counted, strict=True) if counts]
    right = sum(r.setting["light"] == scene.light for r, scene in lit)
    found["light"] = right / max(1, len(lit))
    asked = [(r.things.get(thing.kind), thing) for r, scene in pairs for thing in scene.things]
    seen = [(got, thing) for got, thing in asked if got is not None]
    found["there"] = len(seen) / len(asked)
    for name in ("colour", "place"):
        right = sum(getattr(got, name) == getattr(thing, name) for got, thing in seen)
        found[name] = right / len(asked)
        found[f"{name}_of_there"] = right / max(1, len(seen))
    kinds = [{thing.kind for thing in scene.things} for scene in scenes]
    found["invented"] = float(
        np.mean([not set(r.things) <= own for r, own in zip(readings, kinds, strict=True)])
    )
    return found


def load(path: Path = FILE) -> Judge:
    """The judge in fp32; raises RuntimeError if the file's weights do not fit it."""
    weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    judge = Judge()
    counters = {name: t for name, t in judge.state_dict().items() if name.endswith("tracked")}
    judge.load_state_dict(weights | counters)
    judge.eval()
    return judge


def save(judge: Judge, path: Path, measured: dict[str, float]) -> None:
    """Write the weights in fp16, what was measured with them in the file's own header."""
    weights = {k: v for k, v in judge.state_dict().items() if not k.endswith("tracked")}
    kept = {name: weight.half().contiguous() for name, weight in weights.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(kept, path, {name: f"{share:.4f}" for name, share in measured.items()})


def measure(judge: Judge, count: int = UNSEEN) -> dict[str, float]:
    """``accuracies`` on renders of held-out combinations, 0 to 1."""
    unseen = Pictures("unseen")
    chosen = list(range(min(count, len(unseen))))
    scenes = unseen.scenes()[: len(chosen)]
    return accuracies(read(judge, unseen.batch(chosen)), scenes)


def header(path: Path = FILE) -> dict[str, float]:
    """What was measured with the weights in this file on 1,000 unseen renders."""
    with safe_open(path, "pt") as file:
        return {name: float(share) for name, share in file.metadata().items()}


def in_words(measured: dict[str, float]) -> str:
    """Accuracies in a line of percentages."""
    return ", ".join(f"{name} {100 * share:.1f}" for name, share in measured.items())


def train(minutes: float, lessons: Lessons) -> Judge:
    """A judge from nothing in so many minutes of the processor's time.

    Not of the clock's: it learns as much on a machine that is busy with other work.
    """
    torch.manual_seed(0)
    judge = Judge()
    judge.to(memory_format=torch.channels_last)
    steps = Optimiser(judge, "adamw", decay=0.02)
    started, is_log_due = time.process_time(), loop.Every(60)
    step, mean, share = 0, 0.0, 0.0
    while share < 1:
        judge.train()
        pictures, wanted = lessons.batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = judge(pictures)
        loss = losses(logits, wanted)
        loss.backward()
        steps.step(loop.rate(share, step, peak=3e-3), clip=5.0)
        mean += (float(loss.detach()) - mean) * max(0.02, 1 / (step + 1))
        step += 1
        spent_s = time.process_time() - started
        share = min(1.0, spent_s / (60 * minutes))
        if is_log_due():
            pace_ms = 1e3 * spent_s / step / BATCH
            print(f"{spent_s:5.0f} s step {step} loss {mean:.3f} {pace_ms:.1f} ms a picture")
            print(f"  {in_words(measure(judge, 200))}", flush=True)
    return judge


def main() -> None:
    """Render, train, measure and save from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=5000, help="renders to learn from")
    parser.add_argument("--folder", type=Path, default=RUNS)
    parser.add_argument("--file", type=Path, default=FILE)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    render_all(arguments.count, arguments.folder)
    judge = train(arguments.minutes, Lessons(arguments.folder))
    save(judge, arguments.file, {})
    judge = load(arguments.file)  # what is measured is what is kept: fp16 rounds
    measured = measure(judge)
    save(judge, arguments.file, measured)
    print(f"{arguments.file}: {arguments.file.stat().st_size / 2**10:.0f} KiB")
    print(in_words(measured))


if __name__ == "__main__":
    main()
