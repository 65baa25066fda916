"""The safety checker that came with Stable Diffusion (CompVis): likeness to 17 and 3 concepts.

Its concepts are embeddings without names; Rando et al. 2022 (arXiv:2210.04610) found them to be
sexual ones only. Two scores: "concept", of the 17 that it flags by, and "special", of the 3 that
make it stricter. Each is a logistic of how far the nearest concept is past its threshold, so 0.5 is
where diffusers' own checker begins to flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from calotype.core.picture_checks import CONCEPT, SPECIAL, CheckUse
from calotype.engine.checks.base import Picture, Scores
from calotype.engine.checks.classifier import LOCAL, read_network

_STEEPNESS = 50.0  # of the logistic: cosines past a threshold are hundredths
_STRICTER = 0.01  # diffusers' own, where a special concept is found


class ConceptsCheck:
    """The loaded checker."""

    def __init__(self, network: Any, processor: Any, device: torch.device) -> None:
        self._network, self._processor = network.eval().to(device), processor
        self._device = device

    @classmethod
    def load(cls, use: CheckUse, device: torch.device) -> ConceptsCheck:
        """Read ``safety_checker`` as it lies in a Stable Diffusion folder, and its processor."""
        from diffusers.pipelines.stable_diffusion.safety_checker import (
            StableDiffusionSafetyChecker,
        )
        from transformers import AutoImageProcessor

        network = read_network(StableDiffusionSafetyChecker, use)
        processor = AutoImageProcessor.from_pretrained(use.path, backend="pil", **LOCAL)
        return cls(network, processor, device)

    def scores(self, pictures: Sequence[Picture]) -> Sequence[Scores]:
        """How far each picture is past the nearest concept of each kind."""
        network = self._network
        given = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        pooled = network.vision_model(given.to(self._device))[1]
        seen = functional.normalize(network.visual_projection(pooled))
        past = [
            (seen @ functional.normalize(embeds).T - limits).max(dim=1).values.float().cpu()
            for embeds, limits in (
                (network.special_care_embeds, network.special_care_embeds_weights),
                (network.concept_embeds, network.concept_embeds_weights),
            )
        ]
        special, concept = past[0], past[1] + _STRICTER * (past[0] > 0)
        return [
            {CONCEPT: float(one), SPECIAL: float(other)}
            for one, other in zip(_logistic(concept), _logistic(special), strict=True)
        ]


def _logistic(past: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(_STEEPNESS * past)
