"""A linear probe: a few numbers a label over a frozen encoder, made by ``calotype safety train``.

Its chances (a softmax, calibrated) are told so that 0.5 is the threshold that its card tells of:
``odds / (odds + odds of the threshold)``, which keeps their order. Harmless labels have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from calotype.core.picture_checks import HEAD_FILE, CheckUse
from calotype.engine.checks.base import CheckBroken, Picture, Scores, check_labels
from calotype.engine.checks.encoders import CONFIG, Encoder, packed

EVEN = 0.5  # the threshold that changes nothing


class ProbeCheck:
    """The loaded encoder and head."""

    def __init__(
        self,
        encoder: Encoder,
        weight: torch.Tensor,  # labels x width
        bias: torch.Tensor,  # labels
        labels: Sequence[str],
        thresholds: Mapping[str, float],  # chances, inside 0..1
    ) -> None:
        self._encoder, self._network = encoder, encoder.network
        self._weight, self._bias, self._labels = weight, bias, list(labels)
        self._thresholds = torch.tensor([thresholds.get(label, EVEN) for label in labels]).double()

    @classmethod
    def load(cls, use: CheckUse, device: torch.device) -> ProbeCheck:
        """Read head and encoder; raises CheckBroken for what doesn't fit together."""
        folder = Path(use.path)
        try:
            said = json.loads((folder / CONFIG).read_bytes())
            labels = [str(said["id2label"][str(at)]) for at in range(len(said["id2label"]))]
            thresholds = {str(k): float(v) for k, v in said["thresholds"].items()}
            head = load_file(folder / HEAD_FILE)
            weight, bias = head["head.weight"].float(), head["head.bias"].float()
            width = int(said["encoder"]["width"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckBroken(f"{folder} is no probe: {error}"[:500], field="path") from error
        check_labels(use, labels)
        _check_numbers(use, weight, bias, thresholds)
        encoder = packed(said["encoder"], folder, device)
        wanted = (len(labels), int(encoder.said["width"]))
        if tuple(weight.shape) != wanted or tuple(bias.shape) != wanted[:1] or width != wanted[1]:
            raise CheckBroken(
                f"{use.name}: its head is {tuple(weight.shape)}, and its encoder's rows have "
                f"{wanted[1]} numbers for {wanted[0]} labels",
                field="encoder",
                limit=list(wanted),
            )
        return cls(encoder, weight, bias, labels, thresholds)

    def scores(self, pictures: Sequence[Picture]) -> Sequence[Scores]:
        """Of each label, 0..1; from 0.5 on it is past its threshold."""
        logits = self._encoder.features(pictures) @ self._weight.T + self._bias
        chances, limits = logits.double().softmax(dim=1), self._thresholds
        past = chances * (1 - limits)
        told = past / (past + (1 - chances) * limits)
        return [dict(zip(self._labels, map(float, each), strict=True)) for each in told]


def _check_numbers(
    use: CheckUse, weight: torch.Tensor, bias: torch.Tensor, thresholds: Mapping[str, Any]
) -> None:
    if not (bool(torch.isfinite(weight).all()) and bool(torch.isfinite(bias).all())):
        raise CheckBroken(f"{use.name} has weights that aren't numbers")
    if not all(0.0 < each < 1.0 for each in thresholds.values()):
        raise CheckBroken(f"{use.name} has thresholds that aren't inside 0..1", field="thresholds")
