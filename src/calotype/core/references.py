"""How models and adapters are called: NAME, NAME@ALIAS or NAME@VERSION.

A version is the beginning of a content hash, an alias a word that an operator points at one. What a
job was given is NAME@VERSION with all of the version's digits: the same bytes for ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from calotype.core import limits
from calotype.core.errors import InvalidInput

STABLE = "stable"  # the alias that a name alone stands for
LATEST = "latest"  # what was added last; nobody sets it
VERSION_DIGITS_MIN = 6  # hexadecimal, of a version in a reference
_AT = "@"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ALIAS = re.compile(r"[a-z][a-z0-9._-]*")
_VERSION = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Reference:
    """A name, and which of its versions; empty where that is left open."""

    name: str
    at: str = ""  # an alias, or the beginning of a version

    def __str__(self) -> str:
        return f"{self.name}{_AT}{self.at}" if self.at else self.name

    @property
    def may_be_version(self) -> bool:
        """Whether what it says could be the beginning of a version."""
        return is_version(self.at)


def reference(text: str) -> Reference:
    """Read a reference; what is behind the first @ may be an alias or a version."""
    name, _, at = text.partition(_AT)
    return Reference(name, at)


def plain(name: str) -> str:
    """The name alone."""
    return name.partition(_AT)[0]


def versioned(name: str, version: str) -> str:
    """What a job is given: the name of just this version."""
    return f"{name}{_AT}{version}"


def is_version(text: str) -> bool:
    """Whether it could be a version, or enough of the beginning of one."""
    return len(text) >= VERSION_DIGITS_MIN and _VERSION.fullmatch(text) is not None


def check_name(name: str, field: str = "name") -> str:
    """A name that something may be registered under; raises InvalidInput."""
    most = limits.MODEL_NAME_CHARS_MAX
    if not _NAME.fullmatch(name) or len(name) > most or ".." in name:
        raise InvalidInput(
            f"{name[:most]!r} can't be a name: letters, digits, '-', '_' and single '.', from a"
            f" letter or a digit on, at most {most}",
            field=field,
            limit={"max_chars": most},
        )
    return name


def check_alias(alias: str, field: str = "alias") -> str:
    """A word that may be an alias; raises InvalidInput for one that could be a version, too."""
    most = limits.MODEL_NAME_CHARS_MAX
    if not _ALIAS.fullmatch(alias) or len(alias) > most or is_version(alias) or alias == LATEST:
        raise InvalidInput(
            f"{alias[:most]!r} can't be an alias: small letters, digits, '-', '_' and '.', from a"
            f" letter on, at most {most}; not {LATEST!r}, and nothing that reads as a version",
            field=field,
            limit={"max_chars": most},
        )
    return alias
