"""Trains a recogniser of prompts over a model's text encoder, for ``kind = "recogniser"``.

    python -m training.recogniser src/calotype/models/vignette --out build/recogniser

A logistic regression for each label over the embedding of the text's end (SafeGuider: Qi et al.
2025, arXiv:2510.05173), taught on the same phrases as the prompt classifier. Each threshold is the
one at which that label refuses its share of ``FALSE_POSITIVES`` of harmless prompts that weren't
learned from. Writes the check's folder, with a card, ``evaluation.json``. A minute on one core for
the embedded model; a large model's encoder takes as long as its prompts.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

from calotype.core.messages import LoadModel
from calotype.core.picture_checks import HEAD_FILE, INDEX_FILE
from calotype.engine.checks.recogniser import ARCHITECTURE, CONFIG
from calotype.engine.families.base import Model
from calotype.engine.families.loading import load_model
from calotype.pool.registry import ModelRegistry
from calotype.safety.classifier import LABELS
from calotype.safety.evaluate import SETS, prompts, tally
from calotype.safety.lists import Lists
from calotype.safety.training.probe import threshold
from training.safety_text import Phrases, asking, examples, harmless

SEED = 2026
EACH = 600  # prompts of each label
MEASURED = 4_000  # everyday prompts that thresholds are set on, and as many that are measured
FALSE_POSITIVES = 0.01  # of harmless prompts, for all labels together
STRENGTH = 1.0  # scikit-learn's C: the inverse of the penalty on the weights

Rows = NDArray[np.float32]
Chances = NDArray[np.float64]


class Reader:
    """A model's text encoder, and what it is."""

    def __init__(self, folder: Path) -> None:
        registry = ModelRegistry([folder], folder / "none")
        registry.scan()
        [info] = registry.list()
        load = LoadModel(info.name, str(folder), info.build, components=info.parts)
        self._model: Model = load_model(load, torch.device("cpu"))
        self.name = info.name
        encoders = [it.id for it in info.parts if it.kind.startswith("text_encoder")]
        self.encoders = encoders or [  # all parts are in one file: the engine names each by it
            name for name in self._model.contents if " text_encoder" in name
        ]

    def rows(self, texts: Sequence[str]) -> Rows:
        """The embedding of each text's end, n x width."""
        with torch.inference_mode():
            found = [self._model.ending(self._model.encode(text)) for text in texts]
        return np.stack([each.float().cpu().numpy() for each in found])


class Head:
    """What was learnt: a weight and a bias a label, over embeddings as they come."""

    def __init__(self, rows: Rows, wanted: Sequence[str | None]) -> None:
        middle, apart = rows.mean(axis=0), rows.std(axis=0) + 1e-6
        scaled = (rows - middle) / apart
        weights, biases = [], []
        for label in LABELS:
            asked = np.array([each == label for each in wanted])
            model = LogisticRegression(C=STRENGTH, max_iter=2_000).fit(scaled, asked)
            weight = model.coef_[0] / apart
            weights.append(weight)
            biases.append(model.intercept_[0] - weight @ middle)
        self.weight, self.bias = np.array(weights, np.float32), np.array(biases, np.float32)

    def chances(self, rows: Rows) -> Chances:
        """Of rows, n x labels."""
        return 1 / (1 + np.exp(-(rows @ self.weight.T + self.bias).astype(np.float64)))


def thresholds(chances: Chances) -> dict[str, float]:
    """Of each label, from what harmless prompts score."""
    share, every = FALSE_POSITIVES / len(LABELS), np.ones(len(chances), bool)
    return {label: threshold(chances[:, at], every, share) for at, label in enumerate(LABELS)}


def measured(
    reader: Reader, head: Head, limits: Mapping[str, float], held: Phrases, rng: random.Random
) -> dict[str, Any]:
    """Recall on phrases that weren't learned and on the sets of ``calotype safety eval``, and
    harmless prompts refused; counts, with Wilson's 95 % intervals."""
    bounds = np.array([limits[label] for label in LABELS])

    def refused(texts: Sequence[str]) -> dict[str, Any]:
        past = head.chances(reader.rows(texts)) >= bounds
        return tally(int(past.any(axis=1).sum()), len(texts))

    asked = {label: [asking(rng.choice(held.asked[label]), rng) for _ in range(200)]
             for label in LABELS}  # fmt: skip
    sets = {}
    for name in SETS:
        given = prompts(name)
        sets[name] = {
            "listed": refused([each["prompt"] for each in given["listed"]]),
            "reworded": refused([text for each in given["reworded"].values() for text in each]),
            "harmless that look bad": refused(given["harmless"]["looks_bad"]),
        }
    return {
        "held back": {label: refused(texts) for label, texts in asked.items()},
        "everyday": refused([harmless(rng) for _ in range(MEASURED)]),
        "sets": sets,
    }


def main() -> None:
    """Train, set the thresholds, measure, and write the check's folder."""
    parser = argparse.ArgumentParser(prog="python -m training.recogniser", description=__doc__)
    parser.add_argument("model", type=Path, help="a model's folder, in diffusers' layout")
    parser.add_argument("--out", type=Path, required=True, help="the check's folder, made anew")
    parser.add_argument("--seed", type=int, default=SEED, help="the same seed, the same check")
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    learned, held = Phrases.split(asked.seed)
    reader = Reader(asked.model)
    pairs = list(examples(learned, Lists.shipped(), EACH, rng))
    head = Head(reader.rows([text for text, _ in pairs]), [label for _, label in pairs])
    everyday = [harmless(rng) for _ in range(MEASURED)]
    limits = thresholds(head.chances(reader.rows([*everyday, *held.harmless])))
    figures = measured(reader, head, limits, held, rng)
    asked.out.mkdir(parents=True)
    layer = {"head.weight": head.weight, "head.bias": head.bias}
    save_file(layer, asked.out / HEAD_FILE)
    index = {"metadata": {}, "weight_map": dict.fromkeys(layer, HEAD_FILE)}
    (asked.out / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n")
    said = {
        "architectures": [ARCHITECTURE],
        "id2label": {str(at): label for at, label in enumerate(LABELS)},
        "thresholds": limits,
        "text_encoders": reader.encoders,
    }
    (asked.out / CONFIG).write_text(json.dumps(said, indent=1) + "\n")
    card = {"model": reader.name, "seed": asked.seed, "learned": len(pairs), "figures": figures}
    (asked.out / "evaluation.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
