"""What listed phrases look like in disguise: the forms of them that are looked for.

Words cut in two or three or written at others, phrases with two letters swapped or with the digits
that folding makes of Cyrillic letters, words with letters masked. Forms that are real words are
known (``Collisions``) and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise

from calotype.safety.lists import Collisions, Lists
from calotype.safety.views import spaced, unleet

_CUT_MIN, _CUT_TWICE_MIN = 4, 6  # letters of a word that is looked for in two and three pieces
_MASKED_MIN = 4
_EASTERN_SWAPPED_MIN = 3  # characters
_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]+")
# Words that people write at a listed one without a space between.
_ATTACHED = (
    "woman",
    "women",
    "girl",
    "girls",
    "man",
    "men",
    "boy",
    "boys",
    "body",
    "lady",
    "people",
)


def disguised(
    guessed: Iterable[str], hard: Iterable[str], collisions: Collisions
) -> dict[str, tuple[str, str]]:
    """Forms by pattern: the phrase that each stands for, and how.

    ``guessed`` are single words; ``hard`` phrases that are refused by themselves.
    """
    patterns: dict[str, tuple[str, str]] = {}
    for phrase in guessed:
        for pieces in cuts(phrase):
            if pieces not in collisions.splits:
                patterns[spaced([pieces])] = (phrase, "cut")
        for both in _attached(phrase):
            if both not in collisions.near:
                patterns[spaced([both])] = (phrase, "attached")
    for phrase in hard:
        if eastern(phrase):
            patterns |= dict.fromkeys(_swapped(phrase), (phrase, "swapped"))
        else:
            swapped = [it for it in swaps(phrase) if it not in collisions.swaps]
            patterns |= dict.fromkeys((spaced([it]) for it in swapped), (phrase, "swapped"))
            patterns |= dict.fromkeys(_read_as_letters(phrase), (phrase, "leet"))
    return patterns


def _attached(word: str) -> Iterator[str]:
    if len(word) >= _MASKED_MIN:
        for other in _ATTACHED:
            yield from (word + other, other + word)


def _read_as_letters(phrase: str) -> Iterator[str]:
    """A phrase whose Cyrillic letters are folded to digits, as digits are read."""
    read = " ".join(map(unleet, phrase.split()))
    if read != phrase:
        yield spaced([read])


def guessed_phrases(lists: Lists) -> list[str]:
    """The single words of the shipped lists that disguises are looked for of."""
    every = (phrase for each in (*lists.block.values(), *lists.others.values()) for phrase in each)
    return [word for word in dict.fromkeys(every) if can_be_guessed(word)]


def can_be_guessed(phrase: str) -> bool:
    """Whether it is a word of letters: not of several, and not East Asian."""
    return " " not in phrase and phrase.isalpha() and not eastern(phrase)


def eastern(phrase: str) -> bool:
    """Whether some of it is Chinese or Japanese."""
    return _EAST_ASIAN.search(phrase) is not None


def _swapped(phrase: str) -> Iterator[str]:
    """An East Asian phrase with two neighbours swapped; none of a short one, or of three kana."""
    least = _EASTERN_SWAPPED_MIN + (_KANA.fullmatch(phrase) is not None)
    return _swapped_from(0, phrase) if len(phrase) >= least else iter(())


def swaps(phrase: str) -> Iterator[str]:
    """Words with two neighbours swapped, one of which may be a space; never the first letter.

    None of what ``near`` sees to.
    """
    if can_be_guessed(phrase):
        return iter(())
    return (other for other in _swapped_from(1, phrase) if other == " ".join(other.split()))


def _swapped_from(first: int, phrase: str) -> Iterator[str]:
    for at in range(first, len(phrase) - 1):
        other = phrase[:at] + phrase[at + 1] + phrase[at] + phrase[at + 2 :]
        if other != phrase:
            yield other


def cuts(word: str) -> Iterator[str]:
    """The word in two pieces, and a longer one in three, with spaces between."""
    for count, shortest in ((1, _CUT_MIN), (2, _CUT_TWICE_MIN)):
        if len(word) >= shortest:
            for places in combinations(range(1, len(word)), count):
                ends = (0, *places, len(word))
                yield " ".join(word[a:b] for a, b in pairwise(ends))


def by_mask(words: Iterable[str]) -> dict[str, list[str]]:
    """Words by themselves with one letter, or two together, as stars; never the first."""
    found: dict[str, list[str]] = {}
    for word in words:
        for count in (1, 2):
            for place in range(1, len(word) - count):
                if len(word) >= _MASKED_MIN:
                    key = word[:place] + "*" * count + word[place + count :]
                    found.setdefault(key, []).append(word)
    return found
