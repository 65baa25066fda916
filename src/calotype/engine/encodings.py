"""Texts already encoded: the same prompt again, or the next image of a job, costs nothing."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from calotype.core import limits
from calotype.engine.families.base import Encoding, Model
from calotype.engine.recent import Recent
from calotype.engine.tensors import bytes_of


class Encodings:
    """The least recently used go first; keyed by model, its build and the text."""

    def __init__(self, size_max: int = limits.ENCODINGS_CACHED_MAX) -> None:
        self._kept: Recent[tuple[str, str, str], Encoding] = Recent(size_max)

    def __len__(self) -> int:
        return len(self._kept)

    def tensors(self) -> Iterator[torch.Tensor]:
        """Of all that is kept."""
        for encoding in self._kept.values():
            yield from encoding.tensors.values()

    def forget(self, model: Model) -> None:
        """The model is leaving."""
        self._kept.drop(lambda key: key[0] == model.name)

    def give_up(self, count: int) -> None:
        """Forget what was used longest ago, of so many bytes; rows keep theirs."""
        while count > 0 and len(self._kept):
            count -= bytes_of(self._kept.pop_oldest().tensors.values())

    def encode(self, model: Model, text: str) -> Encoding:
        """The text's encoding by this model, remembered or made."""
        return self._kept.get((model.name, model.build, f"+{text}"), lambda: model.encode(text))

    def conditions(
        self, model: Model, prompt: str, negative: str, *, guided: bool
    ) -> tuple[Encoding, ...]:
        """A row's encodings, one a forward: the prompt's, with guidance after the negative's."""
        positive = self.encode(model, prompt)
        if not guided:
            return (positive,)
        key = (model.name, model.build, f"-{negative}")
        return (self._kept.get(key, lambda: model.encode_negative(negative, positive)), positive)
