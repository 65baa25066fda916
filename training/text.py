"""Pre-train both text encoders to understand captions, before any picture is drawn from them.

``python -m training.text --minutes 8`` learns from (caption, what it says) pairs alone. From the
outputs that the diffusion model uses (the last hidden state but one of both encoders, and the
pooled output of the second) small readers must tell every attribute. The UNet then learns from
text that is already in order, which saves it most of its time. The first encoder's last layer has
no say in Stable Diffusion XL and is left as it was made.

The clock sets the learning rate, so that a run ends where it should on a busy machine; a run that
was stopped resumes from ``training/runs/text/``. Writes both encoders in fp32 to
``training/runs/parts/`` and their accuracy on combinations never trained on to
``training/runs/text/accuracy.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from training import export, readers, shapes
from training.captions import Said, said
from training.readers import Reader
from training.scenes import Scene, is_held_out, sample_scene
from training.tokenizer import LENGTH, ordinary_words

RUN = Path(__file__).parent / "runs" / "text"
BATCH = 64  # captions a step
POOL = 16  # batches made at once and sorted by length, so that short ones are read fast
RATE = 2e-3  # peak learning rate
WARMUP = 100  # steps
SAVE_S = 30.0  # between checkpoints
ROUGH = 0.4  # share of captions as people mistype and embroider them
DROPPED = {"a", "an", "the", "is", "in", "on", "at", "it", "with"}  # said or not, nothing changes
INSERT_BELOW = 36  # words in a caption that may get more


def roughen(text: str, rng: random.Random, words: list[str]) -> str:
    """The caption with small words left out, words of ``words`` put in, or a letter mistyped."""
    parts = text.split(" ")
    if rng.random() < 0.5:
        parts = [part for part in parts if part.lower() not in DROPPED or rng.random() < 0.5]
    if len(parts) < INSERT_BELOW and rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 2, 3))):
            parts.insert(rng.randint(0, len(parts)), rng.choice(words))
    if rng.random() < 0.3:
        place = rng.randrange(len(parts)) if parts else 0
        if parts and re.fullmatch(r"[A-Za-z]{5,}", parts[place]):
            parts[place] = _mistyped(parts[place], rng)
    return " ".join(parts) or text


def _mistyped(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    if rng.random() < 0.5:
        return word[:at] + word[at + 1 :]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def scenes(rng: random.Random, *, held_out: bool) -> Iterator[Scene]:
    """Endless scenes, of the combinations for evaluation or of all others."""
    while True:
        scene = sample_scene(rng)
        if is_held_out(scene) == held_out:
            yield scene


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int = LENGTH) -> Tensor:
    """Token numbers (n, length) as the pipeline makes them, filled up and cut to length."""
    found = tokenizer(
        texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    numbers: Tensor = found.input_ids
    return numbers


def batches(
    tokenizer: PreTrainedTokenizerBase, rng: random.Random, size: int = BATCH
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (token numbers (n, <= 48), classes (n, items)), short captions with short ones."""
    words = ordinary_words()
    source = scenes(rng, held_out=False)
    while True:
        pairs: list[tuple[str, Said]] = []
        for _ in range(size * POOL):
            text, what = said(next(source), rng)
            pairs.append((roughen(text, rng, words) if rng.random() < ROUGH else text, what))
        pairs.sort(key=lambda pair: len(pair[0]))
        groups = [pairs[i : i + size] for i in range(0, len(pairs), size)]
        rng.shuffle(groups)
        for group in groups:
            texts = [text for text, _ in group]
            longest = max(len(tokens) for tokens in tokenizer(texts).input_ids)
            # The encoders see what fills a text up, too: nothing masks it.
            length = LENGTH if rng.random() < 0.1 else min(LENGTH, longest + rng.randint(0, 4))
            wanted = torch.tensor([readers.targets(what) for _, what in group])
            yield encode(tokenizer, texts, length), wanted


