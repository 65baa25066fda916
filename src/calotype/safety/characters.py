"""Undoes what is done to single characters: case, forms, accents, look-alikes, the invisible.

The same folding is done to lists and to prompts, so it has to be consistent, not right: a Cyrillic
word becomes a mixture, and so does the same word in the list.

Forms: Unicode Standard Annex 15 (NFKD), the Unicode character categories; look-alikes beyond our
own table: Unicode's confusables, by confusable_homoglyphs.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from importlib import resources

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
    "ᴡ": "w", "ᴢ": "z", "æ": "ae", "œ": "oe", "ɥ": "h",
    "ʎ": "y", "ɹ": "r", "ʇ": "t", "ʌ": "v", "ʍ": "w",
    "ɐ": "a", "ɔ": "c", "ɟ": "f", "ƃ": "g", "ᴉ": "i", "ɾ": "j", "ʞ": "k", "ɯ": "m", "ʃ": "l",
}  # fmt: skip
# Letters on emoji-like tiles, which no normal form takes off: A to Z from each of these on.
_TILES = (0x1F150, 0x1F170, 0x1F1E6)
_BLANK_LETTERS = "\u115f\u1160\u3164\uffa0\u2800"  # letters by category, invisible by sight
_INVISIBLE = ("Mn", "Me", "Cf")  # combining marks and format characters
_TABLE_MAX = 20_000  # characters remembered; more are looked up afresh each time

# Scripts whose characters mean too much to be taken for a letter.
_OWN_MEANING = ((0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


@functools.cache
def _confusables() -> dict[str, str]:
    """Characters beyond ASCII that Unicode takes for a single letter a to z."""
    raw = resources.files("confusable_homoglyphs").joinpath("confusables.json").read_text("utf-8")
    found = {}
    for character, others in json.loads(raw).items():
        letters = [each["c"].lower() for each in others]
        letters = [each for each in letters if len(each) == 1 and "a" <= each <= "z"]
        if len(character) == 1 and not character.isascii() and letters and not _means(character):
            found[character] = letters[0]
    return found


def _means(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _OWN_MEANING)


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
        if character in _confusables():
            return _confusables()[character]
        if character in _BLANK_LETTERS or unicodedata.category(character) in _INVISIBLE:
            return None
        for start in _TILES:
            if start <= code < start + 26:
                return chr(ord("a") + code - start)
        return character


_fold = _Fold()


def fold(text: str) -> str:
    """Lower case, plain letters, nothing invisible; a character may become several."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
    text = text.casefold()
    return text if text.isascii() else unicodedata.normalize("NFKD", text).translate(_fold)


def visible(text: str) -> str:
    """The text without what nobody sees: format characters, and letters that are blank."""
    if text.isascii():
        return text
    return "".join(
        each
        for each in text
        if each not in _BLANK_LETTERS and unicodedata.category(each) not in _INVISIBLE
    )
