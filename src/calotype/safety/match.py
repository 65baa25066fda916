"""Finds the phrases of several lists in a reading of a text, as whole words, in one pass.

It knows neither what the lists mean nor what follows from a hit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from calotype.safety.text import Reading, is_stretched, readings, squeeze

_APART_LETTERS_MIN = 4  # shorter words are looked for only as the whole of a run of letters


class Matcher:
    """An index of phrases by their first word."""

    def __init__(self, lists: Mapping[str, Iterable[str]], *, harmless: Iterable[str]) -> None:
        """``lists``: phrases (words with single spaces between) by the name of their list.

        A phrase doesn't count where it stands wholly inside one of the ``harmless`` phrases.
        """
        # Phrases by first word, each with its list; None stands for the harmless ones.
        self._by_first: dict[str, list[tuple[tuple[str, ...], str | None]]] = {}
        self._single: dict[str, set[str]] = {}  # the phrases of one word, and their lists
        self._squeezed: dict[str, set[str]] = {}
        for name, phrases in lists.items():
            for phrase in phrases:
                self._add(tuple(phrase.split()), name)
        for phrase in harmless:
            self._add(tuple(phrase.split()), None)
        self._words = frozenset().union(*self._squeezed.values())  # all words of all phrases

    def hits(self, reading: Reading) -> set[str]:
        """The names of the lists of which a phrase was found."""
        found = self._in_letters(reading.apart)
        for line in reading.lines:
            found |= self._in_line(line, stretched=reading.is_stretched)
        return found

    def _add(self, words: tuple[str, ...], name: str | None) -> None:
        self._by_first.setdefault(words[0], []).append((words, name))
        for word in words:
            self._squeezed.setdefault(squeeze(word), set()).add(word)
        if name is not None and len(words) == 1:
            self._single.setdefault(words[0], set()).add(name)

    def _in_line(self, line: list[str], *, stretched: bool) -> set[str]:
        known = {word: self._known(word, stretched=stretched) for word in set(line)}
        seen = [known[word] for word in line]
        spans: list[tuple[range, str]] = []
        harmless: set[int] = set()
        for start, here in enumerate(seen):
            for first in here:
                for phrase, name in self._by_first.get(first, ()):
                    there = seen[start : start + len(phrase)]
                    if len(there) < len(phrase) or not all(map(_is_in, phrase, there)):
                        continue
                    span = range(start, start + len(phrase))
                    if name is None:
                        harmless.update(span)
                    else:
                        spans.append((span, name))
        return {name for span, name in spans if not harmless.issuperset(span)}

    def _known(self, word: str, *, stretched: bool) -> frozenset[str]:
        """Which words of the phrases this word of a text may be."""
        if not stretched and word.isalpha():  # the usual case, kept quick
            return frozenset((word,)) & self._words
        found: set[str] = set()
        for each in readings(word):
            found.add(each)
            if is_stretched(each):
                found |= self._squeezed.get(squeeze(each), set())
        return self._words & found

    def _in_letters(self, runs: tuple[str, ...]) -> set[str]:
        together = "\n".join(runs)  # no word holds a line's end, so one search does for all runs
        found: set[str] = set()
        for word, names in self._single.items() if runs else ():
            if word in (together if len(word) >= _APART_LETTERS_MIN else runs):
                found |= names
        return found


def _is_in(word: str, readings_there: frozenset[str]) -> bool:
    return word in readings_there
