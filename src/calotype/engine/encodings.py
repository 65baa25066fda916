"""Texts already encoded: the same prompt again, or the next image of a job, costs nothing."""

from __future__ import annotations

from calotype.core import limits
from calotype.engine.families.base import Encoding, Model
from calotype.engine.recent import Recent


class Encodings:
    """The least recently used go first; keyed by model, its build and the text."""

    def __init__(self, size_max: int = limits.ENCODINGS_CACHED_MAX) -> None:
        self._kept: Recent[tuple[str, str, str], Encoding] = Recent(size_max)

    def __len__(self) -> int:
        return len(self._kept)

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
