"""Finds the real words that a guess at a disguise would take for a listed one.

    python -m training.safety_collisions

Run it after every change of the lists. It writes src/calotype/safety/terms/collisions.toml, in some
minutes on one core. Words and how common they are: the dictionaries of pyspellchecker (MIT), of
seven languages.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from rapidfuzz.distance import OSA
from spellchecker import SpellChecker

from calotype.safety.guesses import cuts, guessed_phrases, swaps
from calotype.safety.lists import SHIPPED, Collisions, Lists
from calotype.safety.match import phrase_matcher
from calotype.safety.views import plain_words

LANGUAGES = ("en", "de", "fr", "es", "pt", "it", "ru")
SHARE_MIN = 2e-7  # of a language's running text: below it lie slips of the pen
PIECE_SHARE_MIN = 2e-6  # for short words, of which dictionaries have many by accident
# As in "a minor key" (with an ending it is listed); a king; a colour, like a form of "violée".
HARMLESS = {"minor", "cnut", "violet"}
# East Asian terms that are words from their end, or common among others; there is no dictionary.
EASTERN_BACKWARDS = {
    "上吊", "做愛", "做爱", "口交", "春宫", "春画", "生首", "露点", "露點", "黄片",
}  # fmt: skip
LETTERS_ALONE = set("aioyeuвиосяук")  # letters that are words


def words() -> tuple[set[str], set[str], set[str]]:
    """Folded words of all languages; the rare ones too; and the common ones among them."""
    known, rare, common = set(), set(), set()
    for language in LANGUAGES:
        counts = SpellChecker(language=language).word_frequency.dictionary
        total = sum(counts.values())
        for word, count in counts.items():
            parts = plain_words(word)
            if len(parts) == 1:
                rare.add(parts[0])
            if len(parts) == 1 and count >= SHARE_MIN * total:
                known.add(parts[0])
                is_word = len(parts[0]) > 1 or parts[0] in LETTERS_ALONE
                if count >= PIECE_SHARE_MIN * total and is_word:
                    common.add(parts[0])
    return known, rare, common


def is_inflected(word: str, term: str) -> bool:
    """Whether a neighbour is likely the same word with another ending: that stays refused."""
    shared = next((i for i, (a, b) in enumerate(zip(word, term, strict=False)) if a != b), 99)
    return shared >= len(term) - 1


def collisions() -> Collisions:
    """Those of the shipped lists."""
    lists = Lists.shipped()
    matcher = phrase_matcher(lists, Collisions(far=frozenset({""})))  # two letters are guessed at
    known, rare, common = words()
    near, far = set(), set()
    for word in rare:
        terms = matcher.near.to(word)
        close = [term for term in terms if OSA.distance(word, term) == 1]
        if word in known and (
            matcher.attached(word)
            or (close and not any(is_inflected(word, term) for term in close))
        ):
            near.add(word)
        # Two letters are so much that a word which anybody ever wrote is taken for itself.
        elif len(close) < len(terms) and not close:
            far.add(word)
    guessed = guessed_phrases(lists)
    splits = {pieces for term in guessed for pieces in cuts(term) if set(pieces.split()) <= common}
    backwards = {term for term in guessed if term[::-1] in known} | EASTERN_BACKWARDS
    hard = [phrase for phrases in lists.block.values() for phrase in phrases]
    swapped = {
        other
        for phrase in hard
        for other in swaps(phrase)
        if set(other.split()) - set(phrase.split()) <= known
    }
    return Collisions(
        near=frozenset(near | HARMLESS),
        far=frozenset(far),
        splits=frozenset(splits),
        swaps=frozenset(swapped),
        backwards=frozenset(backwards),
    )


def written(name: str, entries: Iterable[str]) -> str:
    """One list of the file, in lines that people can read."""
    lines, line = [], "   "
    for entry in sorted(entries):
        quoted = f' "{entry}",'
        if len(line) + len(quoted) > 100:
            lines.append(line)
            line = "   "
        line += quoted
    lines.append(line)
    return f"{name} = [\n" + "\n".join(lines) + "\n]\n"


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m training.safety_collisions",
        description="Find the real words that a guess at a disguise would take for a listed one.",
    )
    parser.add_argument(
        "--out", type=Path, default=SHIPPED / "collisions.toml", help="the file that is written"
    )
    path = parser.parse_args().out
    found = collisions()
    path.write_text(
        "# Made by training/safety_collisions.py: real words that a guess would hit.\n\n"
        + written("near", found.near)
        + written("far", found.far)
        + written("splits", found.splits)
        + written("swaps", found.swaps)
        + written("backwards", found.backwards),
        encoding="utf-8",
    )
    counts = {name: len(words) for name, words in asdict(found).items()}
    print(f"{path}: {counts}")


if __name__ == "__main__":
    main()
