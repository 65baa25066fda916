"""The embedded text classifier: several labels, linear over n-grams of letters and of words.

It reads text as the views have it, in windows, so that a long harmless prompt doesn't water down a
short harmful part. Trained by training/safety_classifier.py, whose card says on what and how well;
here is only the arithmetic, in NumPy.

Features are those of scikit-learn's TfidfVectorizer (analyzers "char_wb" and "word", sublinear
counts, each block scaled to length 1); a test holds the two equal.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from calotype.core.errors import OperatorError
from calotype.safety.errors import SafetyUnavailable
from calotype.safety.views import Views

LABELS = ("sexual", "violence", "gore", "hate", "self_harm", "illegal", "harassment")
SHIPPED = Path(__file__).with_name("prompt_classifier.safetensors")
WINDOW_WORDS, STRIDE_WORDS = 12, 6  # twice as long, padding hid three wishes of four
CHAR_NGRAMS, WORD_NGRAMS = (2, 5), (1, 2)
_WORD_CHARS_MAX = 40  # of a longer word only the beginning counts
_WINDOWS_MAX = 2_000  # of one text; the longest prompt of one-letter words has 170 in each view
_WORDS_KEPT = 8192  # whose n-grams are remembered
# Beside the plain view, where they have words that it hasn't.
_OTHER_VIEWS = ("leet", "letters set apart", "mojibake, plain", "entities, plain")

ONE_IS_ENOUGH = {"self_harm"}  # a fifth of such wishes not learned from would be lost
_SURE = 3.0  # past a threshold, as a logit: enough by itself
_SOMETHING = math.log(0.02 / 0.98)  # a logit: less is nothing

Floats = NDArray[np.float32]


class TextClassifier:
    """Scores a text, 0..1 for each label."""

    def __init__(
        self,
        chars: list[str],
        words: list[str],
        *,
        weights: Floats,
        bias: Floats,
        idf: Floats,
        thresholds: dict[str, float],
    ) -> None:
        """``weights``: labels x features (chars, then words); ``bias``: labels; ``idf``: features.

        Raises SafetyUnavailable when sizes don't fit, a number isn't finite, or a threshold is
        missing: a damaged classifier judges nothing.
        """
        shape = (len(LABELS), len(chars) + len(words))
        if weights.shape != shape or bias.shape != shape[:1] or idf.shape != shape[1:]:
            raise SafetyUnavailable(f"the prompt classifier has weights of shape {weights.shape}")
        if not all(np.isfinite(each).all() for each in (weights, bias, idf)):
            raise SafetyUnavailable("the prompt classifier has weights that aren't numbers")
        if set(thresholds) != set(LABELS) or not all(0 < each < 1 for each in thresholds.values()):
            raise SafetyUnavailable(f"the prompt classifier has no thresholds for {LABELS}")
        self.thresholds = {label: thresholds[label] for label in LABELS}
        self._chars = {gram: index for index, gram in enumerate(chars)}
        self._words = {gram: len(chars) + index for index, gram in enumerate(words)}
        self._first_word = len(chars)
        self._weights = np.ascontiguousarray(weights.T, np.float32)
        self._bias, self._idf = bias.astype(np.float32), idf.astype(np.float32)
        parts = (self._weights, self._bias, self._idf)
        content = b"".join(each.tobytes() for each in parts) + json.dumps(self.thresholds).encode()
        self.version = hashlib.sha256(content).hexdigest()[:12]
        self._in_word = functools.lru_cache(_WORDS_KEPT)(self._grams_of)

    @classmethod
    def shipped(cls) -> TextClassifier:
        """The one that ships with the package; raises SafetyUnavailable if it is damaged."""
        return _shipped()

    @classmethod
    def from_file(cls, path: Path) -> TextClassifier:
        """One in safetensors; raises OperatorError naming the file if it isn't one."""
        try:
            with safe_open(path, framework="numpy") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                about: dict[str, Any] = json.loads((file.metadata() or {})["classifier"])
            grams = tensors["grams"].tobytes().decode().split("\n")
            return cls(
                grams[: about["chars"]],
                grams[about["chars"] :],
                weights=tensors["weights"].astype(np.float32),
                bias=tensors["bias"].astype(np.float32),
                idf=tensors["idf"].astype(np.float32),
                thresholds=about["thresholds"],
            )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise OperatorError(f"{path} isn't a prompt classifier: {error}") from error

    @property
    def grams(self) -> tuple[list[str], list[str]]:
        """The n-grams of letters and those of words, in the order of the weights."""
        return list(self._chars), list(self._words)

    @property
    def tensors(self) -> dict[str, Floats]:
        """The numbers that the constructor takes."""
        weights = np.ascontiguousarray(self._weights.T)  # files take memory as it lies
        return {"weights": weights, "bias": self._bias, "idf": self._idf}

    def with_thresholds(self, thresholds: dict[str, float]) -> TextClassifier:
        """The same classifier, refusing from other scores on."""
        chars, words = self.grams
        return TextClassifier(chars, words, **self.tensors, thresholds=thresholds)

    def scores(self, seen: Views) -> dict[str, float]:
        """The highest score of each label, 0..1, over all windows of the views.

        Raises SafetyUnavailable when a score isn't a number.
        """
        logits = np.stack([self._logits(window) for window in self._all_windows(seen)])
        best = 1 / (1 + np.exp(-(logits + self._bias).max(axis=0)))
        if best.shape != (len(LABELS),) or not np.isfinite(best).all():
            raise SafetyUnavailable("the prompt classifier gave no number")
        return dict(zip(LABELS, map(float, best), strict=True))

    def rests_on_one_word(self, seen: Views, label: str) -> bool:
        """Whether a text's score is past its threshold for a single word in it, and not by much.

        Without that word nothing is left of it: "a race track" is no more hate than "a track". It
        is asked of texts whose score is past the threshold.
        """
        if label in ONE_IS_ENOUGH:
            return False
        place, threshold = LABELS.index(label), _logit(self.thresholds[label])
        for words in self._all_windows(seen):
            score = self._logits(words)[place] + self._bias[place]
            if score >= threshold + _SURE:
                return False
            if score >= threshold and len(words) > 1:
                others = [words[:at] + words[at + 1 :] for at in range(len(words))]
                least = min(self._logits(each)[place] for each in others) + self._bias[place]
                if least >= _SOMETHING:
                    return False
        return True

    def _all_windows(self, seen: Views) -> list[list[str]]:
        plain = seen.words["plain"].split()
        windows = list(_windows(plain))
        known = set(plain)
        for name in _OTHER_VIEWS:
            others = _windows(seen.words.get(name, "").split())
            windows += [window for window in others if not known.issuperset(window)]
        if len(windows) > _WINDOWS_MAX:
            raise SafetyUnavailable(f"a text has more than {_WINDOWS_MAX} windows")
        return windows

    def _logits(self, words: list[str]) -> Floats:
        chars = [self._in_word(word[:_WORD_CHARS_MAX]) for word in words]
        grams = [self._words[gram] for gram in word_grams(words) if gram in self._words]
        indices, counts = np.unique(
            np.concatenate([*chars, np.array(grams, np.intp)]), return_counts=True
        )
        values = ((1 + np.log(counts)) * self._idf[indices]).astype(np.float32)
        border = int(np.searchsorted(indices, self._first_word))
        for block in (slice(border), slice(border, None)):
            length = math.sqrt(float(values[block] @ values[block]))
            values[block] /= length or 1.0
        return np.asarray(values @ self._weights[indices], np.float32)

    def _grams_of(self, word: str) -> NDArray[np.intp]:
        found = [self._chars[gram] for gram in char_grams(word) if gram in self._chars]
        return np.array(found, np.intp)


@functools.cache
def _shipped() -> TextClassifier:
    return TextClassifier.from_file(SHIPPED)


def _logit(score: float) -> float:
    return math.log(score / (1 - score))


def char_grams(word: str) -> Iterator[str]:
    """Pieces of a word with a space at each end: scikit-learn's "char_wb"."""
    padded = f" {word} "
    for length in range(CHAR_NGRAMS[0], CHAR_NGRAMS[1] + 1):
        if length >= len(padded):
            yield padded  # a short word counts once as a whole
            return
        for start in range(len(padded) - length + 1):
            yield padded[start : start + length]


def word_grams(words: list[str]) -> Iterator[str]:
    """Words and pairs of neighbours."""
    yield from words
    for one, other in pairwise(words):
        yield f"{one} {other}"


def _windows(words: list[str]) -> Iterator[list[str]]:
    for start in range(0, max(len(words) - STRIDE_WORDS, 1), STRIDE_WORDS):
        yield words[start : start + WINDOW_WORDS]
