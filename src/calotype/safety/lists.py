"""Reads the word lists: those shipped with the package, and an operator's additions.

It knows the lists' shape, not how they are used.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from calotype.core.errors import OperatorError
from calotype.safety.views import plain_words

ALWAYS = "sexual_minors"  # the category that no operator can turn off
# Of lists; the first that applies is the one told.
LISTED = (ALWAYS, "sexual", "self_harm", "gore", "violence", "hate", "illegal")
CATEGORIES = (*LISTED, "harassment")  # that one comes of names beside what is listed
SHIPPED = Path(__file__).with_name("terms")
LANGUAGES = ("en", "de", "fr", "es", "pt", "it", "ru", "zh", "ja")

_AGES = tuple(map(str, range(1, 18)))
_GRADES = ("1st", "2nd", "3rd", *(f"{n}th" for n in range(4, 13)))
# What a file may hold: table, then key, or a key by itself. Operators get no "allowed": it would be
# a way round sexual_minors.
_TABLES = {
    "block": LISTED,
    "conjunction": ("minors", "suggestive", "degrading"),
    "negative": ("undressing",),
}
_SHIPPED_KEYS = ("allowed", "numbers", "ordinals")
_OPERATOR_KEYS = ("off", "figures")


@dataclass(frozen=True)
class Collisions:
    """Real words that a guess at a disguise would take for a listed one; made by training."""

    near: frozenset[str] = frozenset()  # words one letter away from a term
    far: frozenset[str] = frozenset()  # words two letters away
    splits: frozenset[str] = frozenset()  # terms cut into pieces that are all words: "pen is"
    swaps: frozenset[str] = frozenset()  # phrases with two letters swapped that are real words
    backwards: frozenset[str] = frozenset()  # terms that are a word from their end

    @classmethod
    def shipped(cls) -> Collisions:
        """Those of the shipped lists."""
        raw = tomllib.loads((SHIPPED / "collisions.toml").read_text(encoding="utf-8"))
        return cls(**{name: frozenset(words) for name, words in raw.items()})

    @property
    def version(self) -> str:
        """Hash of all of them: first 12 hex digits of SHA-256."""
        return _digest({name: sorted(words) for name, words in asdict(self).items()})


@dataclass(frozen=True)
class Lists:
    """Every phrase as the views have it: plain words with single spaces between."""

    block: dict[str, tuple[str, ...]]  # by category, in the order of LISTED
    minors: tuple[str, ...]
    suggestive: tuple[str, ...]
    degrading: tuple[str, ...]
    undressing: tuple[str, ...]
    figures: tuple[str, ...]
    allowed: tuple[str, ...]
    allowed_beside: dict[str, tuple[str, ...]]  # phrase, and the words that make it harmless
    own: frozenset[str] = frozenset()  # an operator's phrases: looked for without guessing
    off: frozenset[str] = field(default_factory=frozenset)  # categories that aren't refused

    @classmethod
    def shipped(cls) -> Lists:
        """The package's own lists, of all languages."""
        raws = [
            _load(SHIPPED / f"{language}.toml", (*_SHIPPED_KEYS, "allowed_beside"))
            for language in LANGUAGES
        ]
        beside: dict[str, tuple[str, ...]] = {}
        for raw in raws:
            for phrase, words in raw.get("allowed_beside", {}).items():
                beside[" ".join(plain_words(phrase))] = _phrases(words)
        return cls(
            block={name: _merged(raws, "block", name) for name in LISTED},
            minors=_merged(raws, "conjunction", "minors"),
            suggestive=_merged(raws, "conjunction", "suggestive"),
            degrading=_merged(raws, "conjunction", "degrading"),
            undressing=_merged(raws, "negative", "undressing"),
            figures=_phrases(_load(SHIPPED / "figures.toml", ("figures",))["figures"]),
            allowed=tuple(phrase for raw in raws for phrase in _phrases(raw["allowed"])),
            allowed_beside=beside,
        )

    def extended(self, path: Path) -> Lists:
        """These lists and those of an operator's file; raises OperatorError naming the file."""
        raw = _load(path, _OPERATOR_KEYS)
        off = frozenset(raw.get("off", ()))
        may_be_off = CATEGORIES[1:]
        if not off <= set(may_be_off):
            raise OperatorError(
                f"{path}: only these categories can be off: {', '.join(may_be_off)}",
                field="off",
                limit=list(may_be_off),
            )
        english = _load(SHIPPED / "en.toml", (*_SHIPPED_KEYS, "allowed_beside"))
        raw |= {name: english[name] for name in ("numbers", "ordinals")}
        block = {name: _merged([raw], "block", name) for name in LISTED}
        more = {
            name: _merged([raw], table, name)
            for table in ("conjunction", "negative")
            for name in _TABLES[table]
        } | {"figures": _phrases(raw.get("figures", ()))}
        return replace(
            self,
            block={name: had + block[name] for name, had in self.block.items()},
            **{name: getattr(self, name) + phrases for name, phrases in more.items()},
            own=frozenset(
                phrase for group in (block, more) for each in group.values() for phrase in each
            ),
            off=off,
        )

    @property
    def others(self) -> dict[str, tuple[str, ...]]:
        """What is refused only together with something else, by the name of its list."""
        names = ("minors", "suggestive", "degrading", "undressing", "figures")
        return {name: getattr(self, name) for name in names}

    @property
    def version(self) -> str:
        """Hash of everything in the lists: first 12 hex digits of SHA-256."""
        content = asdict(self) | {"off": sorted(self.off), "own": sorted(self.own)}
        return _digest(content)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _load(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OperatorError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise OperatorError(f"{path} isn't a list of words in TOML: {error}") from error
    for name, content in raw.items():
        if name == "allowed_beside" and name in keys:
            for phrase, words in content.items():
                _check_list(path, f"{name}.{phrase}", words)
        elif name in keys:
            _check_list(path, name, content)
        elif name in _TABLES and isinstance(content, dict):
            for key, terms in content.items():
                if key not in _TABLES[name]:
                    raise OperatorError(f"{path}: unknown list {name}.{key}", field=key)
                _check_list(path, f"{name}.{key}", terms)
        else:
            raise OperatorError(f"{path}: unknown entry {name}", field=name)
    return raw


def _check_list(path: Path, name: str, content: Any) -> None:
    if not isinstance(content, list) or not all(isinstance(each, str) for each in content):
        raise OperatorError(f"{path}: {name} must be a list of texts", field=name)
    for each in content:
        if not plain_words(each):
            raise OperatorError(f"{path}: {name} has an entry without words: {each!r}", field=name)


def _merged(raws: Sequence[dict[str, Any]], table: str, name: str) -> tuple[str, ...]:
    """One list of all files, with each file's own words for numbers written out."""
    found: dict[str, None] = {}
    for raw in raws:
        numbers, ordinals = raw["numbers"], raw["ordinals"]
        terms = raw.get(table, {}).get(name, ())
        found |= dict.fromkeys(_phrases(terms, (*_AGES, *numbers), (*_GRADES, *ordinals)))
    return tuple(found)


def _phrases(
    terms: Iterable[str], ages: Sequence[str] = _AGES, grades: Sequence[str] = _GRADES
) -> tuple[str, ...]:
    """Each entry as plain words, numbers written out; the order is kept, doubles are dropped."""
    written = (
        term.replace("{age}", age).replace("{nth}", grade)
        for term in terms
        for age in (ages if "{age}" in term else "-")
        for grade in (grades if "{nth}" in term else "-")
    )
    return tuple(dict.fromkeys(" ".join(plain_words(each)) for each in written))
