"""Any text classifier of transformers as a check of prompts: shares of its labels, or each alone.

It reads what was asked, whole: a longer prompt in windows that overlap, of which the highest score
of each label counts. Only safetensors, only files that are there, no code out of a model's folder.

Meta's Prompt Guard is such a classifier, and finds instructions to language models, not harm: its
labels say nothing of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from calotype.core import limits
from calotype.core.picture_checks import CheckUse
from calotype.engine.checks.base import CheckBroken, Scores, check_labels
from calotype.engine.checks.classifier import LOCAL, read_network

_OFFSET = 2  # places of a position embedding that RoBERTa and its kin leave unused


class TextCheck:
    """A loaded classifier."""

    def __init__(self, use: CheckUse, network: Any, tokenizer: Any, device: torch.device) -> None:
        self._network, self._device = network.eval().to(device), device
        self._tokenizer = tokenizer
        names = network.config.id2label
        self._labels = [str(names[at]) for at in range(len(names))]
        check_labels(use, self._labels)
        self._is_multi = network.config.problem_type == "multi_label_classification"
        places = getattr(network.config, "max_position_embeddings", None) or limits.TEXT_TOKENS_MAX
        self._room = min(places - _OFFSET, tokenizer.model_max_length, limits.TEXT_TOKENS_MAX)
        self._overlap = (self._room - tokenizer.num_special_tokens_to_add()) // 2
        if self._overlap < 1 or not tokenizer.is_fast:
            raise CheckBroken(
                f"{use.name}: its tokenizer (tokenizer.json) can't cut a text into windows of "
                f"{self._room} tokens"
            )

    @classmethod
    def load(cls, use: CheckUse, device: torch.device) -> TextCheck:
        """Read the network and its tokenizer; raises CheckBroken."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        network = read_network(AutoModelForSequenceClassification, use)
        tokenizer = AutoTokenizer.from_pretrained(use.path, **LOCAL)
        return cls(use, network, tokenizer, device)

    def scores(self, prompts: Sequence[str]) -> Sequence[Scores]:
        """The highest score of each label over the windows of each prompt."""
        said = {prompt: self._said(prompt) for prompt in dict.fromkeys(prompts)}
        return [said[prompt] for prompt in prompts]

    def _said(self, prompt: str) -> Scores:
        windows = [self._share(window) for window in self._windows(prompt)]
        best = torch.stack(windows).amax(dim=0)  # NaN stays NaN, and is no answer
        return dict(zip(self._labels, map(float, best), strict=True))

    def _windows(self, prompt: str) -> list[list[int]]:
        """Tokens, in pieces that fit the network, each beginning in the middle of the one before.

        Every piece has the special tokens. One at a time: a prompt's scores don't depend on others.
        """
        windows: list[list[int]] = self._tokenizer(
            prompt,
            truncation=True,
            max_length=self._room,
            stride=self._overlap,
            return_overflowing_tokens=True,
        ).input_ids
        if len(windows) > limits.TEXT_WINDOWS_MAX:
            raise CheckBroken(
                f"a prompt is {len(windows)} windows of {self._room} tokens",
                limit=limits.TEXT_WINDOWS_MAX,
            )
        return windows

    def _share(self, tokens: list[int]) -> torch.Tensor:
        ids = torch.tensor([tokens], device=self._device)
        logits = self._network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        logits = logits.float().cpu()
        if logits.shape != (1, len(self._labels)):
            raise CheckBroken(f"{tuple(logits.shape)} scores of {len(self._labels)} labels")
        return (logits.sigmoid() if self._is_multi else logits.softmax(dim=1))[0]
