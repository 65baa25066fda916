"""Finds listed phrases in every view of a text, as whole words, each view in one pass.

It guesses too, with the shipped lists only: words a letter or two away (``near``), words with
letters masked, words backwards, and words cut in two or three. Real words that such a guess would
hit are known (``Collisions``); a text that hides something inside a word gets no such benefit for
words that were cut. It knows neither what the lists mean nor what follows from a hit.

Search: Aho and Corasick 1975.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ahocorasick_rs import AhoCorasick

from calotype.safety.guesses import by_mask, can_be_guessed, cuts, disguised, eastern
from calotype.safety.lists import Collisions, Lists
from calotype.safety.near import Near, squeezed
from calotype.safety.views import Views, spaced, unstretched

_INSIDE_MIN = 4  # shorter words are looked for only as the whole of a run of letters
_PIECES_INSIDE_MIN = 5  # the same, where the pieces may be two letters
_NUMBER_MIN = 5  # letters of a phrase that numbers are read for
_BACKWARDS_MIN, _BACKWARDS_ATTACHED_MIN = 4, 8
_NUMERAL = re.compile(r"[0-9一二三四五六七八九十百]")
_LONG_EASTERN_RUN = re.compile(r"([^\W\d_])\1\1+")
_DOUBLED = re.compile(r"(?:([^\W\d_])\1){2,}")
_LONG_RUN = re.compile(r"(.)\1\1")


@dataclass(frozen=True, order=True)
class Hit:
    """A listed phrase that was found."""

    name: str  # of its list
    term: str
    view: str  # in which it was seen


class Matcher:
    """An index of the phrases of several lists."""

    def __init__(
        self,
        lists: Mapping[str, Iterable[str]],
        *,
        allowed: Iterable[str] = (),
        allowed_beside: Mapping[str, Iterable[str]] | None = None,
        exact: frozenset[str] = frozenset(),
        hard: Iterable[str] = (),
        collisions: Collisions | None = None,
    ) -> None:
        """``lists``: phrases (words with single spaces between) by the name of their list.

        A phrase doesn't count where it stands wholly inside one that is ``allowed``, or that is
        ``allowed_beside`` a word which the text has too. Phrases in ``exact`` aren't guessed at.
        Those in ``hard`` are what is refused by itself: their disguises are looked for that would
        take other lists' words for harmless ones.
        """
        self._collisions = collisions or Collisions()
        self._names: dict[str, list[str]] = {}  # the lists of each phrase
        for name, phrases in lists.items():
            for phrase in phrases:
                self._names.setdefault(phrase, []).append(name)
        self._hard = frozenset(hard)
        self._allowed = frozenset(allowed)
        self._beside = {phrase: tuple(words) for phrase, words in (allowed_beside or {}).items()}
        guessed = [
            phrase for phrase in self._names if can_be_guessed(phrase) and phrase not in exact
        ]
        self._patterns = self._patterns_of(guessed, frozenset(hard))
        self._words = _index(self._patterns)
        self._split = {
            spaced([pieces]): phrase
            for phrase in guessed
            for pieces in cuts(phrase)
            if pieces in self._collisions.splits
        }
        self._splits = _index(self._split)
        self._inside = [
            phrase.replace(" ", "") for phrase in self._names if len(phrase) >= _INSIDE_MIN
        ]
        self._inside_terms = dict(zip(self._inside, _long(self._names), strict=True))
        self._letters = _index(self._inside)
        self._squeezed = _by_squeezed(self._names)
        # Words of phrases, which stand backwards in their place among the others.
        self._of_phrases = frozenset(
            word
            for phrase in self._names
            if " " in phrase
            for word in phrase.split()
            if len(word) >= _BACKWARDS_MIN and word.isalpha()
        )
        self.near = Near(guessed, self._collisions)
        self._by_mask = by_mask(guessed)

    def hits(self, views: Views) -> set[Hit]:
        """Every phrase found, in any view."""
        plain = views.words["plain"]
        found: set[Hit] = set()
        for name, text in self._all_views(views):
            found |= self._in_words(text, name, plain)
            found |= self._backwards(text[::-1], plain)
        for view, text in _joined_views(views.joined):
            found |= self._in_joined(text, view)
        if views.joined:
            found |= self._eastern_backwards(views)
        if views.numbers:
            found |= self._in_numbers(views.numbers, plain)
        if views.hides:
            found |= self._cut(plain)
        for runs, shortest, view in (
            (views.runs, _INSIDE_MIN, "letters set apart"),
            (views.pieces, _PIECES_INSIDE_MIN, "pieces set apart"),
        ):
            found |= self._in_letters(_with_squeezed(runs), shortest, view)
            backwards = tuple(run[::-1] for run in runs)
            found |= self._in_letters(backwards, _PIECES_INSIDE_MIN, f"{view}, backwards")
        for masked in views.masked:
            found |= self._named(self._by_mask.get(masked, ()), "masked letters")
        for word in set(plain.split()):
            found |= self._named(self.near.to(word), "a letter or two away")
        return found

    def _all_views(self, views: Views) -> Iterator[tuple[str, str]]:
        """The views, and what they become when stretched letters and turned words are undone."""
        for name, text in views.words.items():
            yield name, text
            if _LONG_RUN.search(text):
                yield f"{name}, stretched", self._unstretched(text)
                words = text.split()
                for count in (0, 1):
                    yield f"{name}, stretched", spaced([unstretched(word)[count] for word in words])
            words = text.split()
            turned = [word[::-1] if word[::-1] in self._of_phrases else word for word in words]
            if turned != words:
                yield f"{name}, backwards in place", spaced(turned)

    def attached(self, word: str) -> str | None:
        """The listed word that this one has in it, beside one of those it is often written to."""
        phrase, how = self._patterns.get(spaced([word]), ("", ""))
        return phrase if how == "attached" else None

    def _patterns_of(self, guessed: list[str], hard: frozenset[str]) -> dict[str, tuple[str, str]]:
        """What is looked for in words: the pattern, the phrase that it stands for, and how."""
        patterns = disguised(guessed, hard, self._collisions)
        # Last, so that a phrase itself is never taken for a guess at another.
        for phrase in (*self._names, *self._allowed, *self._beside):
            pattern = phrase.replace(" ", "") if eastern(phrase) else spaced([phrase])
            patterns[pattern] = (phrase, "")
        return patterns

    def _in_words(self, text: str, view: str, plain: str) -> set[Hit]:
        spans, harmless = [], []
        for phrase, how, start, end in self._matches(text):
            if eastern(phrase):  # for _in_joined
                continue
            if self._is_harmless(phrase, plain):
                harmless.append((start, end))
            if phrase in self._names:
                spans.append((phrase, f"{view}, {how}" if how else view, start, end))
        found: set[Hit] = set()
        for phrase, seen, start, end in spans:
            if not any(first <= start and end <= last for first, last in harmless):
                found |= self._named((phrase,), seen)
        return found

    def _in_joined(self, text: str, view: str) -> set[Hit]:
        """East Asian phrases, however they are spaced; "1" isn't the age in "21"."""
        spans, harmless = [], []
        for phrase, _, start, end in self._matches(text):
            if not eastern(phrase):
                continue
            if self._is_harmless(phrase, ""):
                harmless.append((start, end))
            is_part = start > 0 and _NUMERAL.match(phrase) and _NUMERAL.match(text[start - 1])
            if phrase in self._names and not is_part:
                spans.append((phrase, start, end))
        found: set[Hit] = set()
        for phrase, start, end in spans:
            if not any(first <= start and end <= last for first, last in harmless):
                found |= self._named((phrase,), view)
        return found

    def _in_numbers(self, text: str, plain: str) -> set[Hit]:
        """What numbers spell: a long word, or one of the words of a phrase."""
        found = self._in_words(text, "numbers", plain)
        return {it for it in found if it.view == "numbers" and len(it.term) >= _NUMBER_MIN}

    def _eastern_backwards(self, views: Views) -> set[Hit]:
        """East Asian phrases from their end; of two characters only if they stand by themselves."""
        long = {
            it for it, how, _, _ in self._matches(views.joined[::-1]) if not how and len(it) > 2
        }
        short = {word[::-1] for word in views.words["plain"].split() if len(word) == 2}
        terms = ((long | short) & self._hard) - self._collisions.backwards
        return self._named(terms, "backwards")

    def _matches(self, text: str) -> Iterator[tuple[str, str, int, int]]:
        keys = self._words.keys
        for index, start, end in self._words.find(text):
            phrase, how = self._patterns[keys[index]]
            yield phrase, how, start, end

    def _is_harmless(self, phrase: str, plain: str) -> bool:
        return phrase in self._allowed or any(
            spaced([word]) in plain for word in self._beside.get(phrase, ())
        )

    def _backwards(self, text: str, plain: str) -> set[Hit]:
        terms = {
            phrase
            for phrase, how, start, end in self._matches(text)
            if phrase in self._names
            and phrase not in self._collisions.backwards
            and spaced([phrase]) not in plain
            and (
                (not how and len(phrase) >= _BACKWARDS_MIN)
                or (how == "attached" and end - start - 2 >= _BACKWARDS_ATTACHED_MIN)
            )
        }
        return self._named(terms, "backwards")

    def _cut(self, plain: str) -> set[Hit]:
        """Words cut into real words, which only a text that hides something is taken for."""
        terms = {self._split[self._splits.keys[index]] for index, _, _ in self._splits.find(plain)}
        return self._named(terms, "plain, cut")

    def _in_letters(self, runs: tuple[str, ...], shortest: int, view: str) -> set[Hit]:
        together = "\n".join(runs)  # no phrase holds a line's end, so one search does for all
        keys = self._letters.keys
        terms = {
            self._inside_terms[keys[index]]
            for index, _, _ in (self._letters.find(together) if runs else ())
            if len(keys[index]) >= shortest
        }
        return self._named(terms, view)

    def _unstretched(self, text: str) -> str:
        """Words with a letter three times in a row, as the listed words that they may be."""
        return spaced([self._unstretched_word(word) for word in text.split()])

    def _unstretched_word(self, word: str) -> str:
        if _LONG_RUN.search(word):
            return self._squeezed.get(squeezed(word), word)
        return word

    def _named(self, terms: Iterable[str], view: str) -> set[Hit]:
        return {Hit(name, term, view) for term in terms for name in self._names[term]}


