"""Any image classifier of transformers as a check: a softmax over its labels, or one for each.

Only safetensors, only files that are there, no code out of a model's folder. Image processors are
those of Pillow (torchvision isn't needed).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from calotype.core.picture_checks import CheckUse
from calotype.engine.checks.base import CheckBroken, Picture, Scores, check_labels, check_weights

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class ClassifierCheck:
    """A loaded classifier."""

    def __init__(self, use: CheckUse, network: Any, processor: Any, device: torch.device) -> None:
        self._network = network.eval().to(device)
        self._processor, self._device = processor, device
        names = network.config.id2label
        self._labels = [str(names[at]) for at in range(len(names))]
        check_labels(use, self._labels)
        self._is_multi = network.config.problem_type == "multi_label_classification"

    @classmethod
    def load(cls, use: CheckUse, device: torch.device) -> ClassifierCheck:
        """Read the network and its processor; raises CheckBroken."""
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        network = read_network(AutoModelForImageClassification, use)
        processor = AutoImageProcessor.from_pretrained(use.path, backend="pil", **LOCAL)
        return cls(use, network, processor, device)

    def scores(self, pictures: Sequence[Picture]) -> Sequence[Scores]:
        """The share of each label, or how likely each is by itself."""
        given = self._processor(images=list(pictures), return_tensors="pt")
        logits = self._network(given["pixel_values"].to(self._device)).logits.float().cpu()
        if logits.shape != (len(pictures), len(self._labels)):
            raise CheckBroken(f"{tuple(logits.shape)} scores of {len(self._labels)} labels")
        shares = logits.sigmoid() if self._is_multi else logits.softmax(dim=1)
        return [dict(zip(self._labels, map(float, each), strict=True)) for each in shares]


def read_network(kind: Any, use: CheckUse) -> Any:
    """A network of transformers in float32, on the CPU; raises CheckBroken.

    Whatever dtype its files have: transformers would make another one torch's default meanwhile,
    for all threads, and so for the noise and the sizes of pictures that are being made.
    """
    check_weights(Path(use.path))
    network, told = kind.from_pretrained(
        use.path, use_safetensors=True, output_loading_info=True, dtype=torch.float32, **LOCAL
    )
    _check_whole(use, told)
    return network


def as_stored(network: Any, use: CheckUse) -> Any:
    """It again in the dtype that its configuration names: for those too large for float32."""
    from transformers import AutoConfig

    return network.to(AutoConfig.from_pretrained(use.path, **LOCAL).dtype or torch.float32)


def _check_whole(use: CheckUse, told: Any) -> None:
    """Refuse weights with parts missing: transformers would fill them by chance, and go on."""
    missing = sorted(told["missing_keys"]) + [str(it) for it in told["mismatched_keys"]]
    if missing:
        raise CheckBroken(f"{use.name}: its weights lack {', '.join(missing)[:300]}")
