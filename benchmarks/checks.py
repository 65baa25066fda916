"""``python -m benchmarks.checks``: what the picture checks take a picture, one at a time and four.

Random weights of the real classes and sizes: nothing is known of how well they judge, only how long
they take. The prompt's checks that read are among them. Of each the median of the rounds counts.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from calotype.cli.console import print_table
from calotype.core.picture_checks import LABELS, CheckKind, CheckUse
from calotype.engine.libraries import before_libraries, without_progress
from calotype.safety.setup import SafetySetup

if TYPE_CHECKING:
    from calotype.engine.checks.recogniser import Ending
    from calotype.engine.checks.running import Checks, Seen

SIDE = 512  # pixels of the pictures
PROMPT = "a lighthouse on a rock in a storm, oil painting, dramatic light, highly detailed, " * 4


def main(*, rounds: int = 5, threads: int = 0) -> None:
    """Milliseconds a picture of each check, alone and four at once."""
    before_libraries()
    without_progress()
    import torch

    from calotype.engine.checks.running import Checks

    if threads:
        torch.set_num_threads(threads)
    domain = SafetySetup.default_setup().uses("vignette-domain")[0]
    with tempfile.TemporaryDirectory() as folder:
        uses = {
            "the domain check": domain,
            "ViT-B/16, 224 px (Falconsai's size)": _vit(Path(folder) / "vit"),
            "DeBERTa v3 base, a prompt (Prompt Guard's size)": _text(Path(folder) / "text"),
        }
        rows = []
        for name, use in uses.items():
            checks = Checks(torch.device("cpu"))
            checks.expect("model", [use])
            checks.settle()
            if use.reads:  # one prompt at a time
                rows.append([name, f"{_ms(_reading(checks), rounds):.1f}", "-"])
                continue
            took = (_ms(_looking(checks, count), rounds) / count for count in (1, 4))
            rows.append([name, *(f"{each:.1f}" for each in took)])
    title = f"ms a picture of {SIDE} px, {torch.get_num_threads()} threads, random weights"
    print_table(("check", "alone", "four at once"), rows, title)


def _looking(checks: Checks, count: int) -> Callable[[], list[Seen]]:
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(count)]
    return lambda: checks.seen("model", pictures)


def _reading(checks: Checks) -> Callable[[], list[Seen]]:
    def ending() -> Ending:
        raise AssertionError("a text classifier doesn't want it")

    return lambda: [checks.read("model", PROMPT, ending)]


def _ms(ask: Callable[[], list[Seen]], rounds: int) -> float:
    took = []
    for _ in range(rounds + 1):
        begun_s = time.perf_counter()
        for seen in ask():
            assert not seen.failed, seen.failed
        took.append((time.perf_counter() - begun_s) * 1e3)
    return statistics.median(took[1:])


def _vit(folder: Path) -> CheckUse:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    labels = {0: "normal", 1: "nsfw"}
    ViTForImageClassification(ViTConfig(id2label=labels, label2id={})).save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return _use(folder, CheckKind.CLASSIFIER, tuple(labels.values()))


def _text(folder: Path) -> CheckUse:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        DebertaV2Config,
        DebertaV2ForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    named: dict[str, Any] = {"pad_token": words[0], "unk_token": words[1]}
    PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=512, **named).save_pretrained(
        folder
    )
    labels = {0: "fine", 1: "harm"}
    config = DebertaV2Config(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        vocab_size=len(words),
        type_vocab_size=0,
        id2label=labels,
        label2id={},
    )
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    return _use(folder, CheckKind.TEXT, tuple(labels.values()))


def _use(folder: Path, kind: CheckKind, labels: tuple[str, ...]) -> CheckUse:
    return CheckUse(kind.value, kind.value, str(folder), "0", labels or LABELS[kind])


if __name__ == "__main__":
    typer.run(main)
