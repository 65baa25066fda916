"""Reads the word lists: those shipped with the package, and an operator's additions.

It knows the lists' shape, not how they are used.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from calotype.core.errors import OperatorError
from calotype.safety.text import plain_words

ALWAYS = "sexual_minors"  # the category that no operator can turn off
CATEGORIES = (ALWAYS, "sexual", "violence", "hate")  # the first that applies is the one told
SHIPPED = Path(__file__).with_name("blocklist.toml")

_AGES_IN_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen"
)
_AGES = (*map(str, range(1, 18)), *_AGES_IN_WORDS.split())
# What a file may hold: table, then key, or a key by itself. Operators get no "benign": it would be
# a way round sexual_minors.
_TABLES = {
    "block": CATEGORIES,
    "conjunction": ("minors", "suggestive"),
    "negative": ("undressing",),
}


@dataclass(frozen=True)
class Lists:
    """Every phrase as the text reader reads it: plain words with single spaces between."""

    block: dict[str, tuple[str, ...]]  # by category, in the order of CATEGORIES
    minors: tuple[str, ...]
    suggestive: tuple[str, ...]
    undressing: tuple[str, ...]
    benign: tuple[str, ...]
    off: frozenset[str] = field(default_factory=frozenset)  # categories that aren't refused

    @classmethod
    def shipped(cls) -> Lists:
        """The package's own lists."""
        raw = _load(SHIPPED, ("benign",))
        return cls(
            block={name: _phrases(raw["block"][name]) for name in CATEGORIES},
            minors=_phrases(raw["conjunction"]["minors"]),
            suggestive=_phrases(raw["conjunction"]["suggestive"]),
            undressing=_phrases(raw["negative"]["undressing"]),
            benign=_phrases(raw["benign"]),
        )

    def extended(self, path: Path) -> Lists:
        """These lists and those of an operator's file; raises OperatorError naming the file."""
        raw = _load(path, ("off",))
        block, conjunction = raw.get("block", {}), raw.get("conjunction", {})
        negative, off = raw.get("negative", {}), frozenset(raw.get("off", ()))
        if not off <= set(CATEGORIES[1:]):
            raise OperatorError(
                f"{path}: only these categories can be off: {', '.join(CATEGORIES[1:])}",
                field="off",
                limit=list(CATEGORIES[1:]),
            )
        return replace(
            self,
            block={name: had + _phrases(block.get(name, ())) for name, had in self.block.items()},
            minors=self.minors + _phrases(conjunction.get("minors", ())),
            suggestive=self.suggestive + _phrases(conjunction.get("suggestive", ())),
            undressing=self.undressing + _phrases(negative.get("undressing", ())),
            off=off,
        )

    @property
    def version(self) -> str:
        """Hash of everything in the lists: first 12 hex digits of SHA-256."""
        text = json.dumps(asdict(self) | {"off": sorted(self.off)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _load(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OperatorError(f"{path} can't be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise OperatorError(f"{path} isn't a list of words in TOML: {error}") from error
    for name, content in raw.items():
        if name in keys:
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


def _phrases(terms: Iterable[str]) -> tuple[str, ...]:
    """Each entry as plain words, with {age} written out; the order is kept, doubles are dropped."""
    written = (
        term.replace("{age}", age) for term in terms for age in (_AGES if "{age}" in term else "-")
    )
    return tuple(dict.fromkeys(" ".join(plain_words(each)) for each in written))
