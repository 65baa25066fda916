"""A recogniser: what a prompt asks for, told from what the model's own text encoder makes of it.

A linear layer over the embedding at the end of the text (SafeGuider: Qi et al. 2025,
arXiv:2510.05173), one chance a label. It costs nothing beside the encoding, which the picture needs
anyway, and sees what the denoiser will see, whatever the spelling. It is of one text encoder, and
says nothing of another's embeddings. Trained by ``training/recogniser.py``.

A chance is told so that 0.5 is the label's threshold, as its card tells of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from calotype.core.picture_checks import HEAD_FILE, CheckUse
from calotype.engine.checks.base import CheckBroken, Scores, check_labels

CONFIG = "config.json"
ARCHITECTURE = "CalotypeRecogniserForSequenceClassification"  # as the registry tells kinds apart


@dataclass(frozen=True)
class Ending:
    """What a text encoder made of the end of one prompt."""

    embedding: torch.Tensor  # (width,) float32
    contents: tuple[str, ...]  # of the model's parts; empty: not known


def encoders_of(use: CheckUse) -> tuple[str, ...]:
    """The contents of the text encoders that it was trained on; raises CheckBroken."""
    file = Path(use.path) / CONFIG
    try:
        return tuple(str(each) for each in json.loads(file.read_bytes())["text_encoders"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckBroken(f"{file} names no text encoders: {error}"[:500], field="path") from error


class RecogniserCheck:
    """The loaded layer, on the CPU."""

    def __init__(
        self,
        use: CheckUse,
        network: nn.Linear,
        thresholds: Mapping[str, float],
        encoders: Sequence[str] = (),
    ) -> None:
        """``thresholds``: chances inside 0..1, of each label; ``encoders``: contents, if known."""
        self._network, self._labels = network.eval(), list(use.labels)
        self._limits = [thresholds[label] for label in self._labels]
        self._encoders = frozenset(encoders)

    @classmethod
    def load(cls, use: CheckUse, device: torch.device | None = None) -> RecogniserCheck:
        """Read layer and configuration, whatever the device; raises CheckBroken."""
        folder = Path(use.path)
        try:
            said: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
            labels = [str(said["id2label"][str(at)]) for at in range(len(said["id2label"]))]
            thresholds = {label: float(said["thresholds"][label]) for label in labels}
            encoders = [str(each) for each in said["text_encoders"]]
            head = load_file(folder / HEAD_FILE)
            weight, bias = head["head.weight"].float(), head["head.bias"].float()
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckBroken(f"{folder} is no recogniser: {error}"[:500], field="path") from error
        check_labels(use, labels)
        if weight.ndim != 2 or tuple(bias.shape) != (len(labels),) or len(weight) != len(labels):
            raise CheckBroken(f"{use.name}: {tuple(weight.shape)} weights of {len(labels)} labels")
        if not (bool(torch.isfinite(weight).all()) and bool(torch.isfinite(bias).all())):
            raise CheckBroken(f"{use.name} has weights that aren't numbers")
        if not all(0.0 < each < 1.0 for each in thresholds.values()):
            raise CheckBroken(f"{use.name} has thresholds that aren't inside 0..1")
        network = nn.Linear(weight.shape[1], len(labels))
        order = [labels.index(label) for label in use.labels]
        network.load_state_dict({"weight": weight[order], "bias": bias[order]})
        return cls(use, network.requires_grad_(requires_grad=False), thresholds, encoders)

    def scores(self, given: Sequence[Ending]) -> Sequence[Scores]:
        """Of each label, 0..1; from 0.5 on it is past its threshold."""
        return [self._told(each) for each in given]

    def _told(self, ending: Ending) -> Scores:
        if missing := self._encoders.difference(ending.contents):
            others = ", ".join(sorted(missing))
            raise CheckBroken(f"it was trained on another text encoder ({others})"[:500])
        width = self._network.in_features
        if tuple(ending.embedding.shape) != (width,):
            raise CheckBroken(f"{tuple(ending.embedding.shape)} numbers of a text; it has {width}")
        logits = self._network(ending.embedding.float().cpu()[None])[0].double()
        return {
            label: _against(float(chance), limit)
            for label, chance, limit in zip(
                self._labels, torch.sigmoid(logits), self._limits, strict=True
            )
        }


def _against(chance: float, limit: float) -> float:
    """The chance's odds against the threshold's, as a number that is 0.5 where they are equal."""
    if not math.isfinite(chance):
        return math.nan
    past = chance * (1 - limit)
    return past / (past + (1 - chance) * limit)
