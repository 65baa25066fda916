"""Canonical views: a text as the words that a person, or a text encoder, may see in it.

Undone: mojibake and character entities (with invisible characters in them, or backwards), what a
control character shows from right to left, what characters.py undoes, digits and signs for letters,
letters set apart by spaces, points or emoji (by themselves and in their place among the words),
stretched letters, words upside down. Words written backwards, misspellings, masked letters and
words cut in two are for match.py, which has the words. Synonyms are for the classifier. It knows no
list.
"""

from __future__ import annotations

import html
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass

import ftfy

from calotype.safety.characters import fold, visible

# Digits and signs for letters. One and its kin stand for i or l, so there are two readings.
_LEET_I = str.maketrans("0123456789@$!|+€£", "oizeasgtbgasiitel")
_LEET_L = str.maketrans("0123456789@$!|+€£", "olzeasbtbgaslltel")
# Letters as they look turned by half; "u" and "n", "b" and "q", "d" and "p" are each other.
_TURNED = str.maketrans("ɐqɔpǝɟƃɥᴉɾʞɯuodbɹʇnʌʍʎ", "abcdefghijkmnopqrtuvwy")
_TURNED_ONLY = set("ɐɔǝɟƃɥᴉɾʞɯɹʇʌʍʎ")

_WORD = re.compile(r"[^\W_]+")
_NOT_WORD = re.compile(r"[\W_]+")
_NOT_LETTER = re.compile(r"[\W\d_]+")
_SIGN_AT_END = re.compile(r"[^\s!][!|+](\s|$)")
_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
# At a word's edge a sign is punctuation; these two alone are letters there too ("@ss", "a$$").
_EDGE = string.punctuation.replace("@", "").replace("$", "")
# What nobody writes inside a word but to hide it: the invisible, and signs that mean nothing there.
_HIDING = re.compile(
    r"(?<=\w)[\u00ad\u034f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff*+|~`^]+(?=\w| \w)"
)
# What is shown from right to left whatever its letters are, up to where that is taken back.
_RIGHT_TO_LEFT = re.compile("\u202e([^\u202c]*)")
_LONE_Q = re.compile(r"q(?![uq])\w|\wq\b")  # of Latin words few have it; "b" upside down looks so
_STRETCHED = re.compile(r"(.)\1\1+")
_APART_MIN = 3  # single letters in a row, from which on they are read as one word
_PIECES_MIN = 3  # pieces of at most two letters in a row, the same


@dataclass(frozen=True)
class Views:
    """A text in its views. Every string but ``joined`` is of words with spaces around each."""

    words: dict[str, str]  # by the view's name; "plain" first, and doubles left out
    runs: tuple[str, ...]  # letters that stood apart, put together
    pieces: tuple[str, ...]  # the same of pieces of one or two letters
    masked: tuple[str, ...]  # words with signs in them, each sign as "*"
    joined: str  # all letters without spaces, if some are Chinese or Japanese; else empty
    hides: bool = False  # something stands inside a word that only hides it
    numbers: str = ""  # the words with numbers among them read as letters, if there are numbers


def plain_words(text: str) -> list[str]:
    """The words of a text, folded, without other readings."""
    return _WORD.findall(fold(text))


def spaced(words: list[str]) -> str:
    """Words as views have them, and as phrases are looked for: a space around each."""
    return f" {' '.join(words)} "


def views(text: str) -> Views:
    """Every view of a text of any length and alphabet."""
    found: dict[str, str] = {}
    runs: dict[str, None] = {}
    pieces: dict[str, None] = {}
    masked: set[str] = set()
    joined = numbers = ""
    for base, read in _bases(text):
        folded = fold(read)
        words = _WORD.findall(folded)
        chunks = [stripped for chunk in folded.split() if (stripped := chunk.strip(_EDGE))]
        apart = _runs(words, longest=1, fewest=_APART_MIN)
        for name, other in _readings_of(folded, words, chunks, apart):
            seen = spaced(other)
            if seen not in found.values():
                found[f"{base}, {name}" if base else name] = seen
        if any(map(str.isdecimal, chunks)):
            numbers += spaced([unleet(chunk, is_word=True) for chunk in chunks])
        runs |= dict.fromkeys(apart)
        pieces |= dict.fromkeys(_runs(words, longest=2, fewest=_PIECES_MIN))
        masked |= {_masked(chunk) for chunk in chunks if _is_masked(chunk)}
        if _EAST_ASIAN.search(folded):
            joined += "\n" + "".join(words)
    hides = _HIDING.search(text) is not None
    return Views(found, tuple(runs), tuple(pieces), tuple(masked), joined, hides, numbers)


