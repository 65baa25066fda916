"""From what a caller wrote to a job's spec: every limit is checked here, whoever asks.

Nothing is corrected in silence: a value is taken as it is, or refused with its field and its limit.
What the caller left open is filled from the model's defaults (and the seed by chance), so that a
spec is whole and a job can be made again from it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection
from enum import StrEnum
from typing import Any, TypeVar

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.core.nouns import Ask, ModelInfo, Sampler, Spec, Tier

E = TypeVar("E", bound=StrEnum)

_CONTROL = {chr(code) for code in range(32)} - {"\n", "\t", "\r"} | {"\x7f"}


def spec_of(ask: Ask, model: ModelInfo) -> Spec:
    """The spec of what was asked of this model; raises InvalidInput."""
    _check_text("prompt", ask.prompt)
    if not ask.prompt.strip():
        raise InvalidInput("the prompt is empty", field="prompt", limit={"min_chars": 1})
    _check_text("negative_prompt", ask.negative_prompt)
    guidance = model.guidance if ask.guidance is None else ask.guidance
    _check_range("guidance", guidance, limits.GUIDANCE_MIN, limits.GUIDANCE_MAX)
    seed = secrets.randbelow(limits.SEED_MAX + 1) if ask.seed is None else ask.seed
    return Spec(
        prompt=ask.prompt,
        negative_prompt=ask.negative_prompt,
        model=model.name,
        width=_size("width", ask.width, model.width, model),
        height=_size("height", ask.height, model.height, model),
        steps=_whole(
            "steps",
            model.steps if ask.steps is None else ask.steps,
            limits.STEPS_MIN,
            limits.STEPS_MAX,
        ),
        guidance=float(guidance),
        sampler=_one_of("sampler", ask.sampler, Sampler, model.sampler),
        seed=_whole("seed", seed, 0, limits.SEED_MAX),
        n=_whole("n", ask.n, 1, limits.IMAGES_PER_JOB_MAX),
    )


def tier_of(ask: Ask) -> Tier:
    """The tier that was asked for; raises InvalidInput."""
    return _one_of("tier", ask.tier, Tier, Tier.FAST)


def model_name(ask: Ask, default: str) -> str:
    """The model that was asked for."""
    return default if ask.model is None else ask.model


def _check_text(field: str, text: str) -> None:
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


def _check_range(field: str, value: float, least: float, most: float) -> None:
    if not math.isfinite(value) or not least <= value <= most:
        raise InvalidInput(
            f"{field} must be from {least:g} to {most:,g}, not {value:g}",
            field=field,
            limit={"min": least, "max": most},
        )


def _whole(field: str, value: int, least: int, most: int) -> int:
    # Compared as integers: a huge one would not fit the float of a message.
    if not least <= value <= most:
        raise InvalidInput(
            f"{field} must be from {least} to {most}, not {str(value)[:24]}",
            field=field,
            limit={"min": least, "max": most},
        )
    return value


def _size(field: str, value: int | None, default: int, model: ModelInfo) -> int:
    least = max(model.size_px_min, limits.SIZE_PX_MIN)
    most = min(model.size_px_max, limits.SIZE_PX_MAX)
    size = default if value is None else value
    limit: dict[str, Any] = {"min": least, "max": most, "multiple_of": limits.SIZE_PX_MULTIPLE}
    if not least <= size <= most:
        raise InvalidInput(
            f"{field} must be from {least} to {most} pixels for {model.name}, not {str(size)[:24]}",
            field=field,
            limit=limit,
        )
    if size % limits.SIZE_PX_MULTIPLE:
        raise InvalidInput(
            f"{field} must be a multiple of {limits.SIZE_PX_MULTIPLE} pixels, not {size}",
            field=field,
            limit=limit,
        )
    return size


def _one_of(field: str, value: str | None, kind: type[E], default: E) -> E:
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
