"""Texts already encoded: the same prompt again, or the next image of a job, costs nothing."""

from __future__ import annotations

from collections import OrderedDict

from calotype.core import limits
from calotype.engine.models import Encoding, Model


class Encodings:
    """The least recently used go first; keyed by model, its build and the text."""

    def __init__(self, size_max: int = limits.ENCODINGS_CACHED_MAX) -> None:
        self._kept: OrderedDict[tuple[str, str, str], Encoding] = OrderedDict()
        self._size_max = size_max

    def __len__(self) -> int:
        return len(self._kept)

    def encode(self, model: Model, text: str) -> Encoding:
        """The text's encoding by this model, remembered or made."""
        key = (model.name, model.build, text)
        encoding = self._kept.get(key)
        if encoding is None:
            encoding = self._kept[key] = model.encode(text)
            if len(self._kept) > self._size_max:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return encoding

    def conditions(
        self, model: Model, prompt: str, negative: str, *, guided: bool
    ) -> tuple[Encoding, ...]:
        """A row's encodings, one a forward: the prompt's, with guidance after the negative's."""
        positive = self.encode(model, prompt)
        if not guided:
            return (positive,)
        empty = model.encode_negative(negative, positive)
        return (empty if empty is not None else self.encode(model, negative), positive)