def _bases(text: str) -> Iterator[tuple[str, str]]:
    """The text, and what it was before something garbled it; each by name."""
    yield "", text
    bare = visible(text)
    # As it came too: of three bytes taken for letters one may be invisible.
    as_it_came = [] if bare == text else [("", text)]
    for name, read in (*as_it_came, ("", bare), ("backwards, ", bare[::-1])):
        if "&" in read and ";" in read and (unescaped := html.unescape(read)) != read:
            yield f"{name}entities", unescaped
        if not text.isascii() and (mended := ftfy.fix_encoding(read)) != read:
            yield f"{name}mojibake", mended
    if "\u202e" in text:
        yield "right to left", _RIGHT_TO_LEFT.sub(lambda shown: shown[1][::-1], text)
    lower = text.lower()
    if _TURNED_ONLY & set(lower) or _LONE_Q.search(lower):
        yield "upside down", lower.translate(_TURNED)


def _readings_of(
    folded: str, words: list[str], chunks: list[str], runs: list[str]
) -> Iterator[tuple[str, list[str]]]:
    yield "plain", words
    if (rejoined := _rejoined(words)) != words:
        yield "set apart, in place", rejoined
        yield "set apart, in place, leet", [unleet(word, _LEET_I) for word in rejoined]
    if not all(map(str.isalpha, chunks)):
        yield "leet", [unleet(chunk, _LEET_I) for chunk in chunks]
        yield "leet with l", [unleet(chunk, _LEET_L) for chunk in chunks]
        yield "leet between signs", [unleet(word, _LEET_I) for word in words]
        yield "signs left out", [_NOT_WORD.sub("", chunk) for chunk in chunks]
        yield "signs and digits left out", [_NOT_LETTER.sub("", chunk) for chunk in chunks]
    if _SIGN_AT_END.search(folded):
        whole = [unleet(chunk.lstrip(_EDGE), _LEET_I) for chunk in folded.split()]
        yield "leet to the end", [word for word in whole if word]
    if runs:
        yield "letters set apart", [seen for run in runs for seen in _readings(run)]


def unstretched(word: str) -> tuple[str, str]:
    """The word with letters that come three times in a row or more once, and twice."""
    return _STRETCHED.sub(r"\1", word), _STRETCHED.sub(r"\1\1", word)


def _is_single(word: str, longest: int) -> bool:
    """Whether it is a piece of a word that was taken apart; a stretched letter is one letter."""
    return len(word) <= longest or (len(word) > _APART_MIN and len(set(word)) == 1)


def _rejoined(words: list[str]) -> list[str]:
    """The words, with runs of single letters as one word each."""
    found: list[str] = []
    run: list[str] = []
    for word in (*words, ""):
        if word and _is_single(word, 1):
            run.append(word)
            continue
        if len(run) >= _APART_MIN and run[0] == "a":  # more likely an article
            found.append(run.pop(0))
        found += ["".join(run)] if len(run) > 1 else run
        run = []
        found += [word] if word else []
    return found


def unleet(word: str, table: dict[int, int] = _LEET_I, *, is_word: bool = False) -> str:
    """The word with digits and signs read as letters; a number is one, unless ``is_word``."""
    if not is_word and not any(map(str.isalpha, word)):
        return _NOT_WORD.sub("", word)
    return _NOT_WORD.sub("", word.translate(table))


def _readings(run: str) -> tuple[str, ...]:
    return run, unleet(run, _LEET_I), unleet(run, _LEET_L)


def _runs(words: list[str], *, longest: int, fewest: int) -> list[str]:
    """Runs of short pieces, joined: "n", "u", "d", "3" is read as "nud3" and as "nude"."""
    runs: list[str] = []
    run: list[str] = []
    for word in (*words, " " * (longest + 1)):
        if word.strip() and _is_single(word, longest):
            run.append(word)
            continue
        if len(run) >= fewest:
            runs += dict.fromkeys(_readings("".join(run)))
        run = []
    return runs


def _is_masked(chunk: str) -> bool:
    return chunk[0].isalpha() and not chunk.isalnum() and len(chunk) <= 24


def _masked(chunk: str) -> str:
    """Each run of signs as one star: "n*de", "n**e" keep how many letters are missing."""
    return _NOT_WORD.sub(lambda signs: "*" * len(signs.group()), chunk)
