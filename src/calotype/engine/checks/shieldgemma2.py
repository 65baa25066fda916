"""ShieldGemma 2 (arXiv:2504.01081) as a check: for each policy, how likely "Yes, it violates".

One pass for all policies of all pictures of a batch; its labels are its policies' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from calotype.core.picture_checks import CheckUse
from calotype.engine.checks.base import CheckBroken, Picture, Scores, check_labels
from calotype.engine.checks.classifier import LOCAL, as_stored, read_network

_YES = 0  # of the two logits that its class gives


class ShieldGemma2Check:
    """The loaded model."""

    def __init__(self, use: CheckUse, network: Any, processor: Any, device: torch.device) -> None:
        self._network, self._processor = network.eval().to(device), processor
        self._device = device
        self._policies = list(processor.policy_definitions)
        check_labels(use, self._policies)

    @classmethod
    def load(cls, use: CheckUse, device: torch.device) -> ShieldGemma2Check:
        """Read the model and its processor; raises CheckBroken."""
        from transformers import AutoProcessor, ShieldGemma2ForImageClassification

        network = as_stored(read_network(ShieldGemma2ForImageClassification, use), use)
        processor = AutoProcessor.from_pretrained(use.path, backend="pil", **LOCAL)
        return cls(use, network, processor, device)

    def scores(self, pictures: Sequence[Picture]) -> Sequence[Scores]:
        """The chance of a violation, by policy."""
        images = [Image.fromarray(picture) for picture in pictures]
        given = self._processor(images=images, policies=self._policies, return_tensors="pt")
        given = given.to(self._device)
        shares = self._network(**given).probabilities.float().cpu()
        count = len(self._policies)
        if shares.shape != (len(pictures) * count, 2):
            raise CheckBroken(f"{tuple(shares.shape)} scores of {len(pictures)} x {count} policies")
        yes = shares[:, _YES].view(len(pictures), count)
        return [dict(zip(self._policies, map(float, each), strict=True)) for each in yes]
