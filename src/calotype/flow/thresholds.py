"""Finds a configured text classifier's thresholds, for a command; no server is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calotype.core import limits
from calotype.core.errors import InvalidInput
from calotype.core.picture_checks import CheckKind
from calotype.pool import scorer
from calotype.safety.evaluate import SETS, prompts, tally
from calotype.safety.setup import HARMLESS, SafetySetup
from calotype.safety.thresholds import Threshold, check_target, thresholds


@dataclass(frozen=True)
class Found:
    """Of each bad label, and what they mean together."""

    labels: tuple[Threshold, ...]
    categories: dict[str, float]  # the highest of a category's labels: a policy has one of each
    refused: dict[str, object]  # harmless prompts, by any label


def find(setup: SafetySetup, name: str, file: Path | None, target: float) -> Found:
    """Have the check score harmless prompts, a line each (or ours), and tell its thresholds.

    Raises InvalidInput for a check or prompts that are of no use, OperatorError if it can't run.
    """
    configured = {it.use.name: it for it in setup.checks if it.use.kind == CheckKind.TEXT}
    if name not in configured:
        raise InvalidInput(
            f"safety.toml has no text classifier {name!r}", field="check", limit=sorted(configured)
        )
    check = configured[name]
    bad = [label for label in check.use.labels if check.categories[label] != HARMLESS]
    harmless = _harmless(file)
    check_target(len(harmless), target)  # before minutes are spent on scores
    scores = scorer.scores(check.use, harmless)
    found = thresholds(scores, bad, target)
    known = {it.label: it.score for it in found if it.score is not None}
    by_category: dict[str, float] = {}
    for label, score in known.items():
        category = check.categories[label]
        by_category[category] = max(by_category.get(category, 0.0), score)
    limits_of = {label: by_category[check.categories[label]] for label in known}
    count = sum(any(each[label] >= it for label, it in limits_of.items()) for each in scores)
    return Found(tuple(found), by_category, tally(count, len(scores)))


def _harmless(file: Path | None) -> Sequence[str]:
    if file is None:
        return [text for name in SETS for text in prompts(name)["harmless"]["looks_bad"]]
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} can't be read: {error}", field="harmless") from error
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    most = limits.SCORED_PROMPTS_MAX
    if not 0 < len(found) <= most:
        raise InvalidInput(
            f"{file} has {len(found):,} prompts; from 1 to {most:,} are allowed",
            field="harmless",
            limit=most,
        )
    return found