class Encoders(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Both encoders and the three readers that teach them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.first, self.second = shapes.text_encoders(tokenizer)
        self.readers = nn.ModuleDict(
            {
                "first tokens": Reader(shapes.HIDDEN, pooled=False),
                "second tokens": Reader(shapes.HIDDEN_2, pooled=False),
                "second pooled": Reader(shapes.HIDDEN_2, pooled=True),
            }
        )

    def forward(self, numbers: Tensor) -> dict[str, Tensor]:
        """Token numbers (n, tokens) to each reader's logits (n, items, classes)."""
        first = self.first(numbers, output_hidden_states=True)
        second = self.second(numbers, output_hidden_states=True)
        outputs = {
            "first tokens": first.hidden_states[-2],
            "second tokens": second.hidden_states[-2],
            "second pooled": second.text_embeds,
        }
        return {name: self.readers[name](output) for name, output in outputs.items()}


@dataclass
class Training:
    """A run: the encoders, their optimiser, and how far it is."""

    tokenizer: PreTrainedTokenizerBase
    seconds_max: float
    run: Path = RUN
    steps: int = 0
    elapsed_s: float = 0.0
    encoders: Encoders = field(init=False)
    optimiser: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.encoders = Encoders(self.tokenizer)
        self.optimiser = torch.optim.AdamW(
            self.encoders.parameters(), lr=RATE, weight_decay=0.01, betas=(0.9, 0.98)
        )

    def save(self) -> None:
        """Write a checkpoint; a reader never meets half of one."""
        self.run.mkdir(parents=True, exist_ok=True)
        state = {
            "encoders": self.encoders.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "elapsed_s": self.elapsed_s,
        }
        torch.save(state, self.run / "state.new")
        (self.run / "state.new").replace(self.run / "state.pt")

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        path = self.run / "state.pt"
        if path.exists():
            state: dict[str, Any] = torch.load(path, weights_only=True)
            self.encoders.load_state_dict(state["encoders"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.steps, self.elapsed_s = state["steps"], state["elapsed_s"]

    def step(self, numbers: Tensor, wanted: Tensor) -> float:
        """One step of descent; returns the loss, the mean of the three readers'."""
        share = min(1.0, self.elapsed_s / self.seconds_max)
        rate = RATE * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * min(1.0, (self.steps + 1) / WARMUP)
        logits = self.encoders(numbers)
        loss = torch.stack([readers.losses(part, wanted) for part in logits.values()]).mean()
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.encoders.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        return float(loss.detach())

    def train(self) -> None:
        """Step until the time is over, with a bar, a line and a checkpoint now and then."""
        columns = (TextColumn("text encoders"), BarColumn(), TextColumn("{task.description}"))
        source = batches(self.tokenizer, random.Random(1 + self.steps))
        with Progress(*columns, TimeElapsedColumn()) as progress:
            task = progress.add_task("", total=self.seconds_max)
            begun = time.monotonic() - self.elapsed_s
            saved_s, loss = self.elapsed_s, 0.0
            while self.elapsed_s < self.seconds_max:
                latest = self.step(*next(source))
                loss = latest if not loss else 0.95 * loss + 0.05 * latest
                self.elapsed_s = time.monotonic() - begun
                text = f"step {self.steps} loss {loss:.4f}"
                progress.update(task, completed=self.elapsed_s, description=text)
                if self.elapsed_s - saved_s > SAVE_S:
                    saved_s = self.elapsed_s
                    self.save()
                    progress.console.log(text)
        self.save()

    def export(self, parts: Path) -> None:
        """Write both encoders in fp32 where ``training.export`` looks for them."""
        for name, encoder in (
            ("text_encoder", self.encoders.first),
            ("text_encoder_2", self.encoders.second),
        ):
            beside = parts / f".{name}.new"
            encoder.save_pretrained(beside)
            # Swapped in whole: other trainers may be about to read it.
            shutil.rmtree(parts / name, ignore_errors=True)
            beside.rename(parts / name)


def evaluate(
    encoders: Encoders, tokenizer: PreTrainedTokenizerBase, *, captions: int, rough: float
) -> dict[str, dict[str, tuple[float, float]]]:
    """Accuracy of each reader and group (on said, on unsaid) over unseen combinations."""
    rng = random.Random(2)
    words = ordinary_words()
    source = scenes(rng, held_out=True)
    guesses: dict[str, list[Tensor]] = {}
    wanted = []
    with torch.inference_mode():
        for _ in range(captions // 100):
            pairs = [said(next(source), rng) for _ in range(100)]
            texts = [roughen(t, rng, words) if rng.random() < rough else t for t, _ in pairs]
            wanted.append(torch.tensor([readers.targets(what) for _, what in pairs]))
            for name, logits in encoders(encode(tokenizer, texts)).items():
                guesses.setdefault(name, []).append(logits.argmax(-1))
    truth = torch.cat(wanted)
    return {name: readers.accuracies(torch.cat(parts), truth) for name, parts in guesses.items()}


def main() -> None:
    """Train, evaluate and write the parts, from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="in all, resumed time counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", type=Path, default=export.PARTS)
    parser.add_argument("--run", type=Path, default=RUN)
    parser.add_argument("--captions", type=int, default=4000, help="captions to evaluate on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = export.tokenizer(arguments.parts)
    training = Training(tokenizer, arguments.minutes * 60, arguments.run)
    training.resume()
    training.train()
    training.export(arguments.parts)
    report = {
        name: evaluate(training.encoders, tokenizer, captions=arguments.captions, rough=rough)
        for name, rough in (("clean", 0.0), ("rough", 1.0))
    }
    (arguments.run / "accuracy.json").write_text(json.dumps(report, indent=1) + "\n")
    for kind, found in report.items():
        for reader, groups in found.items():
            figures = "  ".join(f"{g} {s:.2%}/{u:.2%}" for g, (s, u) in groups.items())
            print(f"{kind} {reader}: {figures}")


if __name__ == "__main__":
    main()
