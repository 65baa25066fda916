"""Finds listed words that a word is a letter or two away from: wrong, missing, swapped or doubled.

The deletion index of SymSpell (Garbe 2012): words that are near have a form in common with letters
left out. Verified by the optimal string alignment distance. Real words near a listed one are known
(``Collisions``); short words aren't guessed at, since most that is near them is a word. Two letters
are guessed at only where it is known which real words are that near (``Collisions.far``).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from itertools import combinations

from rapidfuzz.distance import OSA

from calotype.safety.lists import Collisions

SWAPPED_MIN, NEAR_MIN, FAR_MIN = 5, 6, 8  # letters of a word: swapped, one wrong, two wrong
MIDDLE_SWAPPED = 4
DOUBLED_MIN = 4
_WORDS_KEPT = 8192  # whose neighbours are remembered
_RUN = re.compile(r"(.)\1+")


class Near:
    """An index of single words."""

    def __init__(self, words: Iterable[str], collisions: Collisions) -> None:
        """``words`` are guessed at; ``collisions`` never are."""
        self._words = frozenset(words)
        self._collisions = collisions
        self._doubled = {squeezed(word): word for word in self._words if len(word) >= DOUBLED_MIN}
        # Of four letters only with the two in the middle swapped: most else is another word.
        self._middle = {
            word[0] + word[2] + word[1] + word[3]: word
            for word in self._words
            if len(word) == MIDDLE_SWAPPED
        }
        self._keys: dict[str, list[str]] = {}
        for word in sorted(self._words):
            for key in _forms(word, _wrong_max(word)):
                self._keys.setdefault(key, []).append(word)
        self._chars_max = max((len(word) + 2 for word in self._words), default=0)
        self._of = functools.lru_cache(_WORDS_KEPT)(self._found)

    def to(self, word: str) -> tuple[str, ...]:
        """The listed words that this one is near to, and isn't."""
        if len(word) == MIDDLE_SWAPPED:
            term = self._middle.get(word)
            is_word = word in self._words or word in self._collisions.near
            return () if term is None or is_word else (term,)
        if not SWAPPED_MIN <= len(word) <= self._chars_max or not word.isalpha():
            return ()
        return self._of(word)

    def _found(self, word: str) -> tuple[str, ...]:
        if word in self._words or word in self._collisions.near:
            return ()
        found: dict[str, None] = {}
        doubled = self._doubled.get(squeezed(word))
        if doubled is not None and len(word) == len(doubled) + 1:
            found[doubled] = None
        is_real = word in self._collisions.far or not self._collisions.far
        terms = {term for key in _forms(word, 2) for term in self._keys.get(key, ())}
        for term in sorted(terms):
            match OSA.distance(word, term):
                case 1:
                    is_near = len(term) >= NEAR_MIN or sorted(term) == sorted(word)
                case 2:
                    is_near = len(term) >= FAR_MIN and not is_real
                case _:
                    is_near = False
            if is_near:
                found[term] = None
        return tuple(found)


def squeezed(word: str) -> str:
    """The word with every letter once where it is repeated."""
    return _RUN.sub(r"\1", word)


def _wrong_max(word: str) -> int:
    if len(word) >= FAR_MIN:
        return 2
    return 1 if len(word) >= SWAPPED_MIN else -1


def _forms(word: str, most: int) -> Iterator[str]:
    """The word with no letter left out, one, and up to ``most`` (below 0: nothing)."""
    places = range(len(word))
    for count in range(most + 1):
        for left_out in combinations(places, count):
            yield "".join(word[at] for at in places if at not in left_out)