def phrase_matcher(lists: Lists, collisions: Collisions) -> Matcher:
    """The matcher of all lists; an operator's phrases and names aren't guessed at."""
    return Matcher(
        lists.block | lists.others,
        allowed=lists.allowed,
        allowed_beside=lists.allowed_beside,
        exact=lists.own | frozenset(lists.figures),
        hard=[
            phrase
            for phrases in lists.block.values()
            for phrase in phrases
            if phrase not in lists.own and not (eastern(phrase) and _NUMERAL.search(phrase))
        ],
        collisions=collisions,
    )


class _Index:
    """An automaton over a fixed set of keys."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self._automaton = AhoCorasick(keys)

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """Every occurrence, overlapping too: index of the key, start, end."""
        return self._automaton.find_matches_as_indexes(text, overlapping=True)


def _index(keys: Iterable[str]) -> _Index:
    return _Index(list(dict.fromkeys(keys)))


def _joined_views(text: str) -> Iterator[tuple[str, str]]:
    """East Asian text as it is, and without characters that are there again and again."""
    if text:
        yield "joined", text
        for name, reading in (
            ("stretched", _LONG_EASTERN_RUN.sub(r"\1", text)),
            ("stretched", _LONG_EASTERN_RUN.sub(r"\1\1", text)),
            ("doubled", _DOUBLED.sub(lambda found: found[0][::2], text)),
        ):
            if reading != text:
                yield f"joined, {name}", reading


def _long(phrases: Iterable[str]) -> list[str]:
    return [phrase for phrase in phrases if len(phrase) >= _INSIDE_MIN]


def _by_squeezed(phrases: Iterable[str]) -> dict[str, str]:
    """The words of all phrases, by themselves with every letter once where it is repeated."""
    return {squeezed(word): word for phrase in phrases for word in phrase.split()}


def _with_squeezed(runs: tuple[str, ...]) -> tuple[str, ...]:
    """Runs of letters, and what they are without the stretched."""
    every = (each for run in runs for each in (run, *unstretched(run)))
    return tuple(dict.fromkeys(every))
