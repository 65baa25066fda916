"""What checks on trial said beside those in force, and how far the two agree.

It counts what was recorded; it decides nothing, and nothing of it reaches a verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from calotype.core.errors import InvalidInput
from calotype.safety.evaluate import tally
from calotype.safety.policies import Policy
from calotype.safety.policies.policy import MINOR
from calotype.safety.setup import HARMLESS

SHOWN = 20  # of the pictures that the two disagree on: the newest


@dataclass(frozen=True)
class TrialVerdict:
    """What both said of one picture, by the policy of who asked for it."""

    check: str
    current: str  # build of the one in force
    build: str  # of the one on trial
    model: str
    job: str
    image: int
    policy: str  # version
    now: str | None  # the category for which the one in force blocks; "": it lets it pass; None:
    # it gave no answer
    then: str | None  # the same of the one on trial
    scores: Mapping[str, float]  # of the one on trial, by label
    failed: str  # why it gave no answer
    took_s: float
    at: str  # RFC 3339, UTC

    def line(self) -> str:
        """As it is kept: one line of JSON."""
        return json.dumps(asdict(self)) + "\n"


def read(line: str) -> TrialVerdict:
    """A kept line; raises InvalidInput for what is none."""
    try:
        return TrialVerdict(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"no record of a trial: {line[:60]!r}", field="trials") from error


def category(
    scores: Mapping[str, float], meanings: Mapping[str, str], policy: Policy, *, reads: bool = False
) -> str | None:
    """For which category a check would block by this policy: what is furthest past its threshold.

    Empty: for none; None: there are no scores. ``meanings``: the category of each label;
    ``reads``: it reads prompts, and doesn't look.
    """
    if not scores:
        return None
    worst = (1.0, "")
    for label, score in scores.items():
        means = meanings.get(label, HARMLESS)
        limit = policy.limit(means, reads=reads)
        if means not in (HARMLESS, MINOR) and limit and score / limit >= worst[0]:
            worst = (score / limit, means)
    return worst[1]


def report(verdicts: Iterable[TrialVerdict]) -> list[dict[str, Any]]:
    """By check and pair of builds: counts with Wilson's 95 % intervals, the newest disagreements.

    "compared" are pictures of which both gave an answer; shares of agreement and of what each
    blocks are of these, failures of all.
    """
    by_pair: dict[tuple[str, str, str], list[TrialVerdict]] = {}
    for each in verdicts:
        by_pair.setdefault((each.check, each.current, each.build), []).append(each)
    return [_of_pair(pair, some) for pair, some in by_pair.items()]


def _of_pair(pair: tuple[str, str, str], some: list[TrialVerdict]) -> dict[str, Any]:
    compared = [each for each in some if each.now is not None and each.then is not None]
    apart = [each for each in compared if bool(each.now) != bool(each.then)]
    count = len(compared)
    both = sum(bool(each.now) and bool(each.then) for each in compared)
    failed = sum(each.then is None for each in some)
    return {
        "check": pair[0],
        "current": pair[1],
        "candidate": pair[2],
        "since": min(each.at for each in some),
        "until": max(each.at for each in some),
        "pictures": len(some),
        "failed": tally(failed, len(some)),
        "unanswered by the current": sum(each.now is None for each in some),
        "compared": count,
        "agree": tally(count - len(apart), count),
        "both block": both,
        "only the current blocks": sum(bool(each.now) for each in apart),
        "only the candidate blocks": sum(bool(each.then) for each in apart),
        "neither blocks": count - both - len(apart),
        "current blocks": tally(sum(bool(each.now) for each in compared), count),
        "candidate blocks": tally(sum(bool(each.then) for each in compared), count),
        "mean_s": round(sum(each.took_s for each in some) / len(some), 4),
        "disagreements": [asdict(each) for each in apart[: -SHOWN - 1 : -1]],
        "failures": sorted({each.failed for each in some if each.failed})[:SHOWN],
    }
