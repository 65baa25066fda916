"""Whether a value is within its limits, whoever asks; what isn't names its field and its limit."""

from __future__ import annotations

import math
from collections.abc import Collection
from enum import StrEnum
from typing import Any, TypeVar

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.core.families import FAMILIES
from calotype.core.nouns import ModelInfo

E = TypeVar("E", bound=StrEnum)

_CONTROL = {chr(code) for code in range(32)} - {"\n", "\t", "\r"} | {"\x7f"}


def check_text(field: str, text: str) -> None:
    """Refuse a text that is too long, or that no person can have typed."""
    if len(text) > limits.PROMPT_CHARS_MAX:
        raise InvalidInput(
            f"{field} has {len(text):,} characters; {limits.PROMPT_CHARS_MAX:,} are allowed",
            field=field,
            limit={"max_chars": limits.PROMPT_CHARS_MAX},
        )
    if any(character in _CONTROL or "\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(
            f"{field} has a control character or half a character (a lone surrogate)",
            field=field,
            limit="printable text, tabs and line ends",
        )


def check_range(field: str, value: float, least: float, most: float) -> None:
    """Refuse a number that isn't from ``least`` to ``most``."""
    if not math.isfinite(value) or not least <= value <= most:
        raise InvalidInput(
            f"{field} must be from {least:g} to {most:,g}, not {value:g}",
            field=field,
            limit={"min": least, "max": most},
        )


def check_count(field: str, count: int, most: int) -> None:
    """Refuse a list of more than ``most``."""
    if count > most:
        raise InvalidInput(
            f"{field} has {count}; {most} are allowed", field=field, limit={"max_items": most}
        )


def whole(field: str, value: int, least: int, most: int) -> int:
    """The number, if it is from ``least`` to ``most``."""
    # Compared as integers: a huge one would not fit the float of a message.
    if not least <= value <= most:
        raise InvalidInput(
            f"{field} must be from {least} to {most}, not {str(value)[:24]}",
            field=field,
            limit={"min": least, "max": most},
        )
    return value


def size_range(model: ModelInfo) -> tuple[int, int]:
    """The smallest and the largest side that the model draws, in pixels."""
    least = max(model.size_px_min, limits.SIZE_PX_MIN)
    return least, min(model.size_px_max, limits.SIZE_PX_MAX)


def size_multiple(model: ModelInfo) -> int:
    """Sides are multiples of this, in pixels."""
    return max(limits.SIZE_PX_MULTIPLE, FAMILIES[model.family].size_px_multiple)


def size(field: str, value: int, model: ModelInfo) -> int:
    """The side of a picture in pixels, if the model draws such."""
    (least, most), multiple = size_range(model), size_multiple(model)
    limit: dict[str, Any] = {"min": least, "max": most, "multiple_of": multiple}
    if not least <= value <= most:
        raise InvalidInput(
            f"{field} must be from {least} to {most} pixels for {model.name}, "
            f"not {str(value)[:24]}",
            field=field,
            limit=limit,
        )
    if value % multiple:
        raise InvalidInput(
            f"{field} must be a multiple of {multiple} pixels, not {value}",
            field=field,
            limit=limit,
        )
    return value


def one_of(field: str, value: str | None, kind: type[E], default: E) -> E:
    """The member of this name; ``default`` where nothing was said."""
    if value is None:
        return default
    names: Collection[str] = [member.value for member in kind]
    if value not in names:
        raise InvalidInput(
            f"{field} must be one of {', '.join(names)}, not {value[:40]!r}",
            field=field,
            limit=list(names),
        )
    return kind(value)
