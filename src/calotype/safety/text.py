"""Undoes disguises: reads a prompt as the words that a person, or a text encoder, sees in it.

Undone: case, compatibility forms (fullwidth, mathematical, circled), accents and other combining
marks, invisible characters, look-alike letters, digits and signs for letters, letters set apart by
spaces, points or emoji, stretched letters. Not undone: misspellings, words written backwards (no
model reads them either), other languages, and synonyms. It knows no list.

Forms: Unicode Standard Annex 15 (NFKD), the Unicode character categories.
"""

from __future__ import annotations

import re
import string
import unicodedata
from dataclasses import dataclass

# Letters that look like another, after case folding and NFKD: Cyrillic, Greek, Armenian, Latin.
_LOOKS_LIKE = {
    "а": "a", "в": "b", "с": "c", "ԁ": "d", "е": "e", "һ": "h", "н": "h", "і": "i", "ј": "j",
    "к": "k", "ӏ": "l", "м": "m", "п": "n", "о": "o", "р": "p", "ԛ": "q", "г": "r", "ѕ": "s",
    "т": "t", "у": "y", "ѵ": "v", "ԝ": "w", "х": "x", "з": "3", "ь": "b", "э": "e", "и": "n",
    "α": "a", "β": "b", "ε": "e", "γ": "y", "η": "n", "ι": "i", "κ": "k", "ν": "v", "ο": "o",
    "ρ": "p", "σ": "o", "ς": "c", "τ": "t", "υ": "u", "χ": "x", "ω": "w", "ϲ": "c", "ϳ": "j",
    "ա": "w", "ց": "g", "զ": "q", "հ": "h", "ո": "n", "ս": "u", "օ": "o", "ք": "p",
    "ı": "i", "ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ŧ": "t", "ɑ": "a", "ɓ": "b", "ɛ": "e",
    "ɡ": "g", "ɩ": "i", "ɪ": "i", "ɴ": "n", "ɵ": "o", "ʀ": "r", "ʋ": "v", "ʏ": "y", "ǝ": "e",
    "ᴀ": "a", "ʙ": "b", "ᴄ": "c", "ᴅ": "d", "ᴇ": "e", "ꜰ": "f", "ɢ": "g", "ʜ": "h", "ᴊ": "j",
    "ᴋ": "k", "ʟ": "l", "ᴍ": "m", "ᴏ": "o", "ᴘ": "p", "ꜱ": "s", "ᴛ": "t", "ᴜ": "u", "ᴠ": "v",
    "ᴡ": "w", "ᴢ": "z", "æ": "ae", "œ": "oe",
}  # fmt: skip
# Letters on emoji-like tiles, which no normal form takes off: A to Z from each of these on.
_TILES = (0x1F150, 0x1F170, 0x1F1E6)
_BLANK_LETTERS = "\u115f\u1160\u3164\uffa0\u2800"  # letters by category, invisible by sight
_INVISIBLE = ("Mn", "Me", "Cf")  # combining marks and format characters
_TABLE_MAX = 20_000  # characters remembered; more are looked up afresh each time

# Digits and signs for letters. One and its kin stand for i or l, so there are two readings.
_LEET_I = str.maketrans("0123456789@$!|+€£", "oizeasgtbgasiitel")
_LEET_L = str.maketrans("0123456789@$!|+€£", "olzeasbtbgaslltel")

_WORD = re.compile(r"[^\W_]+")
_NOT_WORD = re.compile(r"[\W_]+")
_LONG_RUN = re.compile(r"(.)\1\1")
_RUN = re.compile(r"(.)\1+")
# At a word's edge a sign is punctuation; these two alone are letters there too ("@ss", "a$$").
_EDGE = string.punctuation.replace("@", "").replace("$", "")
_APART_MIN = 3  # single letters in a row, from which on they are read as one word


class _Fold(dict[int, str | None]):
    """For str.translate: what becomes of a character; filled as characters are met."""

    def __missing__(self, code: int) -> str | None:
        seen = self._see(chr(code), code)
        if len(self) < _TABLE_MAX:
            self[code] = seen
        return seen

    @staticmethod
    def _see(character: str, code: int) -> str | None:
        if character in _LOOKS_LIKE:
            return _LOOKS_LIKE[character]
        if character in _BLANK_LETTERS or unicodedata.category(character) in _INVISIBLE:
            return None
        for start in _TILES:
            if start <= code < start + 26:
                return chr(ord("a") + code - start)
        return character


_fold = _Fold()


@dataclass(frozen=True)
class Reading:
    """A prompt as lines of words; ``readings`` tells what else each word may be."""

    lines: tuple[list[str], ...]  # the words; and if there are signs within words, those whole
    apart: tuple[str, ...]  # letters that stood apart, put together
    is_stretched: bool  # some letter stands three times in a row


def fold(text: str) -> str:
    """Lower case, plain letters, nothing invisible; a character may become several."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
    text = text.casefold()
    return text if text.isascii() else unicodedata.normalize("NFKD", text).translate(_fold)


def plain_words(text: str) -> list[str]:
    """The words of a text, folded, without other readings."""
    return _WORD.findall(fold(text))


def read(text: str) -> Reading:
    """Read a text of any length and alphabet."""
    folded = fold(text)
    words = _WORD.findall(folded)
    lines = [words]
    chunks = [chunk.strip(_EDGE) for chunk in folded.split()]
    if not all(map(str.isalnum, chunks)):
        lines.append(chunks)
    return Reading(tuple(lines), tuple(_apart(words)), _LONG_RUN.search(folded) is not None)


def readings(word: str) -> tuple[str, ...]:
    """What a word of a line may be: itself, without its signs, its signs and digits as letters."""
    if word.isalpha():
        return (word,)
    plain = _NOT_WORD.sub("", word)
    if not any(map(str.isalpha, word)):  # a number is a number
        return (plain,)
    return (plain, *(_NOT_WORD.sub("", word.translate(table)) for table in (_LEET_I, _LEET_L)))


def squeeze(word: str) -> str:
    """Each letter once where it is repeated."""
    return _RUN.sub(r"\1", word)


def is_stretched(word: str) -> bool:
    """Whether a letter stands three times in a row: no English word does that."""
    return _LONG_RUN.search(word) is not None


def _apart(words: list[str]) -> list[str]:
    """Runs of single characters, joined: "n", "u", "d", "3" is read as "nude"."""
    runs: list[str] = []
    run = ""
    for word in (*words, ""):
        if len(word) == 1:
            run += word
            continue
        if len(run) >= _APART_MIN:
            runs += readings(run)
        run = ""
    return runs
